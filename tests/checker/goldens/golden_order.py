# SPDX-License-Identifier: Apache-2.0
"""Operands keep the values that they had when they were evaluated."""

from guestmem.model import World, bounded, step, thread


class W(World):
    n: int = bounded(3)
    m: int = bounded(7)

    @thread
    def only(self) -> None:
        self.act()

    def bump(self) -> int:
        self.n = 3
        return 1

    @step
    def act(self) -> None:
        self.m = self.n + self.bump()
