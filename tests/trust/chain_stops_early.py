# expected of `guestmem check tests/trust/chain_stops_early.py:W`: violated: `calls` is 0, as 3 < 0 is false and nothing after it is evaluated
from guestmem.model import World, bounded, require, step, thread


class W(World):
    x: int = bounded(9)
    calls: int = bounded(9)

    @thread
    def comparer(self) -> None:
        self.compare()

    def five(self) -> int:
        self.calls += 1
        return 5

    @step
    def compare(self) -> None:
        if 3 < self.x < self.five():
            self.x = 1
        require(self.calls == 1, "the last part was evaluated")
