# SPDX-License-Identifier: Apache-2.0
"""``guestmem compare``: the table of hypervisors and protections."""

from __future__ import annotations

import argparse
import json
from typing import Any

from guestmem.cli.scenario import SIZES
from guestmem.cli.terminal import HOLDS, INCOMPLETE, Usage, count, progress

ABOUT = """
Fills a table: rows are hypervisors, columns protections; a cell says what holds, or what breaks first and in how many steps.
Exit codes: 0 the table is complete, whatever it says; 2 usage; 3 a cell was not explored to the end.
"""


def add(commands: Any) -> None:
    """Add the command."""
    compare = commands.add_parser(
        "compare", help="which protection is safe on which hypervisor, and what it costs", description=ABOUT
    )
    compare.add_argument("hypervisor", nargs="*", metavar="HYPERVISOR", help="scenarios to compare (default: gunyah pkvm kvm)")
    compare.add_argument(
        "--protection", nargs="+", metavar="P", default=[], help="none, unmap, fixup, unmap+fixup (default: all)"
    )
    compare.add_argument("--arch", nargs="+", metavar="A", default=["arm64"], help="arm64 (default), arm64-blocks, x86 ...")
    compare.add_argument(
        "--accessor", nargs="+", metavar="X", default=[], help="add to the cast: crash-dump, migration, gup, walker"
    )
    compare.add_argument("--speculation", action="store_true", help="secrets must be out of reach of transient execution too")
    for name, what in zip(SIZES, ("pages of the file", "page frames (default: pages + 1)", "CPUs", "guests"), strict=True):
        compare.add_argument(f"--{name}", type=count, metavar="N", help=what)
    compare.add_argument("--steps", action="store_true", help="print the shortest way to what is broken, for each row")
    compare.add_argument("--details", action="store_true", help="print who breaks what, who does no harm, and what was counted")
    compare.add_argument(
        "--library",
        nargs="+",
        metavar="L",
        help="posted libraries on kvm, gunyah, pkvm-asks: ours, rfc-v1, rfc-v2, third, direct-map-v7, direct-map-v12, "
        "kvm-6.18, v6, v7, v8",
    )
    compare.add_argument("--mask", action="store_true", help="with --library: which of its defects hides which")
    compare.add_argument("--trace", metavar="FILE", help="price the operations in this text of trace events")
    compare.add_argument("--profile", metavar="FILE", help="prices, written by calibrate (default: of the authors' machine)")
    compare.add_argument("--json", action="store_true")
    compare.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fill the table of protections and hypervisors."""
    from guestmem.linux.trace.text import NoText
    from guestmem.report.compare import compare

    if arguments.library:
        return libraries(arguments)
    if arguments.mask:
        raise Usage("--mask: it is for libraries: add --library, as in --library rfc-v2 --mask")
    try:
        with progress("compare") as note:
            table = compare(
                *arguments.hypervisor,
                protection=arguments.protection,
                arch=arguments.arch,
                accessor=arguments.accessor,
                speculation=arguments.speculation,
                trace=arguments.trace,
                profile=arguments.profile,
                note=note,
                **{name: getattr(arguments, name) for name in SIZES if getattr(arguments, name) is not None},
            )
    except NoText as error:
        raise Usage(str(error)) from error
    if arguments.json:
        print(json.dumps(table.as_json(), indent=1))
    else:
        for line in table.lines(steps=arguments.steps, details=arguments.details):
            print(line)
    return HOLDS if table.complete else INCOMPLETE


def libraries(arguments: argparse.Namespace) -> int:
    """Print what posted libraries break; with --mask, which of their defects hides which."""
    from guestmem.report.libraries import compare_libraries, mask
    from guestmem.upstream.libraries import HOSTS

    for option in ("protection", "accessor", "trace", "profile", "speculation", *SIZES):
        if getattr(arguments, option):
            raise Usage(f"--{option}: libraries are compared under unmap at one size: leave it out, or leave out --library")
    hosts = arguments.hypervisor
    with progress("compare") as note:
        if arguments.mask:
            masks = [mask(name, host, note) for name in arguments.library for host in hosts or HOSTS]
        else:
            table = compare_libraries(*arguments.library, hosts=hosts, note=note)
    if arguments.mask:
        if arguments.json:
            print(json.dumps({"schema": 1, "masks": [one.as_json() for one in masks]}, indent=1))
        else:
            print("\n".join(line for one in masks for line in one.lines()))
        return HOLDS
    if arguments.json:
        print(json.dumps(table.as_json(), indent=1))
    else:
        for line in table.lines(steps=arguments.steps):
            print(line)
    return HOLDS if table.complete else INCOMPLETE
