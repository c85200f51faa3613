# SPDX-License-Identifier: Apache-2.0
"""The commands of the contract: ``conform`` and ``fuzz``.  Nothing heavy is imported before one runs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

__all__ = ["add"]


def add(commands: Any) -> None:
    """Add the commands to those of ``guestmem``."""
    conform = commands.add_parser(
        "conform",
        help="hold the simulated host and this kernel against the contract",
        description="Exit codes are those of kselftest: 0 pass, 1 fail, 4 skipped; 2 is a mistake of usage.",
    )
    conform.add_argument("group", metavar="GROUP", nargs="*", help="groups of rows (default: all; an unknown one lists them)")
    conform.add_argument("--backend", choices=("kernel", "model", "both"), default="both", help="which host (default: both)")
    form = conform.add_mutually_exclusive_group()
    form.add_argument("--ktap", action="store_true", help="print KTAP (the default on a pipe)")
    form.add_argument("--json", action="store_true")
    conform.set_defaults(run=run_conform)


def run_conform(arguments: argparse.Namespace) -> int:
    """Run the contract."""
    from guestmem.cli import Usage, progress
    from guestmem.contract import cgroup, conform
    from guestmem.contract.rows import GROUPS

    for group in arguments.group:
        if group not in GROUPS:
            raise Usage(f"{group!r} is no group: use some of {', '.join(GROUPS)}")
    for name in cgroup.remove_stale():
        print(f"guestmem: removed {name}, left by a run that was killed", file=sys.stderr)
    backends = conform.BACKENDS if arguments.backend == "both" else (arguments.backend,)
    with progress("conform") as note:
        outcomes = conform.run(backends, arguments.group, note)
    if arguments.json:
        print(conform.as_json(outcomes))
    else:
        form = conform.ktap if arguments.ktap or not sys.stdout.isatty() else conform.summary
        for line in form(outcomes):
            print(line)
    return conform.exit_code(outcomes)
