# SPDX-License-Identifier: Apache-2.0
"""Everything that can happen in a scenario, explored; and the report of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from guestmem.checker import lasso
from guestmem.checker.trace import Row, Unreplayed, as_json, counterexample
from guestmem.model import Refused, World
from guestmem.model.errors import NO_DEADLOCK
from guestmem.report import names
from guestmem.report.explain import Saved, lines, saved
from guestmem.report.names import plain, text
from guestmem.report.silence import Watch, silence_json, silence_lines
from guestmem.report.syz import program
from guestmem.scenarios.catalogue import Scenario
from guestmem.scenarios.climb import Breach, Climb, Rung

if TYPE_CHECKING:
    from guestmem.checker.explore import Violation
    from guestmem.guest_memfd.library import Protection
    from guestmem.machine.arch import Arch

__all__ = ["Check", "Defect", "check", "explored"]

MINUTE = 60.0


class Defect(Exception):
    """The checker is wrong, as one line; ``saved`` is the counterexample that does not happen as ordinary Python."""

    def __init__(self, line: str, saved: Saved) -> None:
        super().__init__(line)
        self.saved = saved


class Check:
    """A check of a scenario: ``repr`` is its verdict, ``str`` what ``guestmem check`` prints.

    Attributes:
        scenario: what is checked.
        given: the options asked for, beside the sizes.
        rungs: the sizes at which it is explored, and what came of each.
        traces: the steps of the shortest way to each broken rule, by the rule and the name of the thread that breaks it.
    """

    def __init__(
        self,
        scenario: Scenario,
        given: Mapping[str, Any],
        sized: Mapping[str, Any],
        *,
        within: float | None = None,
        max_states: int | None = None,
        memory: int | None = None,
        all_rules: bool = False,
        coverage: bool = False,
        full: bool = False,
    ) -> None:
        one = bool(sized or all_rules)
        self.scenario = scenario
        self.given = given
        self.all_rules = all_rules
        self.coverage = coverage
        self.full = full
        self.traces: dict[Breach, list[Row]] = {}
        self.watch = Watch(scenario, {**sized, **given}, coverage)
        seconds = within or (None if one else MINUTE)
        self.climb = Climb(scenario, self.watch, seconds, max_states, memory, all_rules, scenario.known_to_break(given))
        self.rungs = [Rung({**sized, **given}, True)] if one else self.climb.rungs(given)
        self.own = next(rung for rung in self.rungs if rung.own)
        self._head: list[str] = []

    def __repr__(self) -> str:
        broken = f" in {self.steps} steps: {self.rule}" if self.rule else ""
        return f"<Check of {self.what}: {self.verdict}{broken}>"

    def __str__(self) -> str:
        return "\n".join([*self._head, *self.conclusion()])

    # ---- exploring

    def explore(self, note: Callable[[str], None] = lambda _: None) -> Iterator[str]:
        """Explore; the lines that can be printed meanwhile.  ``note`` is told how far it is.  Raises :class:`Defect`."""
        for line in self._explore(note):
            self._head.append(line)
            yield line

    def _explore(self, note: Callable[[str], None]) -> Iterator[str]:
        if len(self.rungs) > 1:
            yield self._asked
        for rung in self.climb.climb(self.rungs, note):
            note("replaying")
            self._replay(rung)
            if len(self.rungs) > 1:
                yield f"  {self._label(rung):<36} {describe(rung, self.scenario)}"

    def _replay(self, rung: Rung) -> None:
        """See that what was found happens in plain Python too."""
        for breach, violation in rung.found.items():
            try:
                world = self.scenario.build(**rung.options)
                who = range(len(world.threads)) if violation.thread is None else [violation.thread]
                waiting = who if violation.rule == NO_DEADLOCK and not violation.cycle else ()
                slices = violation.slices + violation.cycle
                rows = counterexample(world, violation.rule, slices, waiting=waiting)
                self.traces[breach] = lasso.closed(rows, len(violation.cycle))
            except Unreplayed as error:
                line = (
                    f"{self.scenario.name} {text(rung.options)}: the checker says {violation.rule!r} is broken in "
                    f"{violation.steps} steps; as ordinary Python it does not happen ({error}): a defect of the checker, "
                    f"please report it"
                )
                raise Defect(line, saved(self.scenario.name, rung.options, violation)) from error

    # ---- what was found

    @property
    def verdict(self) -> str:
        """Of all sizes together: "holds", "violated" or "incomplete"."""
        if any(rung.verdict in ("violated", "known") for rung in self.rungs):
            return "violated"
        return "holds" if self.own.verdict == "holds" else "incomplete"

    @property
    def rule(self) -> str:
        """The rule that is broken in the fewest steps; the empty string if none is."""
        return self._worst[0][0] if self._worst else ""

    @property
    def steps(self) -> int:
        """How many steps break that rule; 0 if none is broken."""
        return self._worst[1].steps if self._worst else 0

    @property
    def rows(self) -> list[Row]:
        """These steps."""
        return self.traces[self._worst[0]] if self._worst else []

    @property
    def states(self) -> int:
        """How many states there are, at the size that is decisive."""
        outcome = self._decisive.outcome
        return outcome.states if outcome else 0

    @property
    def transitions(self) -> int:
        """How many transitions there are, at that size."""
        outcome = self._decisive.outcome
        return outcome.transitions if outcome else 0

    @property
    def what(self) -> str:
        """The scenario and the options that the verdict is about."""
        return f"{self.scenario.name} {text(self._decisive.options)}".rstrip()

    def saved(self) -> Saved:
        """The shortest counterexample, as ``check --save-trace`` writes it.  Raises :class:`Refused` if no rule is broken."""
        if self._worst is None:
            raise Refused(self.what, "no rule is broken", "explain a check that is violated")
        return saved(self.scenario.name, self._decisive.options, self._worst[1])

    def as_syz(self) -> str:
        """The same as a program for syzkaller.  Raises :class:`Refused` also where its steps are no system calls."""
        if self._worst is None:
            raise Refused(self.what, "no rule is broken", "write a program of a check that is violated")
        _, violation = self._worst
        build = functools.partial(self.scenario.build, **self._decisive.options)
        return program(self.scenario.name, build, violation.rule, violation.slices)

    @property
    def _asked(self) -> str:
        return f"{self.scenario.name} {text(self.given)}".rstrip()

    @property
    def _decisive(self) -> Rung:
        """The rung whose numbers stand for all: what is violated, else the world's own sizes, else how far we came."""
        order = [rung for rung in self.rungs if rung.verdict == "violated"]
        order += [rung for rung in self.rungs if rung.verdict == "known"]
        order += [rung for rung in (self.own, *reversed(self.rungs)) if rung.outcome is not None]
        return order[0]

    @property
    def _worst(self) -> tuple[Breach, Violation] | None:
        """The shortest violation, of those that are new if there are such."""
        rung = self._decisive
        return next(iter((rung.new or rung.found).items()), None)

    # ---- saying it

    def conclusion(self) -> Iterator[str]:
        """The lines that end the report: the verdict, the way to it, and what the check did not look at."""
        yield from self._verdict_lines()
        code = self.coverage or self._worst is None
        yield from silence_lines(self.watch.silence(), self.scenario.world.__name__, code=code)

    def _verdict_lines(self) -> Iterator[str]:
        rung = self._decisive
        outcome = rung.outcome
        assert outcome is not None
        if self._worst is not None:
            yield from self._violations(rung)
        elif self.verdict == "violated":
            yield f"{self.what}: no rule is broken, but nothing shows: {'; '.join(outcome.missed)}"
        elif len(self.rungs) > 1:
            yield f"{self._asked}: {self._sentence()}"
            return
        elif self.verdict == "incomplete":
            yield f"{self.what}: incomplete: {outcome.why}; every state up to {outcome.depth} steps was covered"
        else:
            yield f"{self.what}: holds"
        yield f"{outcome.states} states, {outcome.transitions} transitions, {outcome.depth} steps deep, {rung.seconds:.1f} s"

    def _violations(self, rung: Rung) -> Iterator[str]:
        """Which rules are broken, and the shortest way there."""
        base, outcome = self.scenario.base, rung.outcome
        if not rung.new:
            assert base is not None and outcome is not None
            far = f" up to {outcome.depth} steps: {outcome.why}" if outcome.why else ""
            yield f"{self.what}: violated as {base.world.__name__} is: nothing new{far}"
        else:
            shown = list(rung.new.items()) if self.full else [next(iter(rung.new.items()))]
            for breach, violation in shown:
                yield f"{self.what}: violated in {violation.steps} steps"
                yield from lines(
                    self.traces[breach],
                    violation.rule,
                    violation.detail,
                    len(violation.cycle),
                    violation.waits,
                    mine=self.scenario.file,
                    full=self.full,
                )
            if self.all_rules or rung.known:
                yield "each broken rule, in how many steps and by whom:"
                yield from summary(rung.new)
        if rung.known:
            assert base is not None
            yield f"known, also in {base.world.__name__}:"
            yield from summary({breach: v for breach, v in rung.found.items() if breach in rung.known})
        if rung.unsure:
            assert base is not None
            yield f"{base.world.__name__} was not explored to the end: it may break more of these"

    def _label(self, rung: Rung) -> str:
        """The sizes of a rung."""
        return text({name: v for name, v in rung.options.items() if name not in self.given}) or "its own sizes"

    def _sentence(self) -> str:
        """What holds for what."""
        own = self._label(self.own)
        own = own if own == "its own sizes" else f"its own ({own})"
        finished = [rung for rung in self.rungs if rung.verdict == "holds"]
        parts = [f"holds at {len(finished)} of {len(self.rungs)} sizes, {own} among them"]
        if self.verdict == "incomplete":
            parts = [f"incomplete: {own} not finished: give it more time with --within"]
        unfinished = [(rung, rung.outcome) for rung in self.rungs if rung.verdict == "incomplete"]
        parts += [f"{self._label(rung)} up to {outcome.depth} steps" for rung, outcome in unfinished if outcome]
        later = [self._label(rung) for rung in self.rungs if rung.verdict == "not begun"]
        if later:
            parts.append(f"not begun: {', '.join(later)}")
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """The outcome as one object."""
        rung, worst = self._decisive, self._worst
        outcome = rung.outcome
        assert outcome is not None
        return {
            "schema": 1,
            "scenario": self.scenario.name,
            "options": plain(rung.options),
            "verdict": self.verdict,
            "rule": worst[1].rule if worst else None,
            "detail": worst[1].detail if worst else None,
            "steps": worst[1].steps if worst else None,
            "states": outcome.states,
            "transitions": outcome.transitions,
            "depth": outcome.depth,
            "missed": outcome.missed,
            "why": outcome.why,
            "trace": self.saved()["slices"] if worst else None,
            "rows": [as_json(row) for row in self.rows] if worst else None,
            "violations": [
                {"rule": rule, "who": who, "detail": v.detail, "steps": v.steps, "known": (rule, who) in rung.known}
                for (rule, who), v in rung.found.items()
            ],
            "rungs": [rung_json(rung) for rung in self.rungs],
            "coverage": silence_json(self.watch.silence()),
        }


def describe(rung: Rung, scenario: Scenario) -> str:
    """What was found on a rung."""
    outcome = rung.outcome
    if outcome is None:
        return f"not explored: {rung.refused}"
    base = scenario.base.world.__name__ if scenario.base else ""
    depth = f"{outcome.states} states, {outcome.depth} steps deep"
    if rung.verdict == "incomplete":
        return f"not finished: {depth}: {outcome.why}"
    if rung.verdict == "known":
        return f"violated as {base} is: nothing new{f': not finished: {depth}: {outcome.why}' if outcome.why else ''}"
    missed = f"; does not show: {'; '.join(outcome.missed)}" if outcome.missed else ""
    return f"{rung.verdict:<10} {outcome.states:>10} states {rung.seconds:>7.1f} s{missed}"


def rung_json(rung: Rung) -> dict[str, Any]:
    """A rung as one object."""
    outcome = rung.outcome
    return {
        "options": plain(rung.options),
        "own": rung.own,
        "verdict": rung.verdict,
        "states": outcome.states if outcome else None,
        "depth": outcome.depth if outcome else None,
        "missed": outcome.missed if outcome else None,
        "why": (outcome.why if outcome else rung.refused) or None,
    }


def summary(found: Mapping[Breach, Violation]) -> Iterator[str]:
    """A line for each rule and who breaks it."""
    for (rule, who), violation in found.items():
        yield f"{violation.steps:>6}  {who or 'all threads':<12} {rule}"


def check(
    scenario: str | type[World],
    *,
    protection: str | Protection | None = None,
    arch: str | Arch | None = None,
    speculation: bool = False,
    within: float | None = None,
    all_rules: bool = False,
    full: bool = False,
    coverage: bool = False,
    max_states: int | None = None,
    memory: int | None = None,
    **sizes: Any,
) -> Check:
    """Explore everything that can happen in a scenario, as ``guestmem check`` does.

    ``scenario`` is a name from ``guestmem list``, ``file.py:Name``, or a :class:`World` of yours.  ``within`` is in seconds
    (default: a minute, unless sizes are given), ``memory`` in bytes, for each size; the other options are those of the
    command, ``sizes`` any of the world's.  Raises :class:`Refused` for a user's mistake, in a line; :class:`Defect` where
    the checker is wrong.
    """
    found = names.scenario(scenario)
    done = Check(
        found,
        names.options(found, protection, arch, speculation),
        names.sizes(found, sizes),
        within=within,
        max_states=max_states,
        memory=memory,
        all_rules=all_rules,
        coverage=coverage,
        full=full,
    )
    for _ in done.explore():
        pass
    return done


def explored(scenario: Scenario, *, all_rules: bool = False, memory: int | None = None) -> Check:
    """A scenario explored at one size, its small one if it has such, with its own options.  Raises :class:`Defect`."""
    done = Check(scenario, {}, {**scenario.options, **scenario.small}, all_rules=all_rules, memory=memory)
    for _ in done.explore():
        pass
    return done
