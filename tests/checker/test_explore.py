# SPDX-License-Identifier: Apache-2.0
"""What one run says of a world that breaks rules: every rule, everybody who breaks it, the shortest way of each."""

import random

import pytest

from guestmem.checker import Model
from guestmem.checker.trace import replay, table
from guestmem.model import Mutex, World, always, array, bounded, choose, panic, part, require, sometimes, step, thread, when
from guestmem.model.errors import NO_PANIC
from reference import Graph

KNOWN, NEW, STEP = "the known rule", "the new rule", "the rule of a step"


class KnownHidesNew(World):
    """The new rule is broken only where the known one is."""

    count: int = bounded(3)
    mended: bool = False

    @thread
    def counter(self) -> None:
        while True:
            self.add()

    @thread
    def mender(self) -> None:
        self.mend()

    @step
    def add(self) -> None:
        if self.count < 3:
            self.count += 1

    @step
    def mend(self) -> None:
        when(self.count >= 2)
        self.mended = True

    @always(KNOWN)
    def known(self) -> bool:
        return self.count < 2

    @always(NEW)
    def new(self) -> bool:
        return not self.mended

    @sometimes("the count is three and nothing is mended")
    def three(self) -> bool:
        return self.count == 3 and not self.mended


def found(world: World) -> dict[tuple[str, str | None], int]:
    """For each rule and each actor by name, the length of the shortest way."""
    outcome = Model(world).explore(stop_at_first=False)
    names = [t.name for t in world.threads]
    return {(r, None if t is None else names[t]): v.steps for (r, t), v in outcome.by_rule_and_actor().items()}


def test_the_search_goes_on_past_a_broken_rule() -> None:
    outcome = Model(KnownHidesNew()).explore(stop_at_first=False)
    assert (outcome.states, outcome.missed) == (6, [])
    assert found(KnownHidesNew()) == {(KNOWN, "counter"): 2, (NEW, "mender"): 3}
    assert [v.rule for v in Model(KnownHidesNew()).explore().violations] == [KNOWN]


def test_a_trace_says_what_was_broken_on_its_way() -> None:
    outcome = Model(KnownHidesNew()).explore(stop_at_first=False)
    new = next(v for v in outcome.violations if v.rule == NEW)
    rows = list(replay(KnownHidesNew(), new.slices))
    assert [[verdict.rule for verdict in row.broken] for row in rows] == [[], [KNOWN], [NEW]]
    lines = list(table(rows))
    assert f"      already broken: {KNOWN}" in lines
    assert lines[-1] == f"      broken: {NEW}"


class BreaksOnce(World):
    """A rule that is broken, whole again and broken: only the first way there counts, and it counts as one."""

    flag: bool = False
    done: bool = False

    @thread
    def only(self) -> None:
        self.set(True)
        self.finish()
        self.set(False)
        self.set(True)

    @step
    def set(self, to: bool) -> None:
        self.flag = to

    @step
    def finish(self) -> None:
        self.done = True

    @always(KNOWN)
    def known(self) -> bool:
        return not self.flag

    @sometimes("the flag is down when it is done")
    def down(self) -> bool:
        return self.done and not self.flag

    @sometimes("never")
    def never(self) -> bool:
        return self.done and self.flag and not self.done


def test_a_state_that_breaks_a_rule_breaks_it_once() -> None:
    outcome = Model(BreaksOnce()).explore(stop_at_first=False)
    assert [(v.rule, v.steps) for v in outcome.violations] == [(KNOWN, 1)]
    assert outcome.states == 5


def test_what_was_not_shown_is_said_beside_what_is_broken() -> None:
    assert Model(BreaksOnce()).explore(stop_at_first=False).missed == ["never"]


class WrongFromTheBeginning(BreaksOnce):
    """The rule is broken before anybody has done anything."""

    def setup(self) -> None:
        self.flag = True


@pytest.mark.parametrize("stop", [False, True])
def test_the_state_as_built_can_break_a_rule(stop: bool) -> None:
    violation, *_ = Model(WrongFromTheBeginning()).explore(stop_at_first=stop).violations
    assert (violation.rule, violation.steps, violation.thread) == (KNOWN, 0, None)


class Two(World):
    """Two can do the same."""

    flag: bool = False

    @thread
    def first(self) -> None:
        while True:
            self.set()

    @thread
    def second(self) -> None:
        while True:
            self.set()

    @step
    def set(self) -> None:
        self.flag = True

    @always(KNOWN)
    def known(self) -> bool:
        return not self.flag


class OneDeed(Two):
    """The states after it are one state."""

    marks: list[bool] = array("marks")
    geometry = {"marks": 1}

    @thread("marks")
    def marker(self, me: int) -> None:
        self.mark(me)

    @step
    def mark(self, me: int) -> None:
        self.marks[me] = True


class Wide(Two):
    """The same, with a state of several words."""

    marks: list[bool] = array(100)

    @step
    def set(self) -> None:
        for i in range(100):
            self.marks[i] = True
        self.flag = True


@pytest.mark.parametrize(("world", "words"), [(OneDeed, 1), (Wide, 2)])
def test_everybody_who_breaks_a_rule_is_named(world: type[World], words: int) -> None:
    assert Model(world()).words >= words
    assert found(world()) == {(KNOWN, "first"): 1, (KNOWN, "second"): 1}


class Panics(World):
    """One panics with the lock in its hand: that the other waits for it is nothing new."""

    lock: Mutex = part()
    harmless: bool = False

    @thread
    def holder(self) -> None:
        with self.lock:
            self.fall()

    @thread
    def waiter(self) -> None:
        with self.lock:
            self.nothing()

    @step
    def fall(self) -> None:
        if not self.harmless:
            panic("it falls")

    @step
    def nothing(self) -> None:
        pass


class PanicsAside(World):
    """One waits for what nobody gives; that a third may panic any time does not hide it."""

    flag: bool = False

    @thread
    def waiter(self) -> None:
        self.wait()

    @thread
    def faller(self) -> None:
        while True:
            self.fall()

    @step
    def wait(self) -> None:
        when(self.flag)

    @step
    def fall(self) -> None:
        if choose(2) == 1:
            panic("it falls")


def test_who_waits_for_one_that_broke_a_rule_breaks_none() -> None:
    assert found(Panics()) == {(NO_PANIC, "holder"): 2}
    assert found(Panics(harmless=True)) == {}


def test_a_wait_is_found_beside_a_broken_rule() -> None:
    assert found(PanicsAside()) == {(NO_PANIC, "faller"): 1, ("no deadlock; a wait ends", "waiter"): 0}


class Chance(World):
    """A random machine: what each actor does at each place of its own is a table."""

    geometry = {"actors": 3, "places": 4, "high": 3, "pad": 1}

    at: list[int] = array("actors", hi="places - 1")
    shared: int = bounded("high")
    pad: list[int] = array("pad", hi=1)
    needs: list[int] = array("actors * places * 2", hi="high + 1")
    gives: list[int] = array("actors * places * 2", hi="high")
    goes: list[int] = array("actors * places * 2", hi="places - 1")
    fails: list[int] = array("actors * places * 2", hi=1)
    forbidden: list[int] = array(2, hi="high")

    @thread("actors")
    def actor(self, me: int) -> None:
        while True:
            self.act(me)

    @step
    def act(self, me: int) -> None:
        row = (me * 4 + self.at[me]) * 2 + choose(2, "way")
        when(self.needs[row] == 4 or self.needs[row] == self.shared)
        require(self.fails[row] == 0, STEP)
        self.at[me] = self.goes[row]
        self.shared = self.gives[row]
        for i in range(len(self.pad)):
            self.pad[i] = self.shared % 2

    @always(KNOWN)
    def known(self) -> bool:
        return self.shared != self.forbidden[0] or self.at[0] != 1

    @always(NEW)
    def new(self) -> bool:
        return self.shared != self.forbidden[1] or self.at[1] != 2 or self.at[2] == 0


def chance(seed: int, pad: int) -> Chance:
    """A machine by number."""
    generator = random.Random(seed)
    world = Chance(pad=pad)
    for row in range(len(world.needs)):
        world.needs[row] = generator.choice((0, 1, 2, 3, 4, 4))
        world.gives[row] = generator.randrange(4)
        world.goes[row] = generator.randrange(4)
        world.fails[row] = int(generator.random() < 0.1)
    for i in range(2):
        world.forbidden[i] = generator.randrange(4)
    return world


@pytest.mark.parametrize("pad", [1, 100])
@pytest.mark.parametrize("seed", range(4))
def test_random_machines_break_what_a_plain_search_says(seed: int, pad: int) -> None:
    model = Model(chance(seed, pad))
    assert (model.words == 1) == (pad == 1)
    outcome, graph = model.explore(stop_at_first=False), Graph(model)
    assert outcome.states == len(graph.depth)
    assert outcome.transitions == sum(map(len, graph.edges.values()))
    steps = {key: v.steps for key, v in outcome.by_rule_and_actor().items() if key[0] in (KNOWN, NEW, STEP)}
    assert steps == graph.broken()
    for (rule, actor), violation in outcome.by_rule_and_actor().items():
        if rule in (KNOWN, NEW, STEP):
            *_, last = replay(chance(seed, pad), violation.slices)
            assert rule in [verdict.rule for verdict in last.broken]
            assert last.thread == f"actor{actor}"


class PanicLast(World):
    """A function that ends in a panic where it has no result."""

    level: int = bounded(2)
    noted: bool = False

    @thread
    def other(self) -> None:
        while True:
            self.change()

    @step
    def change(self) -> None:
        self.level = 1 - self.level if self.level < 2 else 0

    @thread
    def only(self) -> None:
        while True:
            self.note(self.high())

    def high(self) -> bool:
        level = self.look()
        if level == 0:
            return False
        if level == 1:
            return True
        panic("no such level")

    @step
    def look(self) -> int:
        return self.level

    @step
    def note(self, high: bool) -> None:
        self.noted = self.noted or high


def test_what_only_a_panic_leaves_unassigned_is_no_part_of_a_state() -> None:
    """Before look(): level and noted; before note(): what it is to note as well.  Not what was noted last."""
    outcome = Model(PanicLast()).explore()
    assert (outcome.verdict, outcome.states) == ("holds", 2 * 2 + 2 * 2 * 2)
