# SPDX-License-Identifier: Apache-2.0
"""Objects that die, readers for whom their end waits, and locks under which nobody sleeps."""

from typing import Any

import pytest

from guestmem.checker import Model
from guestmem.mm.lifetime import Object, Srcu
from guestmem.model import Mutex, Preempt, Refused, RwSem, SpinLock, World, choose, part, reached, step, thread
from guestmem.model.errors import NO_SLEEP
from guestmem.rules import USED_ALIVE


class Uses(World):
    """One has a reference, takes another, and drops both."""

    geometry = {"references": 2}

    thing: Object = part()

    def setup(self) -> None:
        self.thing.make()

    def extra_put(self) -> bool:
        return False

    @thread
    def user(self) -> None:
        self.thing.get()
        if self.thing.put():
            self.thing.free()
        if self.extra_put():
            self.thing.put()
        if self.thing.put():
            self.thing.free()


class PutTwice(Uses):
    def extra_put(self) -> bool:
        return True


class FreedTwice(Uses):
    @thread
    def user(self) -> None:
        self.thing.free()
        self.thing.free()


class GotLate(Uses):
    @thread
    def user(self) -> None:
        self.thing.put()
        self.thing.get()


def broken(world: World) -> set[str]:
    return {violation.rule for violation in Model(world).explore(stop_at_first=False).violations}


def test_a_reference_more_than_there_is_is_one_to_what_was_freed() -> None:
    assert broken(Uses()) == set()
    assert broken(PutTwice()) == {USED_ALIVE}
    assert broken(FreedTwice()) == {USED_ALIVE}
    assert broken(GotLate()) == {USED_ALIVE}


class Readers(World):
    """One waits for readers, of whom there are two at any time."""

    srcu: Srcu = part()
    waited: bool = False

    @thread("2")
    def reader(self, number: int) -> None:
        while True:
            with self.srcu.reading:
                self.look()

    @step
    def look(self) -> None:
        if self.waited:
            reached("a reader who came later was not waited for")

    @thread
    def writer(self) -> None:
        self.srcu.synchronize()
        self.note()

    @step
    def note(self) -> None:
        self.waited = True
        if any(self.srcu.readers):
            reached("a grace period ends among readers")


def test_a_grace_period_does_not_wait_for_those_who_come_later() -> None:
    outcome = Model(Readers()).explore()
    assert (outcome.verdict, outcome.missed) == ("holds", [])


class Sleeps(World):
    """One takes a lock under a spin lock, if he gets it at all."""

    preempt: Preempt = part()
    spin: SpinLock = part()
    other: SpinLock = part()
    mutex: Mutex = part()
    sem: RwSem = part()
    srcu: Srcu = part()

    def inner(self) -> None:
        with self.other:
            self.work()

    @step
    def work(self) -> None:
        reached("the work is done")

    def sleep(self) -> None:
        with self.sem.exclusive:
            self.srcu.synchronize()

    @thread("2")
    def user(self, number: int) -> None:
        if choose(2, "try, wait") == 0:
            if self.spin.try_acquire():
                self.inner()
                self.spin.release()
        else:
            with self.spin:
                self.inner()
        with self.mutex:
            self.sleep()


class TakesMutex(Sleeps):
    def inner(self) -> None:
        with self.mutex:
            self.work()


class Reads(Sleeps):
    def inner(self) -> None:
        with self.sem.shared:
            self.work()


class WaitsForReaders(Sleeps):
    def inner(self) -> None:
        self.srcu.synchronize()
        self.work()


class SleepsInBetween(Sleeps):
    """The inner spin lock is dropped, and the outer one still held."""

    def inner(self) -> None:
        with self.other:
            self.work()
        with self.mutex:
            self.work()


@pytest.mark.parametrize("world", [TakesMutex, Reads, WaitsForReaders, SleepsInBetween])
def test_who_holds_a_spin_lock_does_not_sleep(world: Any) -> None:
    assert broken(Sleeps()) == set()
    assert broken(world()) == {NO_SLEEP}


def test_spin_locks_are_counted() -> None:
    class Uncounted(World):
        spin: SpinLock = part()

        @thread
        def user(self) -> None:
            with self.spin:
                pass

    with pytest.raises(Refused, match="spin: a spin lock in a world that counts none: add preempt: Preempt = part"):
        Uncounted()
