# SPDX-License-Identifier: Apache-2.0
"""A method of several classes, on a record known only when running."""

from guestmem.model import Record, World, bounded, part, step, thread


class Driver(Record):
    def number(self) -> int:
        return 0


class One(Driver):
    def number(self) -> int:
        return 1


class Two(Driver):
    def number(self) -> int:
        return 2


class W(World):
    one: One = part()
    two: Two = part()
    now: Driver
    n: int = bounded(2)

    def setup(self) -> None:
        self.now = self.one

    @thread
    def only(self) -> None:
        self.act()

    @step
    def act(self) -> None:
        self.n = self.now.number()
        self.now = self.two
