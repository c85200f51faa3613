# expected of `guestmem check tests/trust/super_in_shared_mixin.py:W`: violated: n becomes 2 and 3, by each object's own method resolution order
from guestmem.model import Record, World, always, array, bounded, choose, part, step, thread


class Base(Record):
    def value(self) -> int:
        return 1


class Mixin(Base):
    def value(self) -> int:
        return super().value()


class A(Base):
    def value(self) -> int:
        return 2


class B(Base):
    def value(self) -> int:
        return 3


class MA(Mixin, A):
    pass


class MB(Mixin, B):
    pass


class Holder(Record):
    what: Base


class W(World):
    a: MA = part()
    b: MB = part()
    holders: list[Holder] = array(2)
    n: int = bounded(3)

    def setup(self) -> None:
        self.holders[0].what = self.a
        self.holders[1].what = self.b

    @thread
    def t(self) -> None:
        while True:
            self.act(choose(2, "which"))

    @step
    def act(self, which: int) -> None:
        self.n = self.holders[which].what.value()

    @always("n is never 2 or 3")
    def ok(self) -> bool:
        return self.n < 2
