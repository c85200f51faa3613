# expected of `guestmem check tests/trust/no_return_on_one_path.py:W`: refused, exit 2: value() may end without a return
from guestmem.model import World, always, bounded, choose, require, step, thread


class W(World):
    """missing return in an interruptible function."""
    n: int = bounded(3)

    @thread
    def t(self) -> None:
        while True:
            self.n = self.value()

    def value(self) -> int:
        if self.pick() == 1:
            return 2

    @step
    def pick(self) -> int:
        return choose(2, "which")

    @always("n is 0 or 2")
    def ok(self) -> bool:
        return self.n == 0 or self.n == 2
