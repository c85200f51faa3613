# SPDX-License-Identifier: Apache-2.0
"""all, any and sum."""

from guestmem.model import World, array, bounded, step, thread


class W(World):
    marks: list[bool] = array(2)
    numbers: list[int] = array(2, hi=1)
    n: int = bounded(2)

    @thread
    def only(self) -> None:
        self.act()

    @step
    def act(self) -> None:
        if all(self.marks) or any(n == 1 for n in self.numbers if n < 2):
            self.n = sum(self.numbers)
