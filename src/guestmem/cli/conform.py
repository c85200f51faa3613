# SPDX-License-Identifier: Apache-2.0
"""``guestmem conform``: the contract, on the simulated host and on this kernel."""

from __future__ import annotations

import argparse
import collections
import os
import sys
from collections.abc import Iterator
from typing import Any

from guestmem.cli.files import may_write, write_whole
from guestmem.cli.terminal import INCOMPLETE, Usage, progress


def add(commands: Any) -> None:
    """Add the command."""
    conform = commands.add_parser(
        "conform",
        help="hold the simulated host and this kernel against the contract",
        description="Exit codes are those of kselftest: 0 pass, 1 fail, 4 skipped; 2 is a mistake of usage, 3 interrupted.",
    )
    conform.add_argument("group", metavar="GROUP", nargs="*", help="groups of rows (default: all; an unknown one lists them)")
    conform.add_argument("--backend", choices=("kernel", "model", "both"), default="both", help="which host (default: both)")
    conform.add_argument("--c", metavar="DIR", help="write each known deviation that this kernel shows as a C file into DIR")
    form = conform.add_mutually_exclusive_group()
    form.add_argument("--ktap", action="store_true", help="print KTAP (the default on a pipe)")
    form.add_argument("--json", action="store_true")
    conform.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the contract."""
    from guestmem.contract import conform
    from guestmem.contract.kernel import cgroup
    from guestmem.contract.rows import GROUPS

    for group in arguments.group:
        if group not in GROUPS:
            raise Usage(f"{group!r} is no group: use some of {', '.join(GROUPS)}")
    if arguments.c:
        may_write(os.path.join(arguments.c, "x.c"), "--c")
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
    if arguments.c:
        as_c(arguments.c, {o.name for o in outcomes if (o.backend, o.result) == ("kernel", conform.XFAIL)})
    if stopped:
        print(f"guestmem: interrupted after {len(outcomes)} of {planned} rows", file=sys.stderr)
        return INCOMPLETE
    return conform.exit_code(outcomes)


def as_c(directory: str, rows: set[str]) -> None:
    """Write the deviations of rows as C files, named after their rows, and say which they are."""
    from guestmem.contract.c.reports import name_of, of_deviation
    from guestmem.contract.c.write import NoForm, source
    from guestmem.contract.deviations import DEVIATIONS

    met = [deviation for deviation in DEVIATIONS if any(name.startswith(deviation.rows) for name in rows)]
    for deviation in met:
        name = name_of(deviation)
        try:
            write_whole(os.path.join(directory, name), source(of_deviation(deviation), name), "--c")
            print(f"guestmem: {os.path.join(directory, name)}: {deviation.explanation}", file=sys.stderr)
        except NoForm as error:
            print(f"guestmem: {os.path.join(directory, name)}: not written: {error}", file=sys.stderr)
    if not met:
        print(f"guestmem: no known deviation was met: nothing written into {directory}", file=sys.stderr)
