# SPDX-License-Identifier: Apache-2.0
"""The commands of the contract: ``conform`` and ``fuzz``.  Nothing heavy is imported before one runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from typing import Any

__all__ = ["add"]

INCOMPLETE, SKIPPED = 3, 4


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

    fuzz = commands.add_parser(
        "fuzz",
        help="run random programs on the simulated host and on this kernel, and compare",
        description="Exit codes: 0 no unexplained divergence, 1 there is one, 2 usage, 3 interrupted, 4 no kernel.",
    )
    fuzz.add_argument("--seconds", type=positive, metavar="N", default=60.0, help="how long (default: 60)")
    fuzz.add_argument("--programs", type=positive, metavar="N", help="stop after so many programs")
    fuzz.add_argument("--seed", type=int, metavar="S", default=0, help="the programs of a seed are always the same (default: 0)")
    fuzz.add_argument("-o", "--output", metavar="DIR", default=".", help="where divergences are saved as scripts")
    fuzz.add_argument("--json", action="store_true")
    fuzz.set_defaults(run=run_fuzz)


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def run_conform(arguments: argparse.Namespace) -> int:
    """Run the contract."""
    from guestmem.cli import Usage, progress
    from guestmem.contract import conform
    from guestmem.contract.kernel import cgroup
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


def run_fuzz(arguments: argparse.Namespace) -> int:
    """Compare random programs."""
    from guestmem.cli import Usage, progress, write_whole
    from guestmem.contract.conform import no_kernel
    from guestmem.contract.fuzz import Fuzzer
    from guestmem.contract.program import script

    if not os.path.isdir(arguments.output):
        raise Usage(f"{arguments.output}: no such directory: choose another place with -o")
    why = no_kernel()
    if why:
        print(f"guestmem: skipped: {why}", file=sys.stderr)
        return SKIPPED
    fuzzer = Fuzzer(arguments.seed)
    saved: list[str] = []
    stopped = True
    with progress(f"fuzz, seed {arguments.seed}") as note, contextlib.suppress(KeyboardInterrupt):
        for divergence in fuzzer.run(arguments.seconds, arguments.programs and int(arguments.programs), note):
            name = f"guestmem-divergence-{arguments.seed}-{len(saved)}.py"
            path = os.path.join(arguments.output, name)
            write_whole(path, script(divergence.program, divergence.title(), name), "-o")
            saved.append(path)
        stopped = False
    if arguments.json:
        print(json.dumps(fuzzer.as_json(saved), indent=1))
    else:
        for line in fuzzer.report(saved):
            print(line)
    if fuzzer.divergences:
        return 1
    return INCOMPLETE if stopped else 0
