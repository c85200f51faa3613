# SPDX-License-Identifier: Apache-2.0
"""Exhaustive exploration of a world: every interleaving, every choice, exact states, shortest counterexamples."""

from __future__ import annotations

import ctypes
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guestmem.checker import compile as compiling
from guestmem.checker.emit import Site, Translation
from guestmem.checker.source import Place
from guestmem.model.errors import ALWAYS_A_STEP, NO_DEADLOCK, TOO_LARGE
from guestmem.model.schedule import Slice
from guestmem.model.world import World

#: States expanded between two looks at the clock.
CHUNK = 1 << 14
MOST_CHOICES = 64
NOBODY = 2**32 - 1
DONE, WAITS, BROKEN, FINISHED = range(4)
RUNNING, COMPLETE, STOPPED, OUT_OF_STATES, OUT_OF_MEMORY, NO_MEMORY, INTERRUPTED = range(7)
IN_STEP, IN_STATE, DEADLOCK = range(3)


class _Violation(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("site", ctypes.c_int),
        ("state", ctypes.c_uint32),
        ("depth", ctypes.c_uint32),
        ("stepped", ctypes.c_int),
        ("choices", ctypes.c_int),
        ("chosen", ctypes.c_int * MOST_CHOICES),
    )


class _Summary(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("count", "head", "transitions", "reached", "bytes", "table_bytes")),
        ("depth", ctypes.c_uint32),
        ("status", ctypes.c_int),
        ("violations", ctypes.c_int),
    )


@dataclass(frozen=True)
class Violation:
    """A broken rule and the shortest way to it.

    ``thread`` is the index of the thread that made the last step (None if no step did), ``place`` where in the source
    (None for a property of states), ``slices`` the trace.
    """

    rule: str
    detail: str
    thread: int | None
    place: Place | None
    slices: tuple[Slice, ...]

    @property
    def steps(self) -> int:
        """Length of the trace."""
        return len(self.slices)


@dataclass
class Outcome:
    """What an exploration found.

    ``verdict`` is "holds", "violated" or "incomplete"; ``why`` says which budget ran out; ``missed`` names situations
    that no state showed, when everything was explored and nothing broke.
    """

    verdict: str
    states: int
    transitions: int
    depth: int
    seconds: float
    bytes: int
    violations: list[Violation] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    why: str = ""

    def found(self, violations: list[Violation]) -> None:
        """Note what broke.  A number that the checker cannot compute with breaks no rule: what follows it is not known."""
        self.violations = [v for v in violations if v.rule != TOO_LARGE]
        self.verdict = "violated" if self.violations else "incomplete"
        for violation in violations:
            if violation.rule == TOO_LARGE:
                self.why = f"{violation.place}: not so of {violation.detail!r}: {TOO_LARGE}"


@dataclass(frozen=True)
class Edge:
    """One thing that can happen in a state."""

    slice: Slice
    state: tuple[int, ...]
    broken: Site | None


class Model:
    """A world translated and compiled."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.translation = Translation(world)
        self.words = self.translation.layout.words
        self.library = lib = compiling.load(self.translation.source)
        lib.search_new.restype = ctypes.c_void_p
        lib.search_new.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int]
        lib.search_run.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        lib.search_waits.argtypes = lib.search_free.argtypes = [ctypes.c_void_p]
        lib.search_summary.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Summary)]
        lib.search_violation.restype = ctypes.POINTER(_Violation)
        lib.search_violation.argtypes = [ctypes.c_void_p, ctypes.c_int]
        lib.search_state.restype = ctypes.POINTER(ctypes.c_uint64)
        lib.search_state.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        lib.search_parent.restype = ctypes.c_uint32
        lib.search_parent.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self._word_array = ctypes.c_uint64 * self.words

        class CEdge(ctypes.Structure):
            _fields_ = (
                *((name, ctypes.c_int) for name in ("thread", "status", "site", "stepped", "choices")),
                ("chosen", ctypes.c_int * MOST_CHOICES),
                ("state", self._word_array),
            )

        self._edge_type = CEdge
        self._edges = (CEdge * 1024)()

    @staticmethod
    def translate(world: World) -> Translation:
        """The C text of a world, without compiling it."""
        return Translation(world)

    def start(self) -> tuple[tuple[int, ...], Site | None]:
        """The first state: all threads at their first boundary; and what broke on the way, if anything did."""
        words = self._word_array(*self.translation.initial)
        site = ctypes.c_int(0)
        broken = self.library.model_start(words, ctypes.byref(site))
        return tuple(words), self.translation.sites[site.value] if broken else None

    def edges(self, state: Sequence[int]) -> list[Edge]:
        """Everything that can happen in a state."""
        words = self._word_array(*state)
        while (n := self.library.model_edges(words, self._edges, len(self._edges))) < 0:
            self._edges = (self._edge_type * (2 * len(self._edges)))()
        found = []
        for e in self._edges[:n]:
            taken = Slice(e.thread, tuple(e.chosen[: e.choices]), bool(e.stepped))
            found.append(Edge(taken, tuple(e.state), self.translation.sites[e.site] if e.status == BROKEN else None))
        return found

    def broken_rule(self, state: Sequence[int]) -> str | None:
        """The property a state breaks, if any."""
        site = ctypes.c_int(0)
        broken = self.library.model_broken_rule(self._word_array(*state), ctypes.byref(site))
        if broken < 0:
            return self.translation.sites[site.value].rule
        return self.translation.always[broken - 1] if broken else None

    def explore(
        self,
        *,
        stop_at_first: bool = True,
        max_states: int | None = None,
        memory: int | None = None,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> Outcome:
        """Explore everything that can happen; ``progress(states, depth, seconds)`` is called now and then.

        ``stop_at_first`` ends at the first broken rule; without it, the shortest way to each broken rule is kept, a
        rule broken at another place or by another thread counting as another.  ``memory`` is in bytes.
        """
        began = time.monotonic()
        words, broken = self.start()
        if broken is not None:
            outcome = Outcome("violated", 1, 0, 0, time.monotonic() - began, 0)
            outcome.found([Violation(broken.rule, broken.detail, None, broken.place, ())])
            return outcome
        lib = self.library
        limit = min(max_states if max_states is not None else NOBODY - 1, NOBODY - 1)
        budget = memory or default_memory()
        search = lib.search_new(self._word_array(*words), limit, budget, stop_at_first)
        if not search:
            return Outcome("incomplete", 0, 0, 0, 0.0, 0, why="the memory budget is too small to begin")
        try:
            try:
                while (status := lib.search_run(search, CHUNK)) == RUNNING:
                    if progress is not None:
                        summary = self._summary(search)
                        progress(summary.count, summary.depth, time.monotonic() - began)
            except KeyboardInterrupt:
                status = INTERRUPTED
            if status == COMPLETE and not self._summary(search).violations and not lib.search_waits(search):
                status = NO_MEMORY
            return self._outcome(search, status, limit, budget, time.monotonic() - began)
        finally:
            lib.search_free(search)

    def _summary(self, search: Any) -> Any:
        summary = _Summary()
        self.library.search_summary(search, ctypes.byref(summary))
        return summary

    def _outcome(self, search: Any, status: int, limit: int, budget: int, seconds: float) -> Outcome:
        summary = self._summary(search)
        violations = [self._violation(search, i) for i in range(summary.violations)]
        outcome = Outcome("holds", summary.count, summary.transitions, summary.depth, seconds, summary.bytes)
        if violations:
            outcome.found(violations)
        elif status != COMPLETE:
            outcome.verdict = "incomplete"
        else:
            names = self.translation.situations
            outcome.missed = [name for i, name in enumerate(names) if not summary.reached >> i & 1]
            outcome.verdict = "violated" if outcome.missed else "holds"
        whys = {
            OUT_OF_STATES: f"the budget of {limit} states is used up",
            OUT_OF_MEMORY: f"the budget of {budget:,} bytes is used up",
            NO_MEMORY: "the machine has no more memory",
            INTERRUPTED: "it was interrupted",
        }
        outcome.why = outcome.why or whys.get(status, "")
        return outcome

    def _state(self, search: Any, index: int) -> tuple[int, ...]:
        return tuple(self.library.search_state(search, index)[: self.words])

    def _path(self, search: Any, index: int) -> list[Slice]:
        indices = [index]
        while (parent := self.library.search_parent(search, indices[-1])) != NOBODY:
            indices.append(parent)
        indices.reverse()
        slices = []
        for before, after in itertools.pairwise(indices):
            wanted = self._state(search, after)
            found = next(e for e in self.edges(self._state(search, before)) if e.state == wanted and e.broken is None)
            slices.append(found.slice)
        return slices

    def _violation(self, search: Any, number: int) -> Violation:
        v = self.library.search_violation(search, number).contents
        slices = self._path(search, v.state)
        if v.kind == IN_STEP:
            site = self.translation.sites[v.site]
            if site.rule != ALWAYS_A_STEP:  # it would not end in plain Python either
                slices.append(Slice(v.thread, tuple(v.chosen[: v.choices]), bool(v.stepped)))
            return Violation(site.rule, site.detail, v.thread, site.place, tuple(slices))
        last = slices[-1].thread if slices else None
        if v.kind == IN_STATE:
            if v.site < 0:
                site = self.translation.sites[-1 - v.site]
                return Violation(site.rule, site.detail, last, site.place, tuple(slices))
            return Violation(self.translation.always[v.site], "", last, None, tuple(slices))
        who = "every thread waits" if v.thread < 0 else f"{self.world.threads[v.thread].name} waits for ever"
        return Violation(NO_DEADLOCK, who, last, None, tuple(slices))


def default_memory() -> int:
    """Half of what the machine has available, in bytes."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError):
        return 2 << 30
