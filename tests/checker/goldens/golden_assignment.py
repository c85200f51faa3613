# SPDX-License-Identifier: Apache-2.0
"""A field, an element, a local; and each with an operator."""

from guestmem.model import World, array, bounded, step, thread


class W(World):
    n: int = bounded(3)
    marks: list[int] = array(2, hi=3)

    @thread
    def only(self) -> None:
        self.act()

    @step
    def act(self) -> None:
        x = self.n
        x = x + 1
        self.n = min(x, 3)
        self.marks[1] = self.n
        x += self.n
        self.n -= 1
        self.marks[self.n % 2] |= 1
