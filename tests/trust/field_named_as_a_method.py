# expected of `guestmem check tests/trust/field_named_as_a_method.py:W`: refused, exit 2: `marked` is a name of World's own (today: "'_Declared' object is not callable")
from guestmem.model import World, step, thread


class W(World):
    marked: bool = False

    @thread
    def marker(self) -> None:
        self.mark()

    @step
    def mark(self) -> None:
        self.marked = True
