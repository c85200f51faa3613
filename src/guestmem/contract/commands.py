# SPDX-License-Identifier: Apache-2.0
"""The commands of the contract: ``conform`` and ``fuzz``.  Nothing heavy is imported before one runs."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["add"]

INCOMPLETE, SKIPPED = 3, 4


def add(commands: Any) -> None:
    """Add the commands to those of ``guestmem``."""
    conform = commands.add_parser(
        "conform",
        help="hold the simulated host and this kernel against the contract",
        description="Exit codes are those of kselftest: 0 pass, 1 fail, 4 skipped; 2 is a mistake of usage, 3 interrupted.",
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
        description="Exit codes: 0 no unexplained divergence, 1 there is one, 2 usage, 3 stopped early, 4 no kernel.",
    )
    fuzz.add_argument("--seconds", type=positive, metavar="N", default=60.0, help="how long (default: 60)")
    fuzz.add_argument("--programs", type=_count, metavar="N", help="stop after so many programs")
    fuzz.add_argument("--seed", type=int, metavar="S", default=0, help="the programs of a seed are always the same (default: 0)")
    fuzz.add_argument("--first", type=int, metavar="N", default=0, help="begin with program N, where another run stopped")
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


def _count(text: str) -> int:
    from guestmem.cli import count

    return count(text)


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
    planned, coming = conform.run(backends, arguments.group)
    outcomes: list[conform.Outcome] = []
    streaming = arguments.ktap or not (arguments.json or sys.stdout.isatty())
    try:
        with progress("conform") as note:

            def noted() -> Iterator[conform.Outcome]:
                for outcome in coming:
                    outcomes.append(outcome)
                    note(f"{outcome.backend} {outcome.name}")
                    yield outcome

            if streaming:
                for line in conform.ktap(planned, noted()):
                    print(line, flush=True)
            else:
                collections.deque(noted(), maxlen=0)
        stopped = False
    except KeyboardInterrupt:
        stopped = True
    if arguments.json:
        print(conform.as_json(outcomes))
    elif not streaming:
        for line in conform.summary(outcomes):
            print(line)
    if stopped:
        print(f"guestmem: interrupted after {len(outcomes)} of {planned} rows", file=sys.stderr)
        return INCOMPLETE
    return conform.exit_code(outcomes)


def run_fuzz(arguments: argparse.Namespace) -> int:
    """Compare random programs; a signal that would end it has it stop and say what it found."""
    from guestmem.cli import Unsaved, may_write, progress, write_whole
    from guestmem.contract.conform import no_kernel
    from guestmem.contract.fuzz import Fuzzer
    from guestmem.contract.program import script

    def path(number: int) -> str:
        return os.path.join(arguments.output, f"guestmem-divergence-{arguments.seed}-{arguments.first}-{number}.py")

    may_write(path(0), "-o")
    why = no_kernel()
    fuzzer = None if why else Fuzzer(arguments.seed, first=arguments.first)
    if fuzzer is not None:
        why = fuzzer.unusable
    if fuzzer is None or why:
        print(f"guestmem: skipped: {why}", file=sys.stderr)
        return SKIPPED
    saved: dict[int, str] = {}
    unsaved: Unsaved | None = None
    with progress(f"fuzz, seed {arguments.seed}") as note, told_to_stop(fuzzer.stop):
        for number, found in fuzzer.run(arguments.seconds, arguments.programs, note):
            try:
                write_whole(path(number), script(found.program, found.title(), os.path.basename(path(number))), "-o")
                saved[number] = path(number)
            except Unsaved as error:
                unsaved = error
    if arguments.json:
        print(json.dumps(fuzzer.as_json(saved), indent=1))
    else:
        for line in fuzzer.report(saved):
            print(line)
    if unsaved is not None:
        raise unsaved
    if fuzzer.divergences:
        return 1
    return INCOMPLETE if fuzzer.stopped or not fuzzer.operations else 0


@contextlib.contextmanager
def told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function when a signal would end this process; a second one ends it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def handler(number: int, frame: object) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_DFL)
        stop()

    for number, was in before.items():
        if was is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)
