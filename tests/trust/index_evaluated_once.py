# expected of `guestmem check tests/trust/index_evaluated_once.py:W`: violated: `calls` is 1, as an augmented assignment evaluates its index once
from guestmem.model import World, array, bounded, require, step, thread


class W(World):
    a: list[int] = array(3, hi=9)
    calls: int = bounded(9)

    @thread
    def adder(self) -> None:
        self.add()

    def at(self) -> int:
        self.calls += 1
        return 0

    @step
    def add(self) -> None:
        self.a[self.at()] += 1
        require(self.calls == 2, "called twice")
