# SPDX-License-Identifier: Apache-2.0
"""``guestmem calibrate``: what guest memory costs on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from guestmem.cli.files import may_write, write_whole
from guestmem.cli.terminal import HOLDS, INCOMPLETE, only_on_linux, progress


def add(commands: Any) -> None:
    """Add the command."""
    calibrate = commands.add_parser("calibrate", help="measure what guest memory costs on this machine, as JSON")
    calibrate.add_argument("-o", dest="output", metavar="FILE", help="where it goes (default: standard output)")
    calibrate.add_argument(
        "--secretmem", action="store_true", help="also memfd_secret: it splits the direct map until the next boot"
    )
    calibrate.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure unit costs."""
    only_on_linux()
    from guestmem.linux import calibrate

    if arguments.output:
        may_write(arguments.output, "-o")
    with progress("measuring") as note:
        found = calibrate.calibrate(secretmem=arguments.secretmem, note=note)
    text = json.dumps(found, indent=1) + "\n"
    if arguments.output:
        write_whole(arguments.output, text, "-o")
    else:
        print(text, end="")
    for name, why in found["missing"].items():
        print(f"guestmem: {name} is not measured: {why}", file=sys.stderr)
    return INCOMPLETE if set(found["missing"]) - set(calibrate.ON_REQUEST) else HOLDS
