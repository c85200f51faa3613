# SPDX-License-Identifier: Apache-2.0
"""``guestmem check``: explore everything that can happen in a scenario."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guestmem.cli.files import may_write, write_whole
from guestmem.cli.scenario import one_size, options, plain, saved, sizes, text
from guestmem.cli.silence import Watch, silence_json, silence_lines
from guestmem.cli.terminal import EXIT, Defect, count, duration, progress, size

if TYPE_CHECKING:
    from guestmem.checker.explore import Violation
    from guestmem.checker.trace import Row
    from guestmem.scenarios.catalogue import Scenario
    from guestmem.scenarios.climb import Rung

MINUTE = 60.0
ABOUT = """
Explores the scenario at one size after another, the cheapest first, as far as the time allows (--within), and says what it
found at each.  Where a size is given (--pages, --frames, --cpus, --vms, --size), or --all-rules, that one size is explored,
without a limit of time unless there is --within.

A world that is protected is checked under unmap, unless it is known to hold under another protection only; --protection asks
for another.  Where a world of yours derives from a scenario that is known to break rules, what that one breaks too is known,
and only what is new counts as found.

Exit codes: 0 holds, at the sizes that the world itself declares and at all others that were finished; 1 a rule is broken, if
only in a known way; 2 usage; 3 the world's own sizes were not finished, or the checker is wrong.
"""


def add(commands: Any) -> None:
    """Add the command."""
    check = commands.add_parser("check", help="explore everything that can happen in a scenario", description=ABOUT)
    check.formatter_class = argparse.RawDescriptionHelpFormatter
    check.add_argument("scenario", metavar="SCENARIO", help="a name from `guestmem list`, or file.py:name")
    check.add_argument("--protection", metavar="P", help="none, unmap, fixup, unmap+fixup (default: one that should hold)")
    check.add_argument("--arch", metavar="A", help="arm64, arm64-blocks, arm64-bbml2, arm64-bbm, x86 (default: arm64)")
    check.add_argument("--speculation", action="store_true", help="as in compare")
    check.add_argument("--within", type=duration, metavar="TIME", help="time for all sizes, as 30s, 2m, 1h (default: 1m)")
    check.add_argument("--pages", type=count, metavar="N", help="pages of the file")
    check.add_argument("--frames", type=count, metavar="N", help="page frames of the machine (default: pages + 1)")
    check.add_argument("--cpus", type=count, metavar="N", help="CPUs of the host")
    check.add_argument("--vms", type=count, metavar="N", help="guests")
    check.add_argument("--size", type=one_size, metavar="NAME=N", action="append", default=[], help="any size of the world")
    check.add_argument("--all-rules", action="store_true", help="go on past what is broken: every rule, by whom, how soon")
    check.add_argument("--max-states", type=count, metavar="N", help="stop after this many states (exit 3)")
    check.add_argument("--memory", type=size, metavar="SIZE", help="stop at this much memory, as 512M or 4G (exit 3)")
    check.add_argument("--full", action="store_true", help="all steps of a counterexample; with --all-rules, of each")
    check.add_argument("--coverage", action="store_true", help="say what was never executed, of guestmem's own files too")
    check.add_argument("--show", choices=("tree", "ir", "c"), help="print what the world is translated to, and explore nothing")
    check.add_argument("--save-trace", metavar="FILE", help="write the counterexample, for `guestmem explain`")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explore a scenario; print the shortest counterexample."""
    from guestmem.scenarios.catalogue import find
    from guestmem.scenarios.climb import Climb, Rung

    scenario = find(arguments.scenario)
    given, sized = options(scenario, arguments), sizes(scenario, arguments)
    if arguments.show:
        return show(scenario, {**sized, **given}, arguments.show)
    if arguments.save_trace:
        may_write(arguments.save_trace, "--save-trace")
    one = bool(sized or arguments.all_rules)
    within = arguments.within or (None if one else MINUTE)
    watch = Watch(scenario, {**sized, **given}, arguments.coverage)
    known = scenario.known_to_break(given)
    climb = Climb(scenario, watch, within, arguments.max_states, arguments.memory, arguments.all_rules, known)
    rungs = [Rung({**sized, **given}, True)] if one else climb.rungs(given)
    report = Report(scenario, given, rungs, watch, arguments)
    with progress(arguments.scenario) as note:
        for rung in climb.climb(rungs, note):
            note("replaying")
            report.add(rung)
    return report.close()


def show(scenario: Scenario, given: Mapping[str, Any], phase: str) -> int:
    """Print a scenario as one phase of its translation hands it on."""
    from guestmem.checker.show import ir_of, tree_of
    from guestmem.checker.translate import Translation

    translation = Translation(scenario.build(**given))
    phases = {"tree": lambda: tree_of(translation.program), "ir": lambda: ir_of(translation.bodies)}
    print(phases[phase]() if phase in phases else translation.source)
    return 0


class Report:
    """What a check found, printed as it comes, or at the end as one object."""

    def __init__(
        self,
        scenario: Scenario,
        given: Mapping[str, Any],
        rungs: Sequence[Rung],
        watch: Watch,
        arguments: argparse.Namespace,
    ) -> None:
        self.scenario = scenario
        self.given = given
        self.rungs = rungs
        self.watch = watch
        self.arguments = arguments
        self.traces: dict[tuple[str, str], list[Row]] = {}
        self.own = next(rung for rung in rungs if rung.own)
        self.what = f"{scenario.name} {text(given)}".rstrip()
        if len(rungs) > 1:
            self.say(self.what)

    def say(self, line: str) -> None:
        """Print a line of the report."""
        if not self.arguments.json:
            print(line, flush=True)

    def add(self, rung: Rung) -> None:
        """See that what was found happens in plain Python too, and say what it is."""
        from guestmem.checker import lasso
        from guestmem.checker.trace import Unreplayed, counterexample
        from guestmem.model.errors import NO_DEADLOCK

        for breach, violation in rung.found.items():
            try:
                world = self.scenario.build(**rung.options)
                who = range(len(world.threads)) if violation.thread is None else [violation.thread]
                waiting = who if violation.rule == NO_DEADLOCK and not violation.cycle else ()
                slices = violation.slices + violation.cycle
                rows = counterexample(world, violation.rule, slices, waiting=waiting)
                self.traces[breach] = lasso.closed(rows, len(violation.cycle))
            except Unreplayed as error:
                raise Defect(self.defect(rung, violation, str(error))) from error
        if len(self.rungs) > 1:
            self.say(f"  {self.label(rung):<36} {describe(rung, self.scenario)}")

    def defect(self, rung: Rung, violation: Violation, why: str) -> str:
        """Save a trace that does not replay; the line that says so."""
        stem = os.path.basename(self.scenario.name).replace(".py:", "-")
        file = self.arguments.save_trace or f"guestmem-{stem}.json"
        self.save(file, rung, violation)
        return (
            f"{self.scenario.name} {text(rung.options)}: the checker says {violation.rule!r} is broken in {violation.steps} "
            f"steps; as ordinary Python it does not happen ({why}): a defect of the checker, please report it with {file}"
        )

    def save(self, file: str, rung: Rung, violation: Violation) -> None:
        """Write a counterexample to a file."""
        write_whole(file, json.dumps(saved(self.scenario.name, rung.options, violation), indent=1) + "\n")

    def label(self, rung: Rung) -> str:
        """The sizes of a rung."""
        return text({name: v for name, v in rung.options.items() if name not in self.given}) or "its own sizes"

    @property
    def verdict(self) -> str:
        """Of all rungs together."""
        if any(rung.verdict in ("violated", "known") for rung in self.rungs):
            return "violated"
        return "holds" if self.own.verdict == "holds" else "incomplete"

    @property
    def decisive(self) -> Rung:
        """The rung whose numbers stand for all: what is violated, else the world's own sizes, else how far we came."""
        order = [rung for rung in self.rungs if rung.verdict == "violated"]
        order += [rung for rung in self.rungs if rung.verdict == "known"]
        order += [rung for rung in (self.own, *reversed(self.rungs)) if rung.outcome is not None]
        return order[0]

    def close(self) -> int:
        """Say what was found; the exit code."""
        rung = self.decisive
        worst = next(iter((rung.new or rung.found).items()), None)
        if self.arguments.json:
            print(json.dumps(self.as_json(rung, worst), indent=1))
        else:
            for line in self.conclusion(rung, worst):
                print(line)
            code = self.arguments.coverage or worst is None
            for line in silence_lines(self.watch.silence(), self.scenario.world.__name__, code=code):
                print(line)
        if self.arguments.save_trace and worst is not None:
            self.save(self.arguments.save_trace, rung, worst[1])
        return EXIT[self.verdict]

    def conclusion(self, rung: Rung, worst: tuple[tuple[str, str], Violation] | None) -> Iterator[str]:
        """The verdict, and the way to it."""
        outcome = rung.outcome
        assert outcome is not None
        what = f"{self.scenario.name} {text(rung.options)}".rstrip()
        if worst is not None:
            yield from self.violations(what, rung)
        elif self.verdict == "violated":
            yield f"{what}: no rule is broken, but nothing shows: {'; '.join(outcome.missed)}"
        elif len(self.rungs) > 1:
            yield f"{self.what}: {self.sentence()}"
            return
        elif self.verdict == "incomplete":
            yield f"{what}: incomplete: {outcome.why}; every state up to {outcome.depth} steps was covered"
        else:
            yield f"{what}: holds"
        yield f"{outcome.states} states, {outcome.transitions} transitions, {outcome.depth} steps deep, {rung.seconds:.1f} s"

    def violations(self, what: str, rung: Rung) -> Iterator[str]:
        """Which rules are broken, and the shortest way there."""
        base, outcome = self.scenario.base, rung.outcome
        if not rung.new:
            assert base is not None and outcome is not None
            far = f" up to {outcome.depth} steps: {outcome.why}" if outcome.why else ""
            yield f"{what}: violated as {base.world.__name__} is: nothing new{far}"
        else:
            (breach, violation), *others = rung.new.items()
            yield f"{what}: violated in {violation.steps} steps"
            yield from self.trace(breach, violation)
            if others and self.arguments.full:
                for breach, violation in others:
                    yield f"{what}: violated in {violation.steps} steps"
                    yield from self.trace(breach, violation)
            if self.arguments.all_rules or rung.known:
                yield "each broken rule, in how many steps and by whom:"
                yield from summary(rung.new)
        if rung.known:
            assert base is not None
            yield f"known, also in {base.world.__name__}:"
            yield from summary({breach: v for breach, v in rung.found.items() if breach in rung.known})
        if rung.unsure:
            assert base is not None
            yield f"{base.world.__name__} was not explored to the end: it may break more of these"

    def trace(self, breach: tuple[str, str], violation: Violation) -> Iterator[str]:
        """The table of a counterexample."""
        from guestmem.checker import lasso
        from guestmem.checker.trace import ended, table

        rows, mine, full = self.traces[breach], self.scenario.file, self.arguments.full
        if violation.waits:
            yield from lasso.lines(rows, len(violation.cycle), violation.waits, mine=mine, full=full)
        else:
            yield from table(rows, mine=mine, full=full)
        yield from ended(rows, violation.rule, violation.detail)

    def sentence(self) -> str:
        """What holds for what."""
        own = self.label(self.own)
        own = own if own == "its own sizes" else f"its own ({own})"
        finished = [rung for rung in self.rungs if rung.verdict == "holds"]
        parts = [f"holds at {len(finished)} of {len(self.rungs)} sizes, {own} among them"]
        if self.verdict == "incomplete":
            parts = [f"incomplete: {own} not finished: give it more time with --within"]
        parts += [f"{self.label(r)} up to {r.outcome.depth} steps" for r in self.rungs if r.verdict == "incomplete" and r.outcome]
        later = [self.label(rung) for rung in self.rungs if rung.verdict == "not begun"]
        if later:
            parts.append(f"not begun: {', '.join(later)}")
        return "; ".join(parts)

    def as_json(self, rung: Rung, worst: tuple[tuple[str, str], Violation] | None) -> dict[str, Any]:
        """The outcome of a check as one object."""
        from guestmem.checker.trace import as_json

        outcome, violation = rung.outcome, worst[1] if worst else None
        assert outcome is not None
        return {
            "schema": 1,
            "scenario": self.scenario.name,
            "options": plain(rung.options),
            "verdict": self.verdict,
            "rule": violation.rule if violation else None,
            "detail": violation.detail if violation else None,
            "steps": violation.steps if violation else None,
            "states": outcome.states,
            "transitions": outcome.transitions,
            "depth": outcome.depth,
            "missed": outcome.missed,
            "why": outcome.why,
            "trace": saved(self.scenario.name, rung.options, violation)["slices"] if violation else None,
            "rows": [as_json(row) for row in self.traces[worst[0]]] if worst else None,
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


def summary(found: Mapping[tuple[str, str], Violation]) -> Iterator[str]:
    """A line for each rule and who breaks it."""
    for (rule, who), violation in found.items():
        yield f"{violation.steps:>6}  {who or 'all threads':<12} {rule}"
