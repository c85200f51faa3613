# SPDX-License-Identifier: Apache-2.0
"""``guestmem fuzz``: random programs on the simulated host and on this kernel, compared."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from typing import Any

from guestmem.cli.files import may_write, write_whole
from guestmem.cli.terminal import INCOMPLETE, SKIPPED, Unsaved, Usage, count, positive, progress, told_to_stop


def add(commands: Any) -> None:
    """Add the command."""
    fuzz = commands.add_parser(
        "fuzz",
        help="run random programs on the simulated host and on this kernel, and compare",
        description="Exit codes: 0 no unexplained divergence, 1 there is one, 2 usage, 3 stopped early, 4 no kernel.",
    )
    fuzz.add_argument("--seconds", type=positive, metavar="N", help="how long (default: 60, with --all to the end)")
    fuzz.add_argument("--programs", type=count, metavar="N", help="stop after so many programs")
    fuzz.add_argument("--seed", type=int, metavar="S", help="the programs of a seed are always the same (default: 0)")
    fuzz.add_argument("--all", type=count, metavar="N", help="instead of random programs, all of up to N operations")
    fuzz.add_argument("--first", type=int, metavar="N", default=0, help="begin with program N, where another run stopped")
    fuzz.add_argument("-o", "--output", metavar="DIR", default=".", help="where divergences are saved as scripts")
    fuzz.add_argument("--c", metavar="FILE", help="write a divergence as one C file as well; the next as FILE-1.c, ...")
    fuzz.add_argument("--json", action="store_true")
    fuzz.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare random programs; a signal that would end it has it stop and say what it found."""
    if arguments.all is not None and arguments.seed is not None:
        raise Usage("--all and --seed: all programs need no seed: leave one of the two out")
    from guestmem.contract.c.reports import of_divergence
    from guestmem.contract.c.write import NoForm, source
    from guestmem.contract.conform import kernel_host, no_kernel
    from guestmem.contract.every import Everything
    from guestmem.contract.fuzz import Fuzzer
    from guestmem.contract.program import script
    from guestmem.contract.syscalls.simulated_host import SimulatedHost

    seed = arguments.seed or 0
    which = f"all-{arguments.all}" if arguments.all else str(seed)

    def path(number: int) -> str:
        return os.path.join(arguments.output, f"guestmem-divergence-{which}-{arguments.first}-{number}.py")

    def c_path(number: int) -> str:
        stem, end = os.path.splitext(arguments.c)
        return f"{stem}-{number}{end}" if number else arguments.c

    may_write(path(0), "-o")
    if arguments.c:
        may_write(arguments.c, "--c")
    why = no_kernel()
    fuzzer: Fuzzer | None = None
    if not why:
        if arguments.all:
            fuzzer = Everything(arguments.all, arguments.first, SimulatedHost, kernel_host)
        else:
            fuzzer = Fuzzer(seed, first=arguments.first)
        why = fuzzer.unusable
    if fuzzer is None or why:
        print(f"guestmem: skipped: {why}", file=sys.stderr)
        return SKIPPED
    saved: dict[int, str] = {}
    written: dict[int, str] = {}
    unsaved: Unsaved | None = None
    seconds = arguments.seconds or (math.inf if arguments.all else 60.0)
    with progress(f"fuzz, {fuzzer.title()}") as note, told_to_stop(fuzzer.stop):
        for number, divergence in fuzzer.run(seconds, arguments.programs, note):
            try:
                write_whole(path(number), script(divergence.program, divergence.title(), os.path.basename(path(number))), "-o")
                saved[number] = path(number)
                if arguments.c:
                    report = source(of_divergence(divergence, fuzzer.model), os.path.basename(c_path(number)))
                    write_whole(c_path(number), report, "--c")
                    written[number] = c_path(number)
            except NoForm as error:
                print(f"guestmem: {c_path(number)}: not written: {error}", file=sys.stderr)
            except Unsaved as error:
                unsaved = error
    if arguments.json:
        found = fuzzer.as_json(saved)
        for number, name in written.items():
            found["divergences"][number]["c"] = name
        print(json.dumps(found, indent=1))
    else:
        for line in fuzzer.report(saved):
            print(line)
        for number, name in written.items():
            print(f"divergence {number} as C: {name}")
    if unsaved is not None:
        raise unsaved
    if fuzzer.divergences:
        return 1
    return INCOMPLETE if fuzzer.stopped or not fuzzer.operations else 0
