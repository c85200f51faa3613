# SPDX-License-Identifier: Apache-2.0
"""A world as C: the phases of its translation, a line each."""

from __future__ import annotations

import contextlib
import gc
import hashlib
from collections.abc import Iterator

from guestmem.checker.backend.c import Shared
from guestmem.checker.backend.layout import Layout
from guestmem.checker.backend.marks import Marks, nothing
from guestmem.checker.backend.numbers import Numbers, Site
from guestmem.checker.backend.unit import Unit
from guestmem.checker.frontend.program import read
from guestmem.checker.ir import Watches
from guestmem.checker.middle.bodies import lower
from guestmem.checker.middle.effects import effects
from guestmem.checker.middle.intervals import ranges
from guestmem.checker.middle.liveness import note_live
from guestmem.checker.middle.unfold import unfolded
from guestmem.checker.pools import Pools
from guestmem.model.world import World

__all__ = ["Site", "Translation"]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the cyclic garbage collector, which takes a third of a translation's time and finds nothing in it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class Translation:
    """A world as C, and what is needed to read its states.

    Attributes:
        pools: the records of the world, numbered.
        program: what its threads and properties say, as typed trees.
        bodies: the same as blocks.
        layout: where everything stands in a state.
        numbers: what the numbers in the engine's answers mean.
        marks: what is watched of the files for which ``watches`` is true.
        source: the C text, without the search.
        initial: the words of the world as built, threads not started.
    """

    def __init__(self, world: World, watches: Watches = nothing) -> None:
        self.world = world
        with uncollected():
            self._translate(watches)

    def _translate(self, watches: Watches) -> None:
        self.pools = Pools(self.world)
        self.program = read(self.pools)
        does = effects(self.program, self.pools)
        self.bodies = lower(self.program, does, watches)
        note_live(self.bodies)
        known = ranges(self.pools, self.bodies)
        self.layout = Layout(self.pools, does.changing, known.threads)
        self.numbers = Numbers(self.pools, self.bodies, does.changing, known)
        self.marks = Marks([*known.bodies.items(), *known.threads.items()])
        forks = unfolded(self.bodies)
        shared = Shared(self.pools, self.numbers, self.layout, self.marks, self.bodies, known)
        self.source = Unit(shared, self.bodies, known, forks).text()
        self.initial = self.layout.pack(self.pools)

    @property
    def digest(self) -> str:
        """What an exploration finds depends on this alone: the code, the state it begins in, what its answers are called."""
        numbers = self.numbers
        rules = [(site.rule, site.detail) for site in numbers.sites]
        what = [self.source, self.initial, rules, numbers.always, numbers.situations]
        return hashlib.sha256(repr(what).encode()).hexdigest()[:32]
