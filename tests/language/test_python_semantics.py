# SPDX-License-Identifier: Apache-2.0
"""The translation is Python: evaluated once and in Python's order, and wrong where Python is wrong.

Each world runs in lockstep, as plain Python and as translated code, and is explored.  ``result`` says what Python does;
a world that breaks a rule names it.
"""

import pytest

from guestmem.checker import Model
from guestmem.model import Index, Mutex, Record, World, array, bounded, may, part, require, step, thread
from guestmem.model.errors import IN_ARRAY, IN_RANGE, NO_NONE
from lockstep import Lockstep

FREE = "every lock is free"


class Slot(Index, below="slots"):
    pass


class Cell(Record):
    n: int = bounded(9)
    peer: "Cell | None" = None
    marks: list[bool] = array(3)
    lock: Mutex = part()

    @step
    def mark(self) -> None:
        self.marks[0] = True

    def touch(self) -> int:
        self.n += 1
        return self.n


class Tries(World):
    """One thread, which does once what ``act`` says; ``n`` counts the calls of ``bump``."""

    geometry = {"slots": 2}
    first: Cell = part()
    second: Cell = part()
    cells: list[Cell] = array(3)
    marks: list[bool] = array("slots")
    neighbour: list[bool] = array("slots")
    n: int = bounded(9)
    size: int = bounded(3, init=3)
    result: int = bounded(99)

    @thread
    def only(self) -> None:
        self.act()

    def act(self) -> None:
        panic_if_not_overridden()

    def bump(self) -> int:
        self.n += 1
        return self.n

    @step
    def bump_later(self) -> int:
        self.n += 1
        return self.n

    @property
    def bumped(self) -> int:
        return self.bump()

    @step
    def free(self) -> None:
        require(self.first.lock.holder == 0 and self.second.lock.holder == 0, FREE)


def panic_if_not_overridden() -> None:
    require(False, "each world says what it does")


def pair(a: int, b: int) -> int:
    return 10 * a + b


# ---- evaluated once


class BoundReassigned(Tries):
    @step
    def act(self) -> None:
        left = 3
        for _ in range(left):
            left = left - 1
            self.result += 1


class BoundReassignedBetweenSteps(Tries):
    def act(self) -> None:
        left = self.size
        for _ in range(left):
            left = 0
            self.bump_later()
        self.result = self.n


class RecordReassigned(Tries):
    @step
    def act(self) -> None:
        self.first.marks[1] = True
        cell = self.first
        for mark in cell.marks:
            cell = self.second
            if mark:
                self.result = 1


class LockReassigned(Tries):
    def act(self) -> None:
        cell = self.first
        with cell.lock:
            cell = self.second
        self.free()


class IndexOnce(Tries):
    @step
    def act(self) -> None:
        self.cells[self.bump()].n += 1
        self.cells[self.bump()].marks[self.bump() - 3] = True


class OwnerOnce(Tries):
    def pick(self) -> Cell:
        self.n += 1
        return self.first

    @step
    def act(self) -> None:
        self.pick().n += 2


class GeneratorOnce(Tries):
    @step
    def act(self) -> None:
        self.result = sum(i for i in range(self.bump() + 2))


# ---- in order


class AugmentedLoadsFirst(Tries):
    @step
    def act(self) -> None:
        self.n += self.bump()
        self.result = self.n


class AugmentedAcrossAStep(Tries):
    def act(self) -> None:
        self.n += self.bump_later()


class ValueBeforeTarget(Tries):
    @step
    def act(self) -> None:
        self.cells[self.bump()].n = self.bump()


class TargetMovedByValue(Tries):
    def change(self) -> int:
        self.first.peer = self.second
        return 1

    @step
    def act(self) -> None:
        self.first.peer = self.first
        self.first.peer.n += self.change()


class RangeInOrder(Tries):
    @step
    def act(self) -> None:
        for i in range(self.n, self.bump() + 1):
            self.result = 10 * self.result + i + 1


class PropertyInOrder(Tries):
    @step
    def act(self) -> None:
        self.result = 10 * (self.n + self.bumped) + self.n


class ArgumentsInOrder(Tries):
    @step
    def act(self) -> None:
        self.result = pair(self.n, self.bump()) + pair(b=self.n, a=self.bump())


class ArgumentsAcrossAStep(Tries):
    def act(self) -> None:
        self.result = pair(self.n, self.bump_later())


class ReceiverInOrder(Tries):
    @step
    def act(self) -> None:
        self.first.n = 3
        self.result = self.first.n * self.first.touch() + min(self.first.n, self.first.touch())


class ComparedInOrder(Tries):
    @step
    def act(self) -> None:
        self.result = 1 if self.n < self.bump() <= self.n else 2


class ChainStops(Tries):
    @step
    def act(self) -> None:
        if 3 < self.n < self.bump():
            self.result = 1


class AndStops(Tries):
    def act(self) -> None:
        if (self.n == 1 and self.bump_later() == 1) or self.bump_later() == 1:
            self.result = self.n


class ResultsInOrder(Tries):
    def two(self) -> tuple[int, int]:
        return self.n, self.bump()

    @step
    def act(self) -> None:
        before, after = self.two()
        self.result = pair(before, after)


class ElementInOrder(Tries):
    @step
    def act(self) -> None:
        cell = self.first
        self.cells[self.n].marks[self.bump()] = True
        self.result = pair(cell.n, cell.touch())


# ---- numbers


class BeyondThirtyTwoBits(Tries):
    @step
    def act(self) -> None:
        big = (self.n + 1) * 65536 * 65536
        if big != 0:
            self.result = big // 65536 // 65536


class FarShifts(Tries):
    @step
    def act(self) -> None:
        self.result = pair((1 << (self.n + 40)) >> 38, -1 >> (self.n + 70)) + 2


class Edges(Tries):
    @step
    def act(self) -> None:
        low = -2147483648 - self.n
        self.result = (low // -1) // 2147483648 + (-low >> 31) + (low & -low) // 2147483648


class Ghost(Record):
    """A record that no world here has."""

    n: int = bounded(3)
    lock: Mutex = part()

    def haunt(self) -> int:
        return self.n


class FollowsWhatIsNotThere(Tries):
    ghost: Ghost | None = None

    @step
    def act(self) -> None:
        self.result = 1
        if self.ghost is not None:
            self.ghost.n = self.ghost.n + self.ghost.haunt() + self.ghost.lock.holder


class OutOfReach(Tries):
    """What is never assigned keeps a loop and a branch from being entered; only in them something else is."""

    def act(self) -> None:
        cell = self.first
        while 1 and 3 <= self.size < cell.n:
            self.marks[0] = True
            cell = self.second
        if may("it happens") and self.cells[self.size - 1].peer is not None:
            self.neighbour[0] = True
        self.result = 1


RIGHT = [
    (FollowsWhatIsNotThere, 1),
    (BeyondThirtyTwoBits, 1),
    (FarShifts, 41),
    (Edges, 3),
    (BoundReassigned, 3),
    (BoundReassignedBetweenSteps, 3),
    (RecordReassigned, 1),
    (LockReassigned, 0),
    (IndexOnce, 0),
    (OwnerOnce, 0),
    (GeneratorOnce, 3),
    (AugmentedLoadsFirst, 1),
    (AugmentedAcrossAStep, 0),
    (ValueBeforeTarget, 0),
    (TargetMovedByValue, 0),
    (RangeInOrder, 12),
    (PropertyInOrder, 11),
    (ArgumentsInOrder, 1 + 21),
    (ArgumentsAcrossAStep, 1),
    (ReceiverInOrder, 3 * 4 + 4),
    (ComparedInOrder, 1),
    (ChainStops, 0),
    (AndStops, 1),
    (ResultsInOrder, 1),
    (ElementInOrder, 1),
    (OutOfReach, 1),
]


@pytest.mark.parametrize(("world", "result"), RIGHT, ids=[world.__name__ for world, _ in RIGHT])
def test_python_and_translation_agree(world: type[Tries], result: int) -> None:
    model = Model(world())
    lockstep = Lockstep(world, model)
    assert lockstep.run(seed=0, steps=20) > 0
    assert lockstep.world.result == result  # type: ignore[attr-defined]
    assert model.explore().verdict == "holds"


# ---- wrong where Python is


class EarlyReturn(Tries):
    """What a callee that returned early did not find out is not known after it."""

    def visit(self, cell: Cell | None) -> None:
        if cell is None:
            return
        cell.mark()

    def use(self, cell: Cell | None) -> None:
        cell.mark()  # type: ignore[union-attr]

    @step
    def find(self) -> Cell | None:
        return self.first if may("be there") else None

    def act(self) -> None:
        found = self.find()
        self.visit(found)
        self.use(found)


class NoneInALoop(Tries):
    @step
    def act(self) -> None:
        cell: Cell | None = self.first
        while True:
            cell.n = 1  # type: ignore[union-attr]
            cell = cell.peer  # type: ignore[union-attr]


class NoneAfterBreak(Tries):
    @step
    def act(self) -> None:
        cell = self.first.peer
        while True:
            if self.n == 0:
                break
            if cell is None:
                return
        cell.n = 1  # type: ignore[union-attr]


class SpanOutOfRange(Tries):
    def mark(self, slot: Slot) -> None:
        self.marks[slot] = True

    @step
    def act(self) -> None:
        for slot in Slot.span(0, 4):
            self.mark(slot)


class IndexOutOfRange(Tries):
    @step
    def act(self) -> None:
        slot = Slot(self.bump() + 1)
        self.result = slot


class PositionOutOfRange(Tries):
    @step
    def act(self) -> None:
        self.marks[self.bump() - 3] = True


class NegativeShift(Tries):
    @step
    def act(self) -> None:
        self.result = 1 << (self.n - 1)


WRONG = [
    (EarlyReturn, NO_NONE),
    (NoneInALoop, NO_NONE),
    (NoneAfterBreak, NO_NONE),
    (SpanOutOfRange, IN_RANGE),
    (IndexOutOfRange, IN_RANGE),
    (PositionOutOfRange, IN_ARRAY),
    (NegativeShift, IN_RANGE),
]


@pytest.mark.parametrize(("world", "rule"), WRONG, ids=[world.__name__ for world, _ in WRONG])
def test_python_and_translation_break_the_same_rule(world: type[Tries], rule: str) -> None:
    model = Model(world())
    for seed in range(8):
        Lockstep(world, model).run(seed, steps=20)
    assert [violation.rule for violation in model.explore().violations] == [rule]


# ---- larger than the checker computes with


class Doubles(Tries):
    @step
    def act(self) -> None:
        n = 1
        for _ in range(70):
            n = n * 2
        if n == 0:
            self.result = 1


class ShiftsTooFar(Tries):
    @step
    def act(self) -> None:
        self.n = 9
        n = 1 << (self.n * 16)
        if n == 0:
            self.result = 1


@pytest.mark.parametrize("world", [Doubles, ShiftsTooFar])
def test_a_number_that_is_too_large_for_the_checker_is_no_verdict(world: type[Tries]) -> None:
    outcome = Model(world()).explore()
    assert (outcome.verdict, outcome.violations) == ("incomplete", [])
    assert "test_python_semantics.py:" in outcome.why
    assert "fits the bits that the checker computes with" in outcome.why
