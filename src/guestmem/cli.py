# SPDX-License-Identifier: Apache-2.0
"""The command line: arguments in, plain lines out.

Exit codes: 0 all rules hold, 1 one is violated, 2 usage, 3 incomplete.  Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import re
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import guestmem
from guestmem.contract import commands as contract
from guestmem.linux import commands as linux

if TYPE_CHECKING:
    from guestmem.checker.explore import Outcome, Violation
    from guestmem.model.world import World
    from guestmem.scenarios.catalogue import Scenario

HOLDS, VIOLATED, USAGE, INCOMPLETE = range(4)
EXIT = {"holds": HOLDS, "violated": VIOLATED, "incomplete": INCOMPLETE}
HYPERVISORS = ("gunyah", "pkvm", "kvm")
SIZES = {"K": 10, "M": 20, "G": 30, "T": 40}


class Usage(Exception):
    """A mistake of the user's, as one line."""


class Unsaved(Exception):
    """A file could not be written, as one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise Usage(f"{message}: see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = _Parser(prog="guestmem", description="guest_memfd as a library: run it, check it, see what it costs")
    top.add_argument("--version", action="version", version=f"guestmem {guestmem.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    compare = commands.add_parser("compare", help="which protection is safe on which hypervisor, and what it costs")
    compare.add_argument("--hypervisor", nargs="+", metavar="H", default=list(HYPERVISORS), help="scenarios to compare")
    compare.add_argument("--protection", nargs="+", metavar="P", help="none, unmap, fixup, unmap+fixup (default: all)")
    compare.add_argument("--arch", nargs="+", metavar="A", default=["arm64"], help="arm64 (default), arm64-blocks, x86 ...")
    compare.add_argument("--accessor", nargs="+", metavar="X", default=[], help="add to the cast: crash-dump, migration, gup")
    compare.add_argument("--speculation", action="store_true", help="secrets must be out of reach of transient execution too")
    compare.add_argument("--trace", metavar="FILE", help="price the operations in this text of trace events")
    compare.add_argument("--json", action="store_true")
    compare.set_defaults(run=run_compare)

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
    check.add_argument("--save-trace", metavar="FILE", help="write the counterexample, for `guestmem explain`")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=run_check)

    explain = commands.add_parser("explain", help="print a saved counterexample, re-run in plain Python")
    explain.add_argument("file", metavar="FILE")
    explain.add_argument(
        "--pdb", type=int, metavar="STEP", nargs="?", const=0, help="enter the debugger at a step (default: the last)"
    )
    explain.set_defaults(run=run_explain)

    listing = commands.add_parser("list", help="the scenarios, and what is expected of them")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=run_list)
    contract.add(commands)
    linux.add(commands)
    return top


def size(text: str) -> int:
    """Bytes in a size such as 512M."""
    shift = SIZES.get(text[-1:].upper(), 0)
    number = text[:-1] if shift else text
    if not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 512M or 4G")
    return int(number) << shift


def count(text: str) -> int:
    """A number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def named(name: str, what: str, known: Collection[str], use: str = "one of") -> str:
    """A name that is known; another is the user's mistake."""
    if name not in known:
        raise Usage(f"{name!r} is no {what}: use {use} {', '.join(known)}")
    return name


def protection(name: str) -> Any:
    """The protection with a name."""
    from guestmem.scenarios.catalogue import PROTECTIONS

    return PROTECTIONS[named(name, "protection", PROTECTIONS)]


def arch(name: str) -> Any:
    """The architecture with a name."""
    from guestmem.scenarios.catalogue import ARCHES

    return ARCHES[named(name, "architecture", ARCHES)]


def may_write(path: str, option: str) -> None:
    """Before a long run: whether what comes of it can be written where an option says."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.basename(path):
        raise Usage(f"{path!r} is a directory: name a file in it with {option}")
    if not os.path.isdir(directory):
        raise Usage(f"{path}: there is no directory {directory}: make it, or choose another place with {option}")
    scratch = half_written(path)
    if scratch is not None:
        try:
            os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            os.unlink(scratch)
        except OSError as error:
            raise Usage(f"{path}: cannot be written: {error.strerror}: choose another place with {option}") from error


def half_written(path: str) -> str | None:
    """The name that a file has until it is whole; None for a device or a pipe, which is written to as it is."""
    return None if os.path.exists(path) and not os.path.isfile(path) else f"{path}.{os.getpid()}.tmp"


def write_whole(path: str, text: str, option: str = "--save-trace") -> None:
    """Write a file, which an option names, completely or not at all; a device or a pipe is written to as it is.

    What a run that was killed while it wrote the same file has left is removed, and named.
    """
    scratch = half_written(path)
    try:
        for left in [] if scratch is None else abandoned(path):
            os.unlink(left)
            print(f"guestmem: removed {left}, left by a run that was killed", file=sys.stderr)
        with open(scratch or path, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            if scratch is not None:
                os.fsync(stream.fileno())
        if scratch is not None:
            os.replace(scratch, path)
    except OSError as error:
        if scratch is not None:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
        raise Unsaved(f"{path}: not written: {error.strerror}: choose another place with {option}") from error


def abandoned(path: str) -> list[str]:
    """Half-written copies of a file whose writers are gone."""
    from guestmem.linux.calls import alive

    directory, name = os.path.split(path)
    half = re.compile(re.escape(name) + r"\.(\d+)\.tmp")
    found = ((half.fullmatch(other), other) for other in os.listdir(directory or "."))
    return [os.path.join(directory, other) for match, other in found if match and not alive(int(match[1]))]


# ---- compare


def run_compare(arguments: argparse.Namespace) -> int:
    """Fill the table of protections and hypervisors."""
    from guestmem import compare
    from guestmem.linux import ftrace
    from guestmem.scenarios.catalogue import ARCHES, PROTECTIONS
    from guestmem.scenarios.workload import boot, from_trace

    comparable = compare.comparable()
    hypervisors = [named(h, "hypervisor", comparable, "some of") for h in arguments.hypervisor]
    arches = [named(a, "architecture", ARCHES) for a in arguments.arch]
    protections = [named(p, "protection", PROTECTIONS) for p in arguments.protection or PROTECTIONS]
    accessors = tuple(named(x, "accessor", compare.ACCESSORS, "some of") for x in arguments.accessor)
    workload = boot()
    if arguments.trace:
        try:
            workload = from_trace(arguments.trace, ftrace.lines(arguments.trace))
        except OSError as error:
            raise Usage(f"{arguments.trace}: {error.strerror}: name a text of ftrace") from error
        except ftrace.NoText as error:
            raise Usage(str(error)) from error
    extra = arguments.speculation, accessors
    wanted = [compare.Key(h, p, a, *extra) for h in hypervisors for a in arches for p in protections]
    with progress(f"{len(wanted)} cells") as note:
        cells = compare.cells(wanted, workload, note)
    if arguments.json:
        print(json.dumps({"schema": 1, "workload": workload.text, "cells": [cell.as_json() for cell in cells]}, indent=1))
    else:
        for line in compare.table(cells, workload):
            print(line)
    verdicts = {cell.verdict for cell in cells}
    return next((EXIT[v] for v in ("incomplete", "violated") if v in verdicts), HOLDS)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Any]:
    """A line on a terminal that says how far we are: call with a text; nothing elsewhere."""
    terminal = sys.stderr.isatty()

    def note(text: str) -> None:
        if terminal:
            sys.stderr.write(f"\r\x1b[K{what}: {text}")
            sys.stderr.flush()

    try:
        yield note
    finally:
        if terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


# ---- check


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sizes and options given for a world."""
    wanted = ("pages", "frames", "cpus", "vms", "speculation")
    given = {n: getattr(arguments, n) for n in wanted if getattr(arguments, n) is not None}
    if arguments.arch is not None:
        given["arch"] = arch(arguments.arch)
    if arguments.protection is not None:
        given["protection"] = protection(arguments.protection)
    if "pages" in given and "frames" not in given:
        given["frames"] = given["pages"] + 1
    return given


def build(scenario: Scenario, given: dict[str, Any]) -> World:
    """The world; sizes it does not know, and errors of its own, are the user's mistake."""
    from guestmem.model.errors import Verdict

    world = scenario.world
    if "frames" not in getattr(world, "geometry", {}):
        given.pop("frames", None)
    try:
        return scenario.build(**given)
    except (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError, Verdict) as error:
        raise Usage(f"{scenario.name}: {type(error).__name__} while it is built: {error}: correct its setup()") from error


def run_check(arguments: argparse.Namespace) -> int:
    """Explore a scenario; print the shortest counterexample."""
    from guestmem.checker.explore import Model
    from guestmem.scenarios.catalogue import find

    scenario = find(arguments.scenario)
    given = options(arguments)
    if arguments.save_trace:
        may_write(arguments.save_trace, "--save-trace")
    model = Model(build(scenario, given))
    began = time.monotonic()
    with progress(arguments.scenario) as note:
        outcome = model.explore(
            max_states=arguments.max_states,
            memory=arguments.memory,
            progress=lambda states, depth, seconds: note(f"{states} states, {depth} steps deep, {seconds:.0f} s"),
        )
    took = time.monotonic() - began
    violation = min(outcome.violations, key=lambda v: v.steps) if outcome.violations else None
    if arguments.json:
        print(json.dumps(check_json(arguments.scenario, outcome, violation, given), indent=1))
    else:
        print_outcome(scenario, given, outcome, violation, took)
    if arguments.save_trace and violation is not None:
        write_whole(arguments.save_trace, json.dumps(saved(arguments.scenario, given, violation), indent=1) + "\n")
    return EXIT[outcome.verdict]


def plain(given: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON has them."""
    from guestmem.scenarios.catalogue import ARCHES, PROTECTIONS

    names = {value: name for table in (PROTECTIONS, ARCHES) for name, value in table.items()}
    return {key: names.get(value, value) for key, value in given.items()}


def saved(name: str, given: dict[str, Any], violation: Violation) -> dict[str, Any]:
    """A counterexample as it is written to a file."""
    slices = [[s.thread, list(s.choices), s.stepped] for s in violation.slices]
    return {
        "schema": 1,
        "scenario": name,
        "options": plain(given),
        "rule": violation.rule,
        "detail": violation.detail,
        "slices": slices,
    }


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


# ---- explain, list


def run_explain(arguments: argparse.Namespace) -> int:
    """Replay a saved counterexample."""
    from guestmem.checker.trace import replay, table
    from guestmem.model.errors import ALWAYS_A_STEP, NO_DEADLOCK
    from guestmem.model.schedule import Slice
    from guestmem.scenarios.catalogue import find

    try:
        with open(arguments.file, encoding="utf-8") as stream:
            trace = json.load(stream)
        slices = [Slice(thread, tuple(choices), stepped) for thread, choices, stepped in trace["slices"]]
        name, given, rule, detail = trace["scenario"], dict(trace["options"]), trace["rule"], trace["detail"]
    except OSError as error:
        raise Usage(f"{arguments.file}: {error.strerror}: name a file written by check --save-trace") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Usage(f"{arguments.file}: no saved trace: name a file written by check --save-trace") from error
    if "protection" in given:
        given["protection"] = protection(given["protection"])
    if "arch" in given:
        given["arch"] = arch(given["arch"])
    debug_at = None if arguments.pdb is None else arguments.pdb or len(slices)
    rows = list(replay(build(find(name), given), slices, debug_at)) if slices else []
    print(" ".join([name, *(f"{k}={v}" for k, v in plain(given).items())]))
    for line in table(rows):
        print(line)
    broken = rows[-1].broken if rows else ""
    if broken:
        if rule not in broken:
            raise Usage(f"{arguments.file}: replayed, it breaks another rule than the saved one ({rule}): the model has changed")
    elif rule in (NO_DEADLOCK, ALWAYS_A_STEP) or not slices:
        print(f"      broken: {rule}: {detail}")
    else:
        raise Usage(f"{arguments.file}: replayed, it breaks no rule: the model has changed since it was saved")
    return VIOLATED


def run_list(arguments: argparse.Namespace) -> int:
    """Print the scenarios."""
    from guestmem.scenarios.catalogue import SCENARIOS

    if arguments.json:
        rows = [{"name": s.name, "text": s.text, "expected": dict(s.expected)} for s in SCENARIOS.values()]
        print(json.dumps({"schema": 1, "scenarios": rows}, indent=1))
        return HOLDS
    for scenario in SCENARIOS.values():
        print(f"{scenario.name:<24}{scenario.text}")
        for name, rule in scenario.expected.items():
            print(f"{'':<26}{name:<12} {'violated: ' + rule if rule else 'holds'}")
    return HOLDS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    from guestmem.model.errors import Refused

    try:
        arguments = parser().parse_args(argv)
        if sys.stdout is None:
            raise Unsaved("standard output is closed: give it a place, as >/dev/null")
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except (Usage, Refused) as error:
        print(f"guestmem: {error}", file=sys.stderr)
        return USAGE
    except Unsaved as error:
        print(f"guestmem: {error}", file=sys.stderr)
        return INCOMPLETE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return INCOMPLETE
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"guestmem: standard output: {error.strerror}: give it a place that has room", file=sys.stderr)
        return INCOMPLETE
    except KeyboardInterrupt:
        print("guestmem: interrupted", file=sys.stderr)
        return INCOMPLETE
    except Exception as error:
        from guestmem.checker.compile import NoCompiler

        if not isinstance(error, NoCompiler):
            raise
        print(f"guestmem: {error}", file=sys.stderr)
        return USAGE
