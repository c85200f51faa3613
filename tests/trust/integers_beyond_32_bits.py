# expected of `guestmem check tests/trust/integers_beyond_32_bits.py:W`: violated as in Python, or refused with the line; never `holds`
from guestmem.model import World, always, bounded, choose, require, step, thread


class W(World):
    """wrong in Python, 'holds' in the checker: a local wraps at 32 bits"""
    n: int = bounded(1)

    @thread
    def t(self) -> None:
        while True:
            self.act(choose(2, "which"))

    @step
    def act(self, which: int) -> None:
        size = 1 + which
        big = size * 65536 * 65536
        if big != 0:
            self.n = 1

    @always("n stays 0")
    def ok(self) -> bool:
        return self.n == 0
