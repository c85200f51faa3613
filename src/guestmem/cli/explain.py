# SPDX-License-Identifier: Apache-2.0
"""``guestmem explain``: a saved counterexample, replayed as ordinary Python."""

from __future__ import annotations

import argparse
import json
from typing import Any

from guestmem.cli.scenario import build, plain
from guestmem.cli.terminal import VIOLATED, Usage, arch, protection


def add(commands: Any) -> None:
    """Add the command."""
    explain = commands.add_parser("explain", help="print a saved counterexample, re-run in plain Python")
    explain.add_argument("file", metavar="FILE")
    explain.add_argument(
        "--pdb", type=int, metavar="STEP", nargs="?", const=0, help="enter the debugger at a step (default: the last)"
    )
    explain.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
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
