# SPDX-License-Identifier: Apache-2.0
"""A loop inside a step, and one of a thread, which it must leave."""

from guestmem.model import World, bounded, step, thread


class W(World):
    n: int = bounded(3)

    @thread
    def only(self) -> None:
        while self.look() < 3:
            self.act()

    @step
    def look(self) -> int:
        return self.n

    @step
    def act(self) -> None:
        while True:
            if self.n == 3:
                break
            self.n += 1
            if self.n == 2:
                continue
            self.n = 3
