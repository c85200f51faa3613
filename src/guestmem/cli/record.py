# SPDX-License-Identifier: Apache-2.0
"""``guestmem record``: what a command does to guest memory."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from guestmem.cli.files import may_write, write_whole
from guestmem.cli.terminal import Unsaved, Usage, only_on_linux, size


def add(commands: Any) -> None:
    """Add the command."""
    record = commands.add_parser("record", help="run a command and record what happens to guest memory (root)")
    record.add_argument("-o", dest="output", metavar="FILE", required=True, help="where the trace goes")
    record.add_argument(
        "--buffer", type=buffer, metavar="SIZE", default=16 << 20, help="of each of two buffers for each CPU (default: 16M)"
    )
    record.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments, after all options")
    record.set_defaults(run=run)


def buffer(text: str) -> int:
    """Bytes of a trace buffer."""
    if size(text) < 1 << 12:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a buffer: write 16M")
    return size(text)


def run(arguments: argparse.Namespace) -> int:
    """Record a command; its status."""
    only_on_linux()
    from guestmem.linux.trace import record as tracing

    command = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not command:
        raise Usage("no command to record: write guestmem record -o FILE -- COMMAND")
    may_write(arguments.output, "-o")
    try:
        recording = tracing.record(command, arguments.buffer >> 10)
    except tracing.Cannot as error:
        raise Unsaved(f"cannot record: {error}") from error
    except tracing.NotStarted as error:
        raise Usage(f"{error}: name a program that can be run") from error
    for line in recording.found:
        print(f"guestmem: {line}", file=sys.stderr)
    for event in recording.missing:
        print(f"guestmem: this kernel has no event {event}", file=sys.stderr)
    if recording.lost:
        print(f"guestmem: {recording.lost} events did not fit: record again with a larger --buffer", file=sys.stderr)
    write_whole(arguments.output, recording.text, "-o")
    return recording.status
