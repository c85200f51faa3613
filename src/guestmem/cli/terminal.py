# SPDX-License-Identifier: Apache-2.0
"""What all commands share: exit codes, a user's mistake as one line, numbers and names, a progress line."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

HOLDS, VIOLATED, USAGE, INCOMPLETE, SKIPPED = range(5)
EXIT = {"holds": HOLDS, "violated": VIOLATED, "incomplete": INCOMPLETE}
SIZES = {"K": 10, "M": 20, "G": 30, "T": 40}
TIMES = {"s": 1, "m": 60, "h": 3600}


class Usage(Exception):
    """A mistake of the user's, as one line."""


class Unsaved(Exception):
    """A file could not be written, as one line."""


class Defect(Exception):
    """The checker is wrong, as one line."""


def size(text: str) -> int:
    """Bytes in a size such as 512M."""
    shift = SIZES.get(text[-1:].upper(), 0)
    number = text[:-1] if shift else text
    if not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 512M or 4G")
    return int(number) << shift


def count(text: str) -> int:
    """A number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def duration(text: str) -> float:
    """Seconds in a time such as 30s, 2m or 1h; a plain number is seconds."""
    unit = TIMES.get(text[-1:].lower(), 0)
    try:
        value = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 30s, 2m or 1h")
    return value


def named(name: str, what: str, known: Collection[str], use: str = "one of") -> str:
    """A name that is known; another is the user's mistake."""
    if name not in known:
        raise Usage(f"{name!r} is no {what}: use {use} {', '.join(known)}")
    return name


@contextlib.contextmanager
def progress(what: str) -> Iterator[Any]:
    """A line on a terminal that says how far we are: call with a text; nothing elsewhere."""
    terminal = sys.stderr.isatty()

    def note(text: str) -> None:
        if terminal:
            sys.stderr.write(f"\r\x1b[K{what}: {text}")
            sys.stderr.flush()

    try:
        yield note
    finally:
        if terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextlib.contextmanager
def told_to_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function when a signal would end this process; a second one ends it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def handler(number: int, frame: object) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_DFL)
        stop()

    for number, was in before.items():
        if was is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def only_on_linux() -> None:
    """Another system's user is told."""
    if sys.platform != "linux":
        raise Usage(f"this is {sys.platform}, not Linux: run it on a machine that has the kernel in question")
