# SPDX-License-Identifier: Apache-2.0
"""Comparisons in a chain, conditions that are evaluated only if needed, one of two values."""

from guestmem.model import World, array, bounded, step, thread


class W(World):
    n: int = bounded(3)
    marks: list[bool] = array(2)

    @thread
    def only(self) -> None:
        self.act()

    def asks(self) -> bool:
        return self.n == 2

    @step
    def act(self) -> None:
        self.marks[0] = 0 < self.n <= 2
        self.marks[1] = self.marks[0] or self.marks[1 // self.n] or not self.asks()
        self.n = 1 if self.marks[0] else 2
