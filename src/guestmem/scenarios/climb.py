# SPDX-License-Identifier: Apache-2.0
"""A scenario explored at one size after another, within a time; what a user's world breaks that its base does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from guestmem.checker.explore import Model, Outcome, Violation
from guestmem.model.errors import Refused
from guestmem.scenarios.catalogue import Scenario

__all__ = ["Climb", "Rung"]

#: A rule, and the name of the thread that breaks it; the empty string where no thread does.
Breach = tuple[str, str]


@dataclass
class Rung:
    """One size of a scenario, and what came of it.

    ``options`` are what it is built with; ``own``: they are the sizes that the world itself declares.  ``outcome`` is None
    as long as it was not explored; ``refused`` says why it cannot be.  ``found`` has the shortest violation for each rule
    and actor, the shortest first; ``known`` those that the world it derives from has too, ``unsure``: as far as known.
    """

    options: Mapping[str, Any]
    own: bool = False
    outcome: Outcome | None = None
    refused: str = ""
    seconds: float = 0.0
    found: dict[Breach, Violation] = field(default_factory=dict)
    known: set[Breach] = field(default_factory=set)
    unsure: bool = False

    @property
    def new(self) -> dict[Breach, Violation]:
        """The violations that are not known."""
        return {breach: violation for breach, violation in self.found.items() if breach not in self.known}

    @property
    def verdict(self) -> str:
        """What came of it: holds, violated, known (violated, but nothing new), incomplete, refused or "not begun".

        That a situation is not shown counts at the world's own sizes: smaller ones may have no room for it.
        """
        if self.outcome is None:
            return "refused" if self.refused else "not begun"
        if self.found:
            return "violated" if self.new else "known"
        if self.outcome.why:
            return "incomplete"
        return "violated" if self.outcome.missed and self.own else "holds"


class Watch(Protocol):
    """Who watches what explorations execute."""

    watches: Callable[[str], bool]

    def explored(self, model: Model, options: Mapping[str, Any]) -> None:
        """An exploration of a model that was built with these options has ended."""


@dataclass
class Climb:
    """How a scenario is explored.

    Attributes:
        scenario: what to explore.
        watch: which files are watched, and who takes in what was executed of them.
        seconds: the time for all rungs; None: no limit.
        max_states: see :meth:`Model.explore`; for each rung.
        memory: in bytes, for each rung.
        all_rules: go on past what is broken.
        base: the scenario whose violations are known.
    """

    scenario: Scenario
    watch: Watch
    seconds: float | None = None
    max_states: int | None = None
    memory: int | None = None
    all_rules: bool = False
    base: Scenario | None = None

    def rungs(self, given: Mapping[str, Any]) -> list[Rung]:
        """The rungs of the scenario's ladder, and before them, where none is at the world's own sizes, one that is.

        All are built with what is ``given``.
        """
        world = self.scenario.build(**given)
        values = {**world.geometry, **{name: getattr(world, name) for name in world.fields()}}
        rungs = []
        for options in self.scenario.ladder(**given):
            options = {name: v for name, v in options.items() if name in given or name not in self.scenario.options}
            rungs.append(Rung(options, all(values.get(name) == value for name, value in options.items())))
        return rungs if any(rung.own for rung in rungs) else [Rung(dict(given), True), *rungs]

    def climb(self, rungs: Sequence[Rung], note: Callable[[str], None]) -> Iterator[Rung]:
        """Explore the rungs in order and yield each that was, until one shows something new or time is up."""
        until = None if self.seconds is None else time.monotonic() + self.seconds
        for rung in rungs:
            if until is not None and time.monotonic() >= until and rung is not rungs[0]:
                return
            began = time.monotonic()
            try:
                self._explore(rung, until, note)
            except Refused as refused:
                if rung is rungs[0] or rung.own:
                    raise
                rung.refused = str(refused)
            rung.seconds = time.monotonic() - began
            yield rung
            if rung.verdict == "violated" or (rung.outcome is not None and rung.outcome.why):
                return

    def _explore(self, rung: Rung, until: float | None, note: Callable[[str], None]) -> None:
        rung.outcome, rung.found = self._run(self.scenario, rung.options, until, note)
        if rung.found and self.base is not None:
            outcome, found = self._run(self.base, rung.options, until, note)
            rung.known = found.keys() & rung.found.keys()
            rung.unsure = bool(outcome.why)

    def _run(
        self, scenario: Scenario, options: Mapping[str, Any], until: float | None, note: Callable[[str], None]
    ) -> tuple[Outcome, dict[Breach, Violation]]:
        model = Model(scenario.build(**options), self.watch.watches)
        outcome = model.explore(
            stop_at_first=not self.all_rules and self.base is None,
            max_states=self.max_states,
            memory=self.memory,
            seconds=None if until is None else max(0.0, until - time.monotonic()),
            progress=lambda states, depth, seconds: note(f"{states} states, {depth} steps deep, {seconds:.0f} s"),
        )
        if scenario is self.scenario:
            self.watch.explored(model, options)
        names = [thread.name for thread in model.world.threads]
        pairs = outcome.by_rule_and_actor().items()
        return outcome, {(rule, "" if actor is None else names[actor]): violation for (rule, actor), violation in pairs}
