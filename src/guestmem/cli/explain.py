# SPDX-License-Identifier: Apache-2.0
"""``guestmem explain``: a saved counterexample, replayed as ordinary Python."""

from __future__ import annotations

import argparse
from typing import Any

from guestmem.cli.terminal import VIOLATED


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
    from guestmem.report.explain import Left, explain

    try:
        found = explain(arguments.file, debug_at=arguments.pdb)
    except Left as left:
        print(left)
        return VIOLATED
    for line in found.lines(full=arguments.full):
        print(line)
    return VIOLATED
