# SPDX-License-Identifier: Apache-2.0
"""``guestmem replay``: check a recorded run."""

from __future__ import annotations

import argparse
import json
from typing import Any

from guestmem.cli.terminal import HOLDS, INCOMPLETE, VIOLATED, Usage


def add(commands: Any) -> None:
    """Add the command."""
    replay = commands.add_parser("replay", help="check a recorded run: text of ftrace, trace-cmd report or perf script")
    replay.add_argument("file", metavar="FILE", help="may be packed with gzip, xz, bzip2 or zstd")
    replay.add_argument("--json", action="store_true")
    replay.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check a recording."""
    from guestmem.linux.trace import pasted, replay, text

    try:
        lines = pasted.lines(arguments.file)
    except OSError as error:
        raise Usage(f"{arguments.file}: {error.strerror}: name a text of trace events") from error
    except text.NoText as error:
        raise Usage(str(error)) from error
    report = replay.replay(lines)
    if not report.counts["events"]:
        raise Usage(f"{arguments.file}: no event in it: name a text of ftrace, trace-cmd report or perf script with its CPUs")
    if arguments.json:
        print(json.dumps(replay.as_json(arguments.file, report), indent=1))
    else:
        for line in replay.as_text(arguments.file, report):
            print(line)
    return {"consistent": HOLDS, "violated": VIOLATED, "incomplete": INCOMPLETE}[report.verdict]
