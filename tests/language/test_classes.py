# SPDX-License-Identifier: Apache-2.0
"""Classes: each record's own order of resolution, marks that are not lost, names that are not free; how threads begin."""

import pytest

from guestmem.checker import Model
from guestmem.checker.translate import Translation
from guestmem.model import Record, Refused, World, always, array, bounded, choose, part, sometimes, step, thread
from guestmem.model.errors import IN_RANGE, Verdict
from lockstep import Lockstep


class Base(Record):
    seen: int = bounded(9)

    def value(self) -> int:
        return 1

    @property
    def doubled(self) -> int:
        return 2 * self.value()


class Mixin(Base):
    def value(self) -> int:
        return super().value()


class A(Base):
    def value(self) -> int:
        return 2


class B(Base):
    marks: list[bool] = array(2)

    def value(self) -> int:
        return 3


class MixedA(Mixin, A):
    pass


class MixedB(Mixin, B):
    pass


class Other(Record):
    count: int = bounded(9)

    def bump(self) -> int:
        self.count += 1
        return self.count


class Both(A, Other):
    """Of two families, so that either can stand for it."""

    def value(self) -> int:
        return super().value() + self.bump()


class Holder(Record):
    what: Base
    other: Other


class Classes(World):
    """Every kind of record is asked, whichever the holder has."""

    a: A = part()
    b: B = part()
    both: Both = part()
    mixed_a: MixedA = part()
    mixed_b: MixedB = part()
    plain: Other = part()
    holders: list[Holder] = array(6)
    n: int = bounded(20)

    def setup(self) -> None:
        kinds = [self.a, self.b, self.both, self.mixed_a, self.mixed_b, self.both]
        for holder, kind in zip(self.holders, kinds, strict=True):
            holder.what = kind
            holder.other = self.plain
        self.holders[0].other = self.both

    @thread
    def asks(self) -> None:
        while True:
            self.ask(choose(6))
            self.other(choose(6))

    @step
    def ask(self, which: int) -> None:
        holder = self.holders[which]
        self.n = holder.what.doubled
        holder.what.seen = holder.what.value() % 10
        if holder.other is self.both:
            self.both.seen = 0

    @step
    def other(self, which: int) -> None:
        self.n = self.holders[which].other.count + 1
        self.mixed_b.marks[which % 2] = True


def test_each_record_has_its_own_order_of_resolution() -> None:
    model = Model(Classes())
    assert max(Lockstep(Classes, model).run(seed, 100) for seed in range(10)) > 30


class AsksTheHolders(Classes):
    """What a call by class gives is known whichever class it was, and needs no bits before the call."""

    @thread
    def asks(self) -> None:
        n = self.holders[0].what.value()
        self.other(n)

    @step
    def other(self, which: int) -> None:
        self.holders[0].what = self.holders[which].what
        self.n = which


def test_a_call_by_class_before_the_first_step_is_in_lockstep() -> None:
    model = Model(AsksTheHolders())
    assert max(Lockstep(AsksTheHolders, model).run(seed, 100) for seed in range(10)) > 1


class Marked(World):
    n: int = bounded(1)

    @thread
    def runs(self) -> None:
        self.one()

    @step
    def one(self) -> None:
        self.n = 1

    @always("n is small")
    def small(self) -> bool:
        return self.n < 2

    @sometimes("n is one")
    def visible(self) -> bool:
        return self.n == 1


@pytest.mark.parametrize(
    ("name", "decorator"),
    [("runs", "@thread"), ("one", "@step"), ("small", "@always(rule)"), ("visible", "@sometimes(situation)")],
)
def test_a_lost_mark_is_refused(name: str, decorator: str) -> None:
    def unmarked(self: World) -> bool:
        return True

    with pytest.raises(Refused, match=r"test_classes\.py:\d+: .* overrides a method with @") as caught:
        type("W", (Marked,), {name: unmarked})
    assert decorator in str(caught.value)


def test_a_mark_lost_to_a_mixin_is_refused() -> None:
    class Quiet(World):
        def runs(self) -> None:
            pass

    with pytest.raises(Refused, match="overrides a method with @thread"):
        type("W", (Quiet, Marked), {})


def test_what_is_marked_again_replaces() -> None:
    class Again(Marked):
        @thread
        def runs(self) -> None:
            while True:
                self.one()

    class Without(Marked):
        visible = None  # type: ignore[assignment]  # not asked for here

    assert Model(Again()).explore().verdict == "holds"
    assert Model(Without()).translation.numbers.situations == []


@pytest.mark.parametrize("name", ["marked", "setup", "threads", "geometry", "fields"])
def test_a_field_with_a_name_of_the_worlds_own_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=f"W.{name}: a field with a name of (World|Record)'s own: give it another name"):
        type("W", (World,), {"__annotations__": {name: bool}, name: False, "__module__": __name__})


@pytest.mark.parametrize("name", ["marked", "threads", "geometry", "fields"])
def test_a_method_with_a_name_of_the_worlds_own_is_refused(name: str) -> None:
    with pytest.raises(Refused, match=f"W.{name}: a method with a name of (World|Record)'s own: give it another name"):
        type("W", (World,), {name: lambda self: None, "__module__": __name__})


def test_a_field_named_as_a_method_of_a_base_is_refused() -> None:
    with pytest.raises(Refused, match=r"C\.value: a field with a name of A's own"):
        type("C", (A,), {"__annotations__": {"value": bool}, "value": False, "__module__": __name__})


class Many(World):
    geometry = {"many": 65}
    n: int = bounded(1)

    @thread("many")
    def runs(self, i: int) -> None:
        self.one()

    @step
    def one(self) -> None:
        self.n = 1


def test_sixty_four_threads_are_the_most() -> None:
    with pytest.raises(Refused, match="a world of 65 threads: use at most 64"):
        Translation(Many())
    assert Model(Many(many=64)).explore(max_states=1000).verdict == "incomplete"


class Bounds(World):
    geometry = {"pages": 4}
    free: int = bounded("pages - 1")
    used: int = bounded(3)
    size: int = bounded("pages", init="pages - 2")


def test_a_field_may_begin_with_a_size() -> None:
    assert Bounds(pages=7).size == 5


def test_a_field_that_begins_outside_its_bounds_is_refused() -> None:
    with pytest.raises(Refused, match="begin with a value of the field's type"):
        Bounds(pages=1)


@pytest.mark.parametrize(("field", "bounds"), [("free", "0..pages - 1: 0..6"), ("used", "0..3")])
def test_a_value_outside_its_bounds_is_told_with_their_values(field: str, bounds: str) -> None:
    with pytest.raises(Verdict) as broken:
        setattr(Bounds(pages=7), field, 9)
    assert broken.value.rule == IN_RANGE
    assert broken.value.detail.endswith(f"{field} = 9, which is not {bounds}")


class ComparesNumbers(Marked):
    m: int = bounded(1)

    @step
    def one(self) -> None:
        if self.n is self.m:
            self.n = 0


def test_identity_of_numbers_is_refused() -> None:
    with pytest.raises(Refused, match=r"`is` between numbers in self.n is self.m: compare them with == or !="):
        Translation(ComparesNumbers())


class Early(World):
    """What a thread does before its first step may come after steps of another."""

    flag: bool = False
    late: bool = False

    @thread
    def looks(self) -> None:
        if self.flag:
            self.late = True
        self.nothing()

    @thread
    def sets(self) -> None:
        self.set_flag()

    @step
    def set_flag(self) -> None:
        self.flag = True

    @step
    def nothing(self) -> None:
        pass

    @always("nobody is late")
    def in_time(self) -> bool:
        return not self.late


class Calm(Early):
    @thread
    def looks(self) -> None:
        again = 2
        for _ in range(again):
            self.nothing()


class OnlyAsks(Early):
    """A condition is a look, also where nothing else of the beginning is."""

    @thread
    def looks(self) -> None:
        if self.flag:
            self.be_late()

    @step
    def be_late(self) -> None:
        self.late = True


def divided(by: int) -> int:
    return 6 // by


class Divides(Early):
    """A beginning that breaks a rule does so in a step of its own, also where it does so in what it calls."""

    @thread
    def looks(self) -> None:
        n = divided(0)
        for _ in range(n):
            self.nothing()


@pytest.mark.parametrize(
    ("world", "rule", "steps"), [(Early, "nobody is late", 2), (OnlyAsks, "nobody is late", 3), (Divides, IN_RANGE, 1)]
)
def test_threads_begin_in_any_order(world: type[Early], rule: str, steps: int) -> None:
    outcome = Model(world()).explore()
    assert [(v.rule, v.steps) for v in outcome.violations] == [(rule, steps)]
    model = Model(world())
    for seed in range(10):
        Lockstep(world, model).run(seed, 10)


def test_a_beginning_that_sees_nothing_is_no_step() -> None:
    outcome = Model(Calm()).explore()
    assert (outcome.verdict, outcome.states) == ("holds", 6)


class ChoosesAmong(World):
    n: int = bounded(3)

    @thread
    def only(self) -> None:
        self.nothing()
        self.n = choose(self.n)

    @step
    def nothing(self) -> None:
        self.n = choose(2)


class ChoosesAmongNone(ChoosesAmong):
    @step
    def nothing(self) -> None:
        self.n = choose(0)


def test_a_choice_among_none_breaks_a_rule() -> None:
    (violation,) = Model(ChoosesAmong()).explore().violations
    assert (violation.rule, violation.detail) == (IN_RANGE, "choose(self.n): nothing to choose from")
    model = Model(ChoosesAmong())
    for seed in range(10):
        Lockstep(ChoosesAmong, model).run(seed, 10)


def test_a_choice_that_is_always_among_none_is_refused() -> None:
    with pytest.raises(Refused, match=r"choose\(0\) has nothing to choose from: give it 1 or more"):
        Translation(ChoosesAmongNone())
