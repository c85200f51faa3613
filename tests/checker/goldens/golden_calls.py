# SPDX-License-Identifier: Apache-2.0
"""A function, a method with a default, several results, a property, super()."""

from guestmem.model import Record, World, bounded, part, step, thread


class Base(Record):
    n: int = bounded(3)

    def put(self, value: int = 1, by: int = 0) -> None:
        self.n = min(value + by, 3)

    @property
    def twice(self) -> int:
        return 2 * self.n


class Cell(Base):
    def put(self, value: int = 1, by: int = 0) -> None:
        super().put(value, by)


def both(cell: Cell, n: int) -> tuple[int, int]:
    return cell.n, n


class W(World):
    cell: Cell = part()
    n: int = bounded(7)

    @thread
    def only(self) -> None:
        self.act()

    @step
    def act(self) -> None:
        low, high = both(self.cell, 2)
        self.n = min(low + high + self.cell.twice, 7)
        self.cell.put(by=1)
