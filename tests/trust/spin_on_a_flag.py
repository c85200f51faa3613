# expected of `guestmem check tests/trust/spin_on_a_flag.py:W`: violated: a wait that never ends, with a lasso
from guestmem.model import Index, Record, World, always, array, bounded, choose, may, part, reached, require, sometimes, step, thread, when


class W(World):
    """spin for ever on a flag nobody sets, with a step in the loop: a wait that does not end"""
    flag: bool = False

    @thread
    def spinner(self) -> None:
        while not self.see():
            pass

    @step
    def see(self) -> bool:
        return self.flag

    @thread
    def other(self) -> None:
        while True:
            self.nothing()

    @step
    def nothing(self) -> None:
        pass
