# SPDX-License-Identifier: Apache-2.0
"""Arguments in, plain lines out.

Exit codes: 0 all rules hold, 1 one is violated, 2 usage, 3 incomplete.  Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import guestmem
from guestmem.cli import (
    boot,
    calibrate,
    check,
    compare,
    conform,
    defects,
    explain,
    fuzz,
    listing,
    mutate,
    new,
    probe,
    record,
    replay,
)
from guestmem.cli.terminal import INCOMPLETE, USAGE, Defect, Unsaved, Usage

COMMANDS = (compare, check, explain, new, listing, defects, mutate, conform, fuzz, probe, boot, record, replay, calibrate)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise Usage(f"{message}: see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = _Parser(prog="guestmem", description="guest_memfd as a library: run it, check it, see what it costs")
    top.add_argument("--version", action="version", version=f"guestmem {guestmem.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    from guestmem.model.errors import Refused

    try:
        arguments = parser().parse_args(argv)
        if sys.stdout is None:
            raise Unsaved("standard output is closed: give it a place, as >/dev/null")
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except (Usage, Refused) as error:
        print(f"guestmem: {error}", file=sys.stderr)
        return USAGE
    except (Unsaved, Defect) as error:
        print(f"guestmem: {error}", file=sys.stderr)
        return INCOMPLETE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return INCOMPLETE
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"guestmem: standard output: {error.strerror}: give it a place that has room", file=sys.stderr)
        return INCOMPLETE
    except KeyboardInterrupt:
        print("guestmem: interrupted", file=sys.stderr)
        return INCOMPLETE
    except Exception as error:
        from guestmem.checker.engine.compile import NoCompiler

        if not isinstance(error, NoCompiler):
            raise
        print(f"guestmem: {error}", file=sys.stderr)
        return USAGE
