# SPDX-License-Identifier: Apache-2.0
"""Punching against faults on the model: the library's own steps, interleaved at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from errno import EAGAIN

from guestmem.contract.syscalls.machine import Serial, SimulatedMachine
from guestmem.contract.syscalls.objects import Gmem
from guestmem.machine.frame import Content
from guestmem.machine.guest import Gfn
from guestmem.machine.machine import Fault
from guestmem.mm.filemap import Pgoff, user_access
from guestmem.model.schedule import Schedule, Slice

__all__ = ["AGAIN", "SEEDS", "RandomSchedule", "race"]

SEEDS = 30
TURNS = 12
AGAIN = (0, -EAGAIN)  # a race for a place in the page cache may be lost


class RandomSchedule(Schedule):
    """Threads in any order; what may happen sometimes does, except that allocations do not fail."""

    def __init__(self, world: SimulatedMachine, serial: Serial, seed: int) -> None:
        super().__init__(world)
        self.serial = serial
        self.random = random.Random(seed)

    def choose(self, n: int, label: str) -> int:
        if label == "frame":
            return self.serial.choose(n, label)
        return 0 if label == "the allocation fails?" else self.random.randrange(n)

    def finish(self, threads: int, check: Callable[[], None]) -> None:
        """Run the first threads until they have returned, with a look after each step."""
        while left := [number for number in range(threads) if not self.finished(number)]:
            self.run(Slice(self.random.choice(left)))
            check()


class Race:
    """The host, a guest and a puncher at work on some pages of a file; ``wrong`` says what nobody should see."""

    def __init__(self, world: SimulatedMachine, gmem: Gmem, places: list[Pgoff]) -> None:
        self.machine = world.machine
        self.folios = world.kernel.folios
        self.gmem = gmem
        self.file = gmem.file
        self.places = places
        self.wrong: list[str] = []

    def seen(self, who: str, content: Content) -> None:
        """Somebody looks at a page."""
        if content not in (Content.ZERO, Content.SHARED):
            self.wrong.append(f"{who} sees {content.name}")

    def check(self) -> None:
        """Nobody has what is free."""
        users = [entry.folio.frame for entry in self.file.mapping.user if entry.folio is not None]
        guests = [entry.frame for entry in self.gmem.guest.entries if entry.frame is not None]
        if any(self.folios[frame.pfn].free for frame in (*users, *guests)):
            self.wrong.append("a page is mapped and free")

    def host(self) -> None:
        """Store and load through the mapping."""
        for turn in range(TURNS):
            place = self.places[turn * 5 % len(self.places)]
            while user_access(self.machine, self.file.mapping, place, turn % 2 == 0) is Fault.TRANSLATION:
                if self.file.fault(self.machine.cpus[0], place) not in AGAIN:
                    self.wrong.append("the host cannot fault a page in")
                    return
            folio = self.file.mapping.user[place].folio
            if folio is not None:
                self.seen("the host", folio.frame.content)

    def guest(self) -> None:
        """Touch pages from the guest."""
        for turn in range(TURNS):
            gfn = Gfn(self.places[turn * 3 % len(self.places)])
            while not self.gmem.guest.touch(gfn):
                err = self.file.guest_fault(self.machine.cpus[0], self.gmem.guest, gfn)
                self.gmem.guest.exited -= 1
                if err not in AGAIN:
                    self.wrong.append("the guest cannot fault a page in")
                    return
            frame = self.gmem.guest.entries[gfn].frame
            if frame is not None:
                self.seen("the guest", frame.content)

    def punch(self) -> None:
        """Punch one page after another."""
        for turn in range(TURNS):
            place = self.places[turn * 7 % len(self.places)]
            self.file.punch_hole(place, place + 1)


def race(world: SimulatedMachine, serial: Serial, gmem: Gmem, places: list[Pgoff], guest: bool) -> list[str]:
    """Let the host, a guest if there is one, and a puncher work on pages; what was wrong.

    Raises :class:`~guestmem.model.Verdict` when a rule of the model is broken on the way.
    """
    contest = Race(world, gmem, places)
    world.jobs[:] = [contest.host, contest.punch, *([contest.guest] if guest else [])]
    try:
        for seed in range(SEEDS):
            with RandomSchedule(world, serial, seed) as schedule:
                schedule.finish(len(world.jobs), contest.check)
    finally:
        world.jobs.clear()
    return contest.wrong
