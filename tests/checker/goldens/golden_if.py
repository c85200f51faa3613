# SPDX-License-Identifier: Apache-2.0
"""Two ways; what is known not to be None on one of them."""

from guestmem.model import Record, World, array, bounded, step, thread


class Cell(Record):
    n: int = bounded(1)


class W(World):
    cells: list[Cell] = array(2)
    last: Cell | None = None

    @thread
    def only(self) -> None:
        self.act()

    @step
    def act(self) -> None:
        if self.cells[0].n == 0 and self.cells[1].n:
            self.last = self.cells[1]
        elif self.last is not None:
            self.last.n = 0
        cell = self.last
        if cell is not None:
            cell.n = 1
