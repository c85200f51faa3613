# SPDX-License-Identifier: Apache-2.0
"""``guestmem check``: explore everything that can happen in a scenario."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from guestmem.cli.files import may_write, write_whole
from guestmem.cli.scenario import build, options, plain, saved
from guestmem.cli.silence import Watch, silence_json, silence_lines
from guestmem.cli.terminal import EXIT, count, progress, size

if TYPE_CHECKING:
    from guestmem.checker.explore import Outcome, Violation
    from guestmem.scenarios.catalogue import Scenario


def add(commands: Any) -> None:
    """Add the command."""
    check = commands.add_parser("check", help="explore everything that can happen in a scenario")
    check.add_argument("scenario", metavar="SCENARIO", help="a name from `guestmem list`, or file.py:name")
    check.add_argument("--protection", metavar="P", help="none, unmap, fixup, unmap+fixup (default: none)")
    check.add_argument("--arch", metavar="A", help="arm64, arm64-blocks, arm64-bbml2, arm64-bbm, x86 (default: arm64)")
    check.add_argument("--speculation", action="store_true", default=None, help="as in compare")
    check.add_argument("--pages", type=count, metavar="N", help="pages of the file")
    check.add_argument("--frames", type=count, metavar="N", help="page frames of the machine")
    check.add_argument("--cpus", type=count, metavar="N", help="CPUs of the host")
    check.add_argument("--vms", type=count, metavar="N", help="guests")
    check.add_argument("--max-states", type=count, metavar="N", help="stop after this many states (exit 3)")
    check.add_argument("--memory", type=size, metavar="SIZE", help="stop at this much memory, as 512M or 4G (exit 3)")
    check.add_argument("--coverage", action="store_true", help="say what was never executed, of guestmem's own files too")
    check.add_argument("--save-trace", metavar="FILE", help="write the counterexample, for `guestmem explain`")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explore a scenario; print the shortest counterexample."""
    from guestmem.checker.explore import Model
    from guestmem.scenarios.catalogue import find

    scenario = find(arguments.scenario)
    given = options(arguments)
    if arguments.save_trace:
        may_write(arguments.save_trace, "--save-trace")
    watch = Watch(scenario, given, arguments.coverage)
    model = Model(build(scenario, given), watch.watches)
    began = time.monotonic()
    with progress(arguments.scenario) as note:
        outcome = model.explore(
            max_states=arguments.max_states,
            memory=arguments.memory,
            progress=lambda states, depth, seconds: note(f"{states} states, {depth} steps deep, {seconds:.0f} s"),
        )
    took = time.monotonic() - began
    violation = min(outcome.violations, key=lambda v: v.steps) if outcome.violations else None
    watch.explored(model)
    silence = watch.silence(model, given)
    if arguments.json:
        found = check_json(arguments.scenario, outcome, violation, given)
        print(json.dumps({**found, "coverage": silence_json(silence)}, indent=1))
    else:
        print_outcome(scenario, given, outcome, violation, took)
        code = arguments.coverage or not outcome.violations
        for line in silence_lines(silence, type(model.world).__name__, code=code):
            print(line)
    if arguments.save_trace and violation is not None:
        write_whole(arguments.save_trace, json.dumps(saved(arguments.scenario, given, violation), indent=1) + "\n")
    return EXIT[outcome.verdict]


def check_json(name: str, outcome: Outcome, violation: Violation | None, given: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a check as one object."""
    return {
        "schema": 1,
        "scenario": name,
        "options": plain(given),
        "verdict": outcome.verdict,
        "rule": violation.rule if violation else None,
        "detail": violation.detail if violation else None,
        "steps": violation.steps if violation else None,
        "states": outcome.states,
        "transitions": outcome.transitions,
        "depth": outcome.depth,
        "missed": outcome.missed,
        "why": outcome.why,
        "trace": saved(name, given, violation)["slices"] if violation else None,
    }


def print_outcome(
    scenario: Scenario, given: dict[str, Any], outcome: Outcome, violation: Violation | None, seconds: float
) -> None:
    """The verdict, and the way to it."""
    from guestmem.checker.trace import replay, table

    what = " ".join([scenario.name, *(f"{k}={v}" for k, v in plain(given).items())])
    if violation is not None:
        print(f"{what}: violated in {violation.steps} steps")
        # What goes wrong before the first step goes wrong when the threads are started again, or never ends.
        rows = list(replay(build(scenario, given), violation.slices)) if violation.slices else []
        for line in table(rows):
            print(line)
        if not rows or not rows[-1].broken:
            print(f"      broken: {violation.rule}" + (f": {violation.detail}" if violation.detail else ""))
    elif outcome.verdict == "violated":
        print(f"{what}: no rule is broken, but nothing shows: {'; '.join(outcome.missed)}")
    elif outcome.verdict == "incomplete":
        print(f"{what}: incomplete: {outcome.why}; every state up to {outcome.depth} steps was covered")
    else:
        print(f"{what}: holds")
    print(f"{outcome.states} states, {outcome.transitions} transitions, {outcome.depth} steps deep, {seconds:.1f} s")
