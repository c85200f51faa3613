# SPDX-License-Identifier: Apache-2.0
"""``guestmem boot``: a command on another kernel, under QEMU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from guestmem.cli.terminal import Unsaved, Usage, count, duration, only_on_linux, size


def add(commands: Any) -> None:
    """Add the command."""
    boot = commands.add_parser(
        "boot",
        help="run a command on another kernel, under QEMU",
        description="The guest has Python, guestmem and a scratch disk; the command's output and status are this command's.  "
        "If the kernel dies before the command ends, what it wrote is there, the console's end follows, and the status is 3.",
    )
    boot.add_argument("kernel", metavar="KERNEL", type=Path, help="an image, a package of one (.deb), or a directory with either")
    boot.add_argument("--accel", choices=("kvm", "tcg"), help="(default: kvm where its guests can have guests, else tcg)")
    boot.add_argument("--cpu", metavar="MODEL", help="QEMU's CPU model, with features (default: max, or host with kvm)")
    boot.add_argument("--cpus", metavar="N", type=count, default=2, help="(default: 2)")
    boot.add_argument("--memory", metavar="SIZE", type=size, default=2 << 30, help="(default: 2G)")
    boot.add_argument(
        "--append",
        metavar="WORDS",
        default="",
        help="for the kernel and its modules: kvm_amd.npt=0, kvm-arm.mode=protected",
    )
    boot.add_argument("--module", metavar="FILE.ko", type=Path, action="append", default=[], help="in place of the kernel's own")
    boot.add_argument("--add", metavar="FILE", type=Path, action="append", default=[], help="put a file beside the command")
    boot.add_argument("--save", metavar="DIR", type=Path, help="where files go that the command leaves in its directory")
    boot.add_argument("--python", metavar="DIR", type=Path, help="packages or a root file system with the guest's Python")
    boot.add_argument("--timeout", metavar="TIME", type=duration, default=1800.0, help="(default: 30m)")
    boot.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments, after all options")
    boot.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run a command on a kernel; its status."""
    only_on_linux()
    from guestmem.linux.boot import machine, package
    from guestmem.linux.boot.errors import Cannot

    command = arguments.argv[1:] if arguments.argv[:1] == ["--"] else arguments.argv
    if not command:
        raise Usage("no command to run: write guestmem boot KERNEL -- guestmem probe")
    if arguments.save is not None and not arguments.save.is_dir():
        raise Usage(f"{arguments.save}: no directory: make it, or name another with --save")
    wanted = machine.Machine(
        arguments.memory, arguments.cpus, arguments.accel, arguments.cpu, arguments.append, arguments.timeout
    )
    try:
        kernel = package.find(arguments.kernel, arguments.module)
        ended = machine.boot(kernel, command, wanted, arguments.python, arguments.add, arguments.save)
    except Cannot as error:
        raise Usage(str(error)) from error
    if ended.status is None:
        for line in ended.console:
            print(f"| {line}", file=sys.stderr)
        raise Unsaved(ended.why)
    return ended.status
