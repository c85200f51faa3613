# SPDX-License-Identifier: Apache-2.0
"""``guestmem defects``: the defects of posted series, found again."""

from __future__ import annotations

import argparse
import json
from typing import Any

from guestmem.cli.terminal import HOLDS, VIOLATED, progress

ABOUT = """
Explores each defect of a posted series in the world where it happens, and says which rule finds it, and how soon; `guestmem
check B12` explores one, with all that check can do.  Exit codes: 0 every defect was found; 1 one was not; 2 usage.
"""


def add(commands: Any) -> None:
    """Add the command."""
    defects = commands.add_parser("defects", help="defects of posted series, found again", description=ABOUT)
    defects.add_argument("number", nargs="*", metavar="ID", help="as B12 (default: all)")
    defects.add_argument("--steps", action="store_true", help="print the shortest counterexamples")
    defects.add_argument("--cured", action="store_true", help="explore each world without its defect too: it must hold")
    defects.add_argument("--json", action="store_true")
    defects.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look for defects."""
    from guestmem.report.defects import findings

    done = []
    with progress("defects") as note:
        for finding in findings(*arguments.number, cured=arguments.cured, note=note):
            done.append(finding)
            if not arguments.json:
                print("\n".join(finding.lines(arguments.steps)), flush=True)
    missed = [finding.number for finding in done if not finding.ok]
    if arguments.json:
        print(json.dumps({"schema": 1, "defects": [finding.as_json() for finding in done]}, indent=1))
    else:
        print(f"{len(done)} defects, {len(missed)} not as they must be{': ' + ', '.join(missed) if missed else ''}")
    return VIOLATED if missed else HOLDS
