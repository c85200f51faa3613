# SPDX-License-Identifier: Apache-2.0
"""A range, an array, an array with its numbers, a span of an index."""

from guestmem.model import Index, World, array, step, thread


class Slot(Index, below=3):
    pass


class W(World):
    marks: list[bool] = array(3)

    @thread
    def only(self) -> None:
        self.act()

    @step
    def act(self) -> None:
        for i in range(2):
            self.marks[i] = True
        for mark in self.marks:
            if not mark:
                break
        for i, mark in enumerate(self.marks):
            self.marks[2 - i] = mark
        for slot in Slot.span(1, 3):
            self.marks[slot] = False
