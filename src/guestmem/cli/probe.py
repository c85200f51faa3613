# SPDX-License-Identifier: Apache-2.0
"""``guestmem probe``: what this machine's kernel has."""

from __future__ import annotations

import argparse
import json
from typing import Any

from guestmem.cli.terminal import HOLDS, only_on_linux


def add(commands: Any) -> None:
    """Add the command."""
    probe = commands.add_parser("probe", help="what this machine's kernel has, and what can be tested on it")
    probe.add_argument("--json", action="store_true")
    probe.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Say what is here."""
    only_on_linux()
    from guestmem.linux import probe

    found = probe.probe()
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        for line in probe.as_text(found):
            print(line)
    return HOLDS
