# SPDX-License-Identifier: Apache-2.0
"""What nothing assigns is known, and what it decides disappears."""

from guestmem.model import World, bounded, step, thread


class W(World):
    limit: int = bounded(3)
    quick: bool = False
    n: int = bounded(7)

    def setup(self) -> None:
        self.limit = 2

    @thread
    def only(self) -> None:
        self.act()

    @step
    def act(self) -> None:
        if self.quick:
            self.n = 7
        elif self.limit == 2:
            self.n = self.limit * 3
