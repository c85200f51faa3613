# SPDX-License-Identifier: Apache-2.0
"""What the checker finds beside the rules of a model: loops, waits, division, None, ranges."""

import pytest

from guestmem.checker import Model
from guestmem.model import Mutex, Record, World, array, bounded, choose, part, reached, sometimes, step, thread, when
from guestmem.model.errors import ALWAYS_A_STEP, IN_ARRAY, IN_RANGE, NO_DEADLOCK, NO_NONE


class Cell(Record):
    peer: "Cell | None" = None
    n: int = bounded(3)


class One(World):
    """A world with one thread, which does what ``act`` says for ever."""

    cells: list[Cell] = array(2)
    count: int = bounded(3)
    lock: Mutex = part()

    @thread
    def only(self) -> None:
        while True:
            self.act()

    def act(self) -> None:
        raise NotImplementedError


class Spins(One):
    @step
    def act(self) -> None:
        while self.count == 0:
            self.cells[0].n = 0


class NeverSteps(One):
    def act(self) -> None:
        if self.count == 1:
            self.lock.acquire()


class ChoosesForEver(One):
    def act(self) -> None:
        if choose(2) == 1:
            self.lock.acquire()


class Divides(One):
    @step
    def act(self) -> None:
        self.cells[0].n = 3 // choose(2)


class FollowsNone(One):
    @step
    def act(self) -> None:
        self.cells[0].peer.n = 1  # type: ignore[union-attr]


class Overflows(One):
    @step
    def act(self) -> None:
        self.count += 1


class OutOfBounds(One):
    @step
    def act(self) -> None:
        self.cells[choose(3)].n = 1


class AlwaysOutOfBounds(One):
    @step
    def act(self) -> None:
        self.cells[len(self.cells)].n = 1


class WaitsForNobody(One):
    @step
    def act(self) -> None:
        when(self.count == 1)


class Misses(One):
    @step
    def act(self) -> None:
        self.count = choose(2)

    @sometimes("the count is three")
    def three(self) -> bool:
        return self.count == 3


@pytest.mark.parametrize(
    ("world", "rule", "steps"),
    [
        (Spins, ALWAYS_A_STEP, 0),
        (NeverSteps, ALWAYS_A_STEP, 0),
        (ChoosesForEver, ALWAYS_A_STEP, 0),
        (Divides, IN_RANGE, 1),
        (FollowsNone, NO_NONE, 1),
        (Overflows, IN_RANGE, 4),
        (OutOfBounds, IN_ARRAY, 1),
        (AlwaysOutOfBounds, IN_ARRAY, 1),
        (WaitsForNobody, NO_DEADLOCK, 0),
    ],
)
def test_found(world: type[World], rule: str, steps: int) -> None:
    outcome = Model(world()).explore()
    assert outcome.verdict == "violated"
    assert [(v.rule, v.steps) for v in outcome.violations] == [(rule, steps)]


def test_a_situation_that_no_state_shows_is_a_failure() -> None:
    outcome = Model(Misses()).explore()
    assert (outcome.verdict, outcome.violations, outcome.missed) == ("violated", [], ["the count is three"])


class Names(One):
    must_show = ["the count is one", "the count is three"]

    @step
    def act(self) -> None:
        self.count = choose(2)
        if self.count == 1:
            reached("the count is one")


class NamesMore(Names):
    must_show = ["nobody says this", "the count is one"]


def test_a_situation_that_a_world_names_is_missed_though_no_code_mentions_it() -> None:
    assert Model(Names()).explore().missed == ["the count is three"]
    assert Model(NamesMore()).explore().missed == ["the count is three", "nobody says this"]


class LooksOutside(One):
    @step
    def act(self) -> None:
        self.count = choose(3)

    @sometimes("a cell that is not there has been seen")
    def seen(self) -> bool:
        return self.cells[self.count].n == 3


def test_a_situation_that_cannot_be_evaluated_was_not_reached() -> None:
    outcome = Model(LooksOutside()).explore()
    assert outcome.missed == ["a cell that is not there has been seen"]


def test_a_memory_budget_that_runs_out_is_said() -> None:
    outcome = Model(Misses()).explore(memory=1)
    assert outcome.verdict == "incomplete"
    assert outcome.why
