# expected of `guestmem check tests/trust/loop_bound_once.py:W`: violated: n is 3 in Python, as range(left) is evaluated once
from guestmem.model import World, always, bounded, choose, step, thread


class W(World):
    n: int = bounded(9)

    @thread
    def t(self) -> None:
        while True:
            self.act(choose(2, "which"))

    @step
    def act(self, which: int) -> None:
        left = 3
        count = 0
        for _ in range(left):
            left = left - 1          # e.g. "how many are left to undo"
            count = count + 1
        self.n = count               # 3 in Python

    @always("n is not 3")
    def ok(self) -> bool:
        return self.n != 3
