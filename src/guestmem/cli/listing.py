# SPDX-License-Identifier: Apache-2.0
"""``guestmem list``: the scenarios, and what is expected of them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from guestmem.cli.terminal import HOLDS


def add(commands: Any) -> None:
    """Add the command."""
    listing = commands.add_parser("list", help="the scenarios, and what is expected of them")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the scenarios."""
    from guestmem.scenarios.catalogue import SCENARIOS

    if arguments.json:
        rows = [{"name": s.name, "text": s.text, "expected": dict(s.expected)} for s in SCENARIOS.values()]
        print(json.dumps({"schema": 1, "scenarios": rows}, indent=1))
        return HOLDS
    for scenario in SCENARIOS.values():
        print(f"{scenario.name:<24}{scenario.text}")
        for name, rule in scenario.expected.items():
            print(f"{'':<26}{name:<12} {'violated: ' + rule if rule else 'holds'}")
    return HOLDS
