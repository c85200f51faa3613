# SPDX-License-Identifier: Apache-2.0
"""``guestmem compare``: the table of hypervisors and protections."""

from __future__ import annotations

import argparse
import json
from typing import Any

from guestmem.cli.terminal import EXIT, HOLDS, Usage, named, progress

HYPERVISORS = ("gunyah", "pkvm", "kvm")


def add(commands: Any) -> None:
    """Add the command."""
    compare = commands.add_parser("compare", help="which protection is safe on which hypervisor, and what it costs")
    compare.add_argument("--hypervisor", nargs="+", metavar="H", default=list(HYPERVISORS), help="scenarios to compare")
    compare.add_argument("--protection", nargs="+", metavar="P", help="none, unmap, fixup, unmap+fixup (default: all)")
    compare.add_argument("--arch", nargs="+", metavar="A", default=["arm64"], help="arm64 (default), arm64-blocks, x86 ...")
    compare.add_argument("--accessor", nargs="+", metavar="X", default=[], help="add to the cast: crash-dump, migration, gup")
    compare.add_argument("--speculation", action="store_true", help="secrets must be out of reach of transient execution too")
    compare.add_argument("--trace", metavar="FILE", help="price the operations in this text of trace events")
    compare.add_argument("--json", action="store_true")
    compare.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fill the table of protections and hypervisors."""
    from guestmem import compare
    from guestmem.linux.trace import operations, text
    from guestmem.scenarios.catalogue import ARCHES, PROTECTIONS
    from guestmem.scenarios.workload import Workload, boot

    comparable = compare.comparable()
    hypervisors = [named(h, "hypervisor", comparable, "some of") for h in arguments.hypervisor]
    arches = [named(a, "architecture", ARCHES) for a in arguments.arch]
    protections = [named(p, "protection", PROTECTIONS) for p in arguments.protection or PROTECTIONS]
    accessors = tuple(named(x, "accessor", compare.ACCESSORS, "some of") for x in arguments.accessor)
    workload = boot()
    if arguments.trace:
        try:
            workload = Workload(*operations.operations(arguments.trace, text.lines(arguments.trace)))
        except OSError as error:
            raise Usage(f"{arguments.trace}: {error.strerror}: name a text of ftrace") from error
        except text.NoText as error:
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
