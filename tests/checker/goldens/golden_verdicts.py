# SPDX-License-Identifier: Apache-2.0
"""when, require, panic, reached, and the properties of states."""

from guestmem.model import World, always, bounded, panic, reached, require, sometimes, step, thread, when


class W(World):
    n: int = bounded(3)

    @thread
    def only(self) -> None:
        while True:
            self.act()

    @step
    def act(self) -> None:
        when(self.n < 3)
        require(self.n >= 0, "it counts up")
        self.n += 1
        if self.n == 2:
            reached("two")
        if self.n > 3:
            panic("too many")

    @always("there are at most three")
    def few(self) -> bool:
        return self.n <= 3

    @sometimes("there are three")
    def three(self) -> bool:
        return self.n == 3
