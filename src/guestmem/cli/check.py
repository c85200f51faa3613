# SPDX-License-Identifier: Apache-2.0
"""``guestmem check``: explore everything that can happen in a scenario."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from guestmem.cli.files import may_write, write_whole
from guestmem.cli.scenario import one_option, one_size, options, sizes
from guestmem.cli.terminal import EXIT, HOLDS, Defect, count, duration, progress, size

if TYPE_CHECKING:
    from guestmem.scenarios.catalogue import Scenario

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
    check.add_argument(
        "--option",
        type=one_option,
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any option of the world",
    )
    check.add_argument("--all-rules", action="store_true", help="go on past what is broken: every rule, by whom, how soon")
    check.add_argument("--max-states", type=count, metavar="N", help="stop after this many states (exit 3)")
    check.add_argument("--memory", type=size, metavar="SIZE", help="stop at this much memory, as 512M or 4G (exit 3)")
    check.add_argument("--full", action="store_true", help="all steps of a counterexample; with --all-rules, of each")
    check.add_argument("--coverage", action="store_true", help="say what was never executed, of guestmem's own files too")
    check.add_argument("--show", choices=("tree", "ir", "c"), help="print what the world is translated to, and explore nothing")
    check.add_argument("--save-trace", metavar="FILE", help="write the counterexample, for `guestmem explain`")
    check.add_argument("--save-test", metavar="FILE", help="write a test for pytest that fails as long as this happens")
    check.add_argument("--syz", metavar="FILE", help="write the counterexample as system calls, a program for syzkaller")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explore a scenario; print the shortest counterexample."""
    from guestmem.report import check
    from guestmem.report.names import scenario as named

    scenario = named(arguments.scenario)
    given, sized = options(scenario, arguments), sizes(scenario, arguments)
    if arguments.show:
        return show(scenario, {**sized, **given}, arguments.show)
    if arguments.save_trace:
        may_write(arguments.save_trace, "--save-trace")
    if arguments.save_test:
        may_write(arguments.save_test, "--save-test")
    if arguments.syz:
        may_write(arguments.syz, "--syz")
    report = check.Check(
        scenario,
        given,
        sized,
        within=arguments.within,
        max_states=arguments.max_states,
        memory=arguments.memory,
        all_rules=arguments.all_rules,
        coverage=arguments.coverage,
        full=arguments.full,
    )
    try:
        with progress(arguments.scenario) as note:
            for line in report.explore(note):
                if not arguments.json:
                    print(line, flush=True)
    except check.Defect as defect:
        file = arguments.save_trace or f"guestmem-{os.path.basename(scenario.name).replace('.py:', '-')}.json"
        save(file, defect.saved)
        raise Defect(f"{defect} with {file}") from defect
    if arguments.json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        for line in report.conclusion():
            print(line)
    if arguments.save_trace and report.rule:
        save(arguments.save_trace, report.saved())
    if arguments.save_test and report.rule:
        write_whole(arguments.save_test, as_test(report.saved()), "--save-test")
    if arguments.syz and report.rule:
        write_whole(arguments.syz, report.as_syz(), "--syz")
    return EXIT[report.verdict]


def show(scenario: Scenario, given: Mapping[str, Any], phase: str) -> int:
    """Print a scenario as one phase of its translation hands it on."""
    from guestmem.checker.show import ir_of, tree_of
    from guestmem.checker.translate import Translation

    translation = Translation(scenario.build(**given))
    phases = {"tree": lambda: tree_of(translation.program), "ir": lambda: ir_of(translation.bodies)}
    print(phases[phase]() if phase in phases else translation.source)
    return HOLDS


TEST = '''"""{rule}

Written by guestmem check: the schedule below breaks the rule.  The test fails as long as it does.
"""

import json

from guestmem.report.explain import still_happens

TRACE = json.loads(r"""
{trace}
""")


def test_{name}() -> None:
    assert not (way := still_happens(TRACE)), way
'''


def as_test(trace: dict[str, Any]) -> str:
    """A counterexample as a test for pytest."""
    name = "".join(letter if letter.isalnum() else "_" for letter in os.path.basename(trace["scenario"])).lower()
    return TEST.format(rule=trace["rule"].capitalize() + ".", trace=json.dumps(trace, indent=1), name=name)


def save(file: str, trace: dict[str, Any]) -> None:
    """Write a counterexample to a file."""
    write_whole(file, json.dumps(trace, indent=1) + "\n")
