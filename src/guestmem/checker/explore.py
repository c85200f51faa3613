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

from guestmem.checker.backend.marks import nothing
from guestmem.checker.engine import bindings
from guestmem.checker.engine.bindings import (
    BROKEN,
    COMPLETE,
    IN_STATE,
    IN_STEP,
    NO_MEMORY,
    NOBODY,
    OUT_OF_MEMORY,
    OUT_OF_STATES,
    RUNNING,
    SPINS,
)
from guestmem.checker.engine.compile import FLAGS
from guestmem.checker.frontend.source import Place
from guestmem.checker.ir import Watches
from guestmem.checker.lasso import Still, Waiting
from guestmem.checker.translate import Site, Translation
from guestmem.model.errors import ALWAYS_A_STEP, NO_DEADLOCK, TOO_LARGE
from guestmem.model.schedule import Slice
from guestmem.model.world import World

#: States expanded between two looks at the clock.
CHUNK = 1 << 14
#: Things that may happen in one state, where they are listed.
MOST_EDGES = 1 << 20
#: What ends a search besides what the engine says.
INTERRUPTED, OUT_OF_TIME = -1, -2


@dataclass(frozen=True)
class Violation:
    """A broken rule and the shortest way to it.

    ``thread`` is the index of the thread that broke it: who made the last step; of a wait, who waits; None if nobody made a
    step, or all wait.  ``place`` is where in the source (None for a property of states), ``slices`` the trace.  Where a thread
    goes round for ever, ``cycle`` is what happens again and again after the trace; ``waits`` is who does not get on, and why.
    """

    rule: str
    detail: str
    thread: int | None
    place: Place | None
    slices: tuple[Slice, ...]
    cycle: tuple[Slice, ...] = ()
    waits: tuple[Waiting, ...] = ()

    @property
    def steps(self) -> int:
        """Length of the trace."""
        return len(self.slices)


@dataclass
class Outcome:
    """What an exploration found.

    ``verdict`` is "holds", "violated" or "incomplete"; ``why`` says which budget ran out; ``missed`` names situations
    that no state showed, when everything was explored.
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

    def by_rule_and_actor(self) -> dict[tuple[str, int | None], Violation]:
        """The shortest violation of each rule by each thread that breaks it, the shortest first."""
        found: dict[tuple[str, int | None], Violation] = {}
        for violation in sorted(self.violations, key=lambda v: v.steps):
            found.setdefault((violation.rule, violation.thread), violation)
        return found

    def found(self, violations: list[Violation]) -> None:
        """Note what broke.  A number that the checker cannot compute with breaks no rule: what follows it is not known."""
        self.violations = [v for v in violations if v.rule != TOO_LARGE]
        self.verdict = "violated" if self.violations or self.missed else "incomplete"
        for violation in violations:
            if violation.rule == TOO_LARGE:
                self.why = f"{violation.place}: not so of {violation.detail!r}: {TOO_LARGE}"


@dataclass(frozen=True)
class Edge:
    """One thing that can happen in a state."""

    slice: Slice
    state: tuple[int, ...]
    broken: Site | None


class Steps:
    """A world translated and compiled, to be looked at one state at a time.

    ``watches`` says of which files it is noted what was executed; ``translation`` is the world's, where that was made before.
    """

    #: The files of the engine that are added to the translation.
    parts: tuple[str, ...] = bindings.REPLAY

    def __init__(
        self,
        world: World,
        watches: Watches = nothing,
        flags: Sequence[str] = FLAGS,
        translation: Translation | None = None,
    ) -> None:
        self.world = world
        self.translation = translation or Translation(world, watches)
        self.words = self.translation.layout.words
        self.library = bindings.engine(self.translation.source, self.words, self.parts, flags)
        self._word_array = ctypes.c_uint64 * self.words
        self._edge_type = bindings.edge_type(self.words)
        self._edges: Any = (self._edge_type * 1024)()

    def start(self) -> tuple[tuple[int, ...], Site | None]:
        """The first state: all threads at their first boundary; and what broke on the way, if anything did."""
        words = self._word_array(*self.translation.initial)
        site = ctypes.c_int(0)
        broken = self.library.model_start(words, ctypes.byref(site))
        return tuple(words), self.translation.numbers.sites[site.value] if broken else None

    def edges(self, state: Sequence[int]) -> list[Edge]:
        """Everything that can happen in a state.  Raises OverflowError where that is more than can be listed."""
        words = self._word_array(*state)
        while (n := self.library.model_edges(words, self._edges, len(self._edges))) < 0:
            if len(self._edges) >= MOST_EDGES:
                raise OverflowError(f"more than {MOST_EDGES} things can happen in one state")
            self._edges = (self._edge_type * (2 * len(self._edges)))()
        found = []
        for e in self._edges[:n]:
            taken = Slice(e.thread, tuple(e.chosen[: e.choices]), bool(e.stepped))
            found.append(Edge(taken, tuple(e.state), self.translation.numbers.sites[e.site] if e.status == BROKEN else None))
        return found

    def broken_rules(self, state: Sequence[int]) -> list[Site]:
        """The rules a state breaks: its properties, and what evaluating one of them breaks."""
        sites = (ctypes.c_int * (len(self.translation.numbers.always) + 1))()
        broken = self.library.model_broken_rules(self._word_array(*state), sites)
        numbers = [i for i in range(len(self.translation.numbers.always)) if broken >> i & 1]
        return [self._property(i if sites[i] < 0 else -1 - sites[i]) for i in numbers]

    def _property(self, number: int) -> Site:
        """What the engine's number of a broken property means: a place if evaluating it broke a rule."""
        if number < 0:
            return self.translation.numbers.sites[-1 - number]
        return Site(self.translation.numbers.always[number], "", None)


class Model(Steps):
    """A world translated and compiled, to be explored."""

    parts = bindings.SEARCH

    @staticmethod
    def translate(world: World) -> Translation:
        """The C text of a world, without compiling it."""
        return Translation(world)

    def explore(
        self,
        *,
        stop_at_first: bool = True,
        max_states: int | None = None,
        memory: int | None = None,
        seconds: float | None = None,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> Outcome:
        """Explore everything that can happen; ``progress(states, depth, seconds)`` is called now and then.

        ``stop_at_first`` ends at the first broken rule.  Without it the search goes on past what is broken, and keeps the
        shortest way in which each thread breaks each rule, a rule broken at another place counting as another.  A state
        that breaks a property is expanded as any other, and breaks it anew only where the state before it did not; a
        step that breaks a rule leads nowhere.  ``memory`` is in bytes; ``seconds`` is how long to look for states.
        """
        began = time.monotonic()
        self.library.marks_clear()
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
                    took = time.monotonic() - began
                    if progress is not None:
                        summary = self._summary(search)
                        progress(summary.count, summary.depth, took)
                    if seconds is not None and took >= seconds:
                        status = OUT_OF_TIME
                        break
            except KeyboardInterrupt:
                status = INTERRUPTED
            if status == COMPLETE:
                status = lib.search_waits(search)
            return self._outcome(search, status, limit, budget, time.monotonic() - began)
        finally:
            lib.search_free(search)

    def marks(self) -> list[int]:
        """The words of :attr:`Translation.marks`: what was executed since the exploration began."""
        words = (ctypes.c_uint64 * (self.translation.marks.words + 1))()
        self.library.marks_read(words)
        return list(words)

    def _summary(self, search: Any) -> Any:
        summary = bindings.Summary()
        self.library.search_summary(search, ctypes.byref(summary))
        return summary

    def _outcome(self, search: Any, status: int, limit: int, budget: int, seconds: float) -> Outcome:
        summary = self._summary(search)
        violations = [self._violation(search, i) for i in range(summary.violations)]
        outcome = Outcome("holds", summary.count, summary.transitions, summary.depth, seconds, summary.bytes)
        if status == COMPLETE:
            names = self.translation.numbers.situations
            outcome.missed = [name for i, name in enumerate(names) if not summary.reached >> i & 1]
        if violations:
            outcome.found(violations)
        elif outcome.missed:
            outcome.verdict = "violated"
        elif status != COMPLETE:
            outcome.verdict = "incomplete"
        whys = {
            OUT_OF_STATES: f"the budget of {limit} states is used up",
            OUT_OF_MEMORY: f"the budget of {budget:,} bytes is used up",
            NO_MEMORY: "the machine has no more memory",
            INTERRUPTED: "it was interrupted",
            OUT_OF_TIME: "the time is used up",
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
            site = self.translation.numbers.sites[v.site]
            if site.rule != ALWAYS_A_STEP:  # it would not end in plain Python either
                slices.append(Slice(v.thread, tuple(v.chosen[: v.choices]), bool(v.stepped)))
            return Violation(site.rule, site.detail, v.thread, site.place, tuple(slices))
        thread = None if v.thread < 0 else v.thread
        if v.kind == IN_STATE:
            site = self._property(v.site)
            if thread is not None:
                edges = self.edges(self._state(search, v.state))
                slices.append(next(e.slice for e in edges if e.slice.thread == thread and self._breaks(e, site)))
            return Violation(site.rule, site.detail, thread, site.place, tuple(slices))
        state = self._state(search, v.state)
        if v.kind == SPINS:
            assert thread is not None
            loop = self.translation.numbers.loops[v.site][1]
            detail = f"{self.world.threads[thread].name} goes round for ever"
            cycle = self._cycle(search, v)
            active = {slice_.thread for slice_ in cycle}
            with Still(self.translation, state) as still:
                others = [still.waiting(i) for i in range(len(self.world.threads)) if i not in active]
                waits = tuple(w for w in (still.round(thread, loop), *others) if w is not None)
            return Violation(NO_DEADLOCK, detail, thread, loop.place, tuple(slices), cycle, waits)
        who = "every thread waits" if thread is None else f"{self.world.threads[thread].name} waits for ever"
        with Still(self.translation, state) as still:
            waits = tuple(w for w in map(still.waiting, range(len(self.world.threads))) if w is not None)
        return Violation(NO_DEADLOCK, who, thread, None, tuple(slices), (), waits)

    def _cycle(self, search: Any, v: Any) -> tuple[Slice, ...]:
        """The slices of a cycle that begins and ends in the state of a violation."""
        state = self._state(search, v.state)
        slices = []
        for turn in v.cycle[: v.turns]:
            after = self._state(search, turn.state)
            taken = (e for e in self.edges(state) if e.slice.thread == turn.thread and e.state == after and e.broken is None)
            slices.append(next(taken).slice)
            state = after
        return tuple(slices)

    def _breaks(self, edge: Edge, site: Site) -> bool:
        """Whether the state after an edge breaks a property."""
        return edge.broken is None and site in self.broken_rules(edge.state)


def default_memory() -> int:
    """Half of what the machine has available, in bytes."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError):
        return 2 << 30
