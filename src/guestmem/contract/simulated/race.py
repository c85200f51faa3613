# SPDX-License-Identifier: Apache-2.0
"""Punching against faults on the model: the library's own steps, interleaved at random."""

from __future__ import annotations

import random
from collections.abc import Callable

from guestmem.contract.simulated.machine import Serial, SimulatedMachine
from guestmem.contract.simulated.objects import Gmem
from guestmem.machine.frame import Content
from guestmem.machine.guest import Gfn
from guestmem.machine.machine import Fault
from guestmem.mm.filemap import Pgoff, user_access
from guestmem.model.schedule import Schedule, Slice

__all__ = ["race"]

TURNS = 40


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

    def finish(self, threads: int) -> None:
        """Run the first threads until they have returned."""
        left = set(range(threads))
        while left:
            number = self.random.choice(sorted(left))
            self.run(Slice(number))
            left = {number for number in left if not self.finished(number)}


def race(world: SimulatedMachine, serial: Serial, gmem: Gmem, places: list[Pgoff], guest: bool) -> int:
    """Let the host, a guest if there is one, and a puncher work on pages; how many contents nobody put there.

    Raises :class:`~guestmem.model.Verdict` when a rule of the model is broken on the way.
    """
    file, cpu, machine = gmem.file, world.machine.cpus[0], world.machine
    wrong: list[Content] = []

    def host() -> None:
        for turn in range(TURNS):
            place = places[turn * 5 % len(places)]
            while user_access(machine, file.mapping, place, turn % 2 == 0) is Fault.TRANSLATION:
                file.fault(cpu, place)
            folio = file.mapping.user[place].folio
            if folio is not None and folio.frame.content not in (Content.ZERO, Content.SHARED):
                wrong.append(folio.frame.content)

    def run() -> None:
        for turn in range(TURNS):
            gfn = Gfn(places[turn * 3 % len(places)])
            while not gmem.guest.touch(gfn):
                file.guest_fault(cpu, gmem.guest, gfn)
                gmem.guest.exited = False

    def punch() -> None:
        for turn in range(TURNS):
            place = places[turn * 7 % len(places)]
            file.punch_hole(place, place + 1)

    jobs: list[Callable[[], None]] = [host, punch, *([run] if guest else [])]
    object.__setattr__(world, "_jobs", jobs)
    try:
        with RandomSchedule(world, serial, seed=len(places)) as schedule:
            schedule.finish(len(jobs))
    finally:
        object.__setattr__(world, "_jobs", ())
    return len(wrong)
