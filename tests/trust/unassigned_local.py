# expected of `guestmem check tests/trust/unassigned_local.py:W`: refused, exit 2: `at` has no value on one path (in Python: UnboundLocalError)
from guestmem.model import World, always, bounded, choose, require, step, thread


class W(World):
    n: int = bounded(3)

    @thread
    def t(self) -> None:
        while True:
            self.act(choose(2, "which"))

    @step
    def act(self, which: int) -> None:
        if which == 1:
            at = 2
        self.n = at          # UnboundLocalError in Python when which == 0

    @always("n is 0 or 2")
    def ok(self) -> bool:
        return self.n == 0 or self.n == 2
