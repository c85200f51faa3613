# SPDX-License-Identifier: Apache-2.0
"""``guestmem explain``: a saved counterexample, replayed as ordinary Python."""

from __future__ import annotations

import argparse
import bdb
import json
from typing import Any

from guestmem.cli.scenario import text
from guestmem.cli.terminal import VIOLATED, Usage, arch, protection


def add(commands: Any) -> None:
    """Add the command."""
    explain = commands.add_parser("explain", help="print a saved counterexample, re-run in plain Python")
    explain.add_argument("file", metavar="FILE")
    explain.add_argument(
        "--pdb", type=int, metavar="STEP", nargs="?", const=0, help="enter the debugger at a step (default: the last)"
    )
    explain.add_argument("--full", action="store_true", help="all steps, also those that every run begins with")
    explain.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay a saved counterexample."""
    from guestmem.checker import lasso
    from guestmem.checker.trace import Unreplayed, counterexample, ended, table
    from guestmem.model.schedule import Slice
    from guestmem.scenarios.catalogue import find

    try:
        with open(arguments.file, encoding="utf-8") as stream:
            trace = json.load(stream)
        cycle = len(trace.get("cycle", ()))
        slices = [Slice(thread, tuple(choices), stepped) for thread, choices, stepped in trace["slices"] + trace.get("cycle", [])]
        waits = [lasso.Waiting.from_json(wait) for wait in trace.get("waits", ())]
        name, given, rule, detail = trace["scenario"], dict(trace["options"]), trace["rule"], trace["detail"]
    except OSError as error:
        raise Usage(f"{arguments.file}: {error.strerror}: name a file written by check --save-trace") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Usage(f"{arguments.file}: no saved trace: name a file written by check --save-trace") from error
    if "protection" in given:
        given["protection"] = protection(given["protection"])
    if "arch" in given:
        given["arch"] = arch(given["arch"])
    scenario = find(name)
    debug_at = None if arguments.pdb is None else arguments.pdb or len(slices)
    if debug_at is not None and not 1 <= debug_at <= len(slices):
        raise Usage(f"{arguments.file}: there is no step {debug_at}: it has {len(slices)}")
    try:
        rows = lasso.closed(counterexample(scenario.build(**given), rule, slices, debug_at), cycle)
    except bdb.BdbQuit:
        print(f"left the debugger at step {debug_at} of {len(slices)}")
        return VIOLATED
    except Unreplayed as error:
        raise Usage(f"{arguments.file}: replayed, {error}: the model has changed since it was saved") from error
    print(f"{name} {text(given)}".rstrip())
    mine, full = scenario.file, arguments.full
    for line in lasso.lines(rows, cycle, waits, mine=mine, full=full) if waits else table(rows, mine=mine, full=full):
        print(line)
    for line in ended(rows, rule, detail):
        print(line)
    return VIOLATED
