# expected of `guestmem check tests/trust/span_out_of_range.py:W`: violated: an index is inside its array
from guestmem.model import Index, World, array, step, thread


class Slot(Index, below="slots"):
    pass


class W(World):
    geometry = {"slots": 2}
    marks: list[bool] = array("slots")
    neighbour: list[bool] = array("slots")

    @thread
    def marker(self) -> None:
        self.mark_all()

    @step
    def mark_all(self) -> None:
        for slot in Slot.span(0, 4):
            self.mark(slot)

    def mark(self, slot: Slot) -> None:
        self.marks[slot] = True
