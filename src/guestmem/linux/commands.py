# SPDX-License-Identifier: Apache-2.0
"""The commands about the real kernel: ``probe``, ``record``, ``replay`` and ``calibrate``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands to the command line's."""
    probe = commands.add_parser("probe", help="what this machine's kernel has, and what can be tested on it")
    probe.add_argument("--json", action="store_true")
    probe.set_defaults(run=run_probe)

    record = commands.add_parser("record", help="run a command and record what happens to guest memory (root)")
    record.add_argument("-o", dest="output", metavar="FILE", required=True, help="where the trace goes")
    record.add_argument(
        "--buffer", type=_size, metavar="SIZE", default=16 << 20, help="of each of two buffers for each CPU (default: 16M)"
    )
    record.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments, after all options")
    record.set_defaults(run=run_record)

    replay = commands.add_parser("replay", help="check a recorded run: text of ftrace, trace-cmd report or perf script")
    replay.add_argument("file", metavar="FILE", help="may be packed with gzip, xz, bzip2 or zstd")
    replay.add_argument("--json", action="store_true")
    replay.set_defaults(run=run_replay)

    calibrate = commands.add_parser("calibrate", help="measure what guest memory costs on this machine, as JSON")
    calibrate.add_argument("-o", dest="output", metavar="FILE", help="where it goes (default: standard output)")
    calibrate.add_argument(
        "--secretmem", action="store_true", help="also memfd_secret: it splits the direct map until the next boot"
    )
    calibrate.set_defaults(run=run_calibrate)


def _size(text: str) -> int:
    from guestmem.cli import size

    if size(text) < 1 << 12:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a buffer: write 16M")
    return size(text)


def _only_on_linux() -> None:
    from guestmem.cli import Usage

    if sys.platform != "linux":
        raise Usage(f"this is {sys.platform}, not Linux: run it on a machine that has the kernel in question")


def run_probe(arguments: argparse.Namespace) -> int:
    """Say what is here."""
    _only_on_linux()
    from guestmem.linux import probe

    found = probe.probe()
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        for line in probe.as_text(found):
            print(line)
    return 0


def run_record(arguments: argparse.Namespace) -> int:
    """Record a command; its status."""
    _only_on_linux()
    from guestmem.cli import Unsaved, Usage, may_write, write_whole
    from guestmem.linux import tracing

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


def run_replay(arguments: argparse.Namespace) -> int:
    """Check a recording."""
    from guestmem.cli import HOLDS, INCOMPLETE, VIOLATED, Usage
    from guestmem.linux import ftrace, replay

    try:
        text = ftrace.lines(arguments.file)
    except OSError as error:
        raise Usage(f"{arguments.file}: {error.strerror}: name a text of trace events") from error
    except ftrace.NoText as error:
        raise Usage(str(error)) from error
    report = replay.replay(text)
    if not report.counts["events"]:
        raise Usage(f"{arguments.file}: no event in it: name a text of ftrace, trace-cmd report or perf script with its CPUs")
    if arguments.json:
        print(json.dumps(replay.as_json(arguments.file, report), indent=1))
    else:
        for line in replay.as_text(arguments.file, report):
            print(line)
    return {"consistent": HOLDS, "violated": VIOLATED, "incomplete": INCOMPLETE}[report.verdict]


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Measure unit costs."""
    _only_on_linux()
    from guestmem.cli import HOLDS, INCOMPLETE, may_write, progress, write_whole
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
