# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import sys

from guestmem.cli.terminal import Unsaved, Usage


def may_write(path: str, option: str) -> None:
    """Before a long run: whether what comes of it can be written where an option says."""
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.basename(path):
        raise Usage(f"{path!r} is a directory: name a file in it with {option}")
    if not os.path.isdir(directory):
        raise Usage(f"{path}: there is no directory {directory}: make it, or choose another place with {option}")
    scratch = half_written(path)
    if scratch is not None:
        try:
            os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            os.unlink(scratch)
        except OSError as error:
            raise Usage(f"{path}: cannot be written: {error.strerror}: choose another place with {option}") from error


def half_written(path: str) -> str | None:
    """The name that a file has until it is whole; None for a device or a pipe, which is written to as it is."""
    return None if os.path.exists(path) and not os.path.isfile(path) else f"{path}.{os.getpid()}.tmp"


def write_whole(path: str, text: str, option: str = "--save-trace") -> None:
    """Write a file, which an option names, completely or not at all; a device or a pipe is written to as it is.

    What a run that was killed while it wrote the same file has left is removed, and named.
    """
    scratch = half_written(path)
    try:
        for left in [] if scratch is None else abandoned(path):
            os.unlink(left)
            print(f"guestmem: removed {left}, left by a run that was killed", file=sys.stderr)
        with open(scratch or path, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            if scratch is not None:
                os.fsync(stream.fileno())
        if scratch is not None:
            os.replace(scratch, path)
    except OSError as error:
        if scratch is not None:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
        raise Unsaved(f"{path}: not written: {error.strerror}: choose another place with {option}") from error


def abandoned(path: str) -> list[str]:
    """Half-written copies of a file whose writers are gone."""
    from guestmem.linux.process import alive

    directory, name = os.path.split(path)
    half = re.compile(re.escape(name) + r"\.(\d+)\.tmp")
    found = ((half.fullmatch(other), other) for other in os.listdir(directory or "."))
    return [os.path.join(directory, other) for match, other in found if match and not alive(int(match[1]))]
