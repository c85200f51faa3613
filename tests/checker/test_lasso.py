# SPDX-License-Identifier: Apache-2.0
"""What never ends is found, shown so that it can be read, and is what a plain search says."""

import random
import re

import pytest

from guestmem.checker import Model, lasso
from guestmem.checker.trace import counterexample
from guestmem.model import World, array, bounded, choose, require, step, thread, when
from guestmem.model.errors import NO_DEADLOCK
from lassos import AbAb, AbBa, Livelock, LostWakeUp, OneInsists, Spin, SpinEnds, WakeUp
from reference import Graph


def printed(world: type[World]) -> str:
    """The lasso of a world in one line, without its places in files."""
    (violation,) = Model(world()).explore().violations
    assert violation.rule == NO_DEADLOCK
    waiting = [] if violation.cycle else range(len(world().threads))
    rows = counterexample(world(), violation.rule, violation.slices + violation.cycle, waiting=waiting)
    text = " ".join(lasso.lines(rows, len(violation.cycle), violation.waits))
    return " ".join(re.sub(r"(?:at )?\S*lassos\.py:\d+(:?) ?", r"\1 ", text).replace(" : ", ": ").split())


@pytest.mark.parametrize(
    ("bad", "states", "good", "good_states"),
    [(LostWakeUp, 12, WakeUp, 12), (AbBa, 10, AbAb, 7), (Spin, 5, SpinEnds, 5), (Livelock, 31, OneInsists, 22)],
)
def test_what_never_ends_is_found(bad: type[World], states: int, good: type[World], good_states: int) -> None:
    outcome = Model(bad()).explore(stop_at_first=False)
    assert {v.rule for v in outcome.violations} == {NO_DEADLOCK}
    assert outcome.states == states
    outcome = Model(good()).explore(stop_at_first=False)
    assert (outcome.verdict, outcome.states) == ("holds", good_states)


SHOWN = {
    LostWakeUp: """
        1 sleeper LostWakeUp.sleeper: if not self.look():
        2 waker LostWakeUp.waker: self.finish()
        done: no -> yes
        3 waker LostWakeUp.waker: self.wake()
        4 sleeper LostWakeUp.sleeper: self.sleep()
        sleeping: no -> yes
        then nothing lets it go on:
        sleeper waits in LostWakeUp.wait: self.wait() [sleeping: yes]
    """,
    AbBa: """
        1 one AbBa.one: with self.a:
        a.holder: 0 -> 1
        2 two AbBa.two: with self.first():
        b.holder: 0 -> 2
        then nothing lets it go on:
        one waits in Mutex.acquire: with lock: [b.holder: 2], held by two
        two waits in Mutex.acquire: with lock: [a.holder: 1], held by one
    """,
    Spin: """
        1 setter Spin.setter: self.set(True)
        flag: no -> yes
        2 setter Spin.setter: self.set(self.last())
        flag: yes -> no
        then for ever:
        3 spinner Spin.spinner: while not self.see():
        spinner goes round: while not self.see(): [flag: no]
    """,
    Livelock: """
        1 guest0 Livelock.guest: self.raise_hand(me)
        up[0]: no -> yes
        2 guest1 Livelock.guest: self.raise_hand(me)
        up[1]: no -> yes
        then for ever:
        3 guest0 Livelock.guest: while self.sees_the_other(me):
        4 guest1 Livelock.guest: while self.sees_the_other(me):
        5 guest0 Livelock.guest: self.lower_hand(me)
        up[0]: yes -> no
        6 guest0 Livelock.guest: self.raise_hand(me)
        up[0]: no -> yes
        7 guest1 Livelock.guest: self.lower_hand(me)
        up[1]: yes -> no
        8 guest1 Livelock.guest: self.raise_hand(me)
        up[1]: no -> yes
        guest0 goes round: while self.sees_the_other(me): [me: 0, up: [yes, yes]]
    """,
}


@pytest.mark.parametrize("world", SHOWN)
def test_a_lasso_says_who_goes_round_and_who_waits_for_whom(world: type[World]) -> None:
    assert printed(world) == " ".join(SHOWN[world].split())


class Machine(World):
    """A random machine, some of whose actors end when a table says so."""

    geometry = {"actors": 3, "places": 3, "high": 2, "pad": 1, "spinners": 2}

    at: list[int] = array("actors", hi="places - 1")
    shared: int = bounded("high")
    pad: list[int] = array("pad", hi=1)
    needs: list[int] = array("actors * places * 2", hi="high + 1")
    gives: list[int] = array("actors * places * 2", hi="high")
    goes: list[int] = array("actors * places * 2", hi="places - 1")
    kind: list[int] = array("actors * places * 2", hi=2)

    @thread("spinners")
    def spinner(self, me: int) -> None:
        while not self.act(me):
            pass

    @thread
    def actor(self) -> None:
        while True:
            self.act(2)

    @step
    def act(self, me: int) -> bool:
        row = (me * 3 + self.at[me]) * 2 + choose(2, "way")
        when(self.needs[row] == 3 or self.needs[row] == self.shared)
        require(self.kind[row] != 1, "a step that may not be")
        self.at[me] = self.goes[row]
        self.shared = self.gives[row]
        for i in range(len(self.pad)):
            self.pad[i] = self.shared % 2
        return self.kind[row] == 2


def machine(seed: int, pad: int) -> Machine:
    """A machine by number."""
    generator = random.Random(seed)
    world = Machine(pad=pad)
    for row in range(len(world.needs)):
        world.needs[row] = generator.choice((0, 1, 2, 3))
        world.gives[row] = generator.randrange(3)
        world.goes[row] = generator.randrange(3)
        world.kind[row] = generator.choice((0, 0, 0, 0, 0, 1, 2))
    return world


@pytest.mark.parametrize("pad", [1, 100])
@pytest.mark.parametrize("seed", range(6))
def test_random_machines_go_round_where_a_plain_search_says(seed: int, pad: int) -> None:
    model = Model(machine(seed, pad))
    outcome, graph = model.explore(stop_at_first=False), Graph(model)
    found = {v.thread: v.steps for v in outcome.violations if v.cycle}
    expected = {t: graph.endless(t) for t in range(2)}
    assert found == {t: steps for t, steps in expected.items() if steps is not None}
    for violation in outcome.violations:
        if violation.cycle:
            rows = counterexample(machine(seed, pad), NO_DEADLOCK, violation.slices + violation.cycle)
            assert lasso.closed(rows, len(violation.cycle)) == rows
