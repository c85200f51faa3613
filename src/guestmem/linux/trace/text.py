# SPDX-License-Identifier: Apache-2.0
"""Text of trace events: of ftrace (``cat trace``), ``trace-cmd report`` and ``perf script``, compressed or not.

System calls are given the same two names everywhere, ``sys_enter_NAME`` and ``sys_exit_NAME``.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, NamedTuple

__all__ = [
    "ADDED",
    "LIMIT",
    "REMOVED",
    "Event",
    "Header",
    "Lost",
    "NoText",
    "Page",
    "Unreadable",
    "lines",
    "number",
    "numbers",
    "page",
    "parse",
    "split",
]

PAGE_SHIFT = 12


class NoText(ValueError):
    """A file cannot be read as text of trace events; the message says what to do."""


class Event(NamedTuple):
    """One event: the number and text of its line, and what the line says.

    ``time`` is in nanoseconds of the trace's clock, ``cpu`` and ``pid`` (a thread) as they are printed, ``name`` without
    its subsystem, ``fields`` as text.
    """

    line: int
    text: str
    pid: int
    cpu: int
    time: int
    name: str
    fields: str


class Header(NamedTuple):
    """How many events there should be: those in the buffer, and those that were ever written to it."""

    line: int
    text: str
    kept: int
    written: int


class Lost(NamedTuple):
    """Events were lost here."""

    line: int
    text: str


class Unreadable(NamedTuple):
    """A line that is neither an event nor anything else that a tracer prints."""

    line: int
    text: str


EVENT = re.compile(
    r"\s*(?P<task>\S.*?)(?:-|\s+|\s+\d+/)(?P<pid>\d+)\s+(?:\(\s*[-\d]+\)\s+)?\[(?P<cpu>\d+)\]\s+"
    r"(?:[\w.#!+*]{3,8}\s+)?(?P<time>\d+(?:\.\d+)?):\s+(?P<rest>\S.*?)\s*$"
)
ENTER = re.compile(r"sys_(\w+)\((.*)\)$")
EXIT = re.compile(r"sys_(\w+) -> (\S+)$")
NAMED = re.compile(r"(?:\w+:)?([A-Za-z_]\w*):(?:\s+(.*))?$")
COUNTS = re.compile(r"#\s*entries-in-buffer/entries-written:\s*(\d+)/(\d+)")
LOST = re.compile(r"CPU:\s*\d+ \[(?:LOST )?\d+ EVENTS(?: DROPPED)?\]|.*PERF_RECORD_LOST|.*\blost \d+ events")
ASIDE = re.compile(
    r"\s*$|#|.*\bPERF_RECORD_|"
    r"cpus=\d+$|version = |\s*=>|\s*<stack trace>|\s+[0-9a-f]+ \S+ \(\S+\)$|CPU \d+ is empty$|.*buffer started ####"
)


def parse(text: Iterable[str]) -> Iterator[Event | Header | Lost | Unreadable]:
    """What each line says, in order; lines that say nothing are left out."""
    for number, line in enumerate(text, 1):
        line = line.rstrip("\r\n")
        found = EVENT.match(line)
        named = _named(found["rest"]) if found else None
        if found is None or named is None:
            if counts := COUNTS.match(line):
                yield Header(number, line, int(counts[1]), int(counts[2]))
            elif LOST.match(line):
                yield Lost(number, line)
            elif not ASIDE.match(line):
                yield Unreadable(number, line)
            continue
        yield Event(number, line, int(found["pid"]), int(found["cpu"]), _nanoseconds(found["time"]), *named)


def _named(rest: str) -> tuple[str, str] | None:
    """The name of an event and its fields."""
    if found := ENTER.match(rest):
        return f"sys_enter_{found[1]}", found[2]
    if found := EXIT.match(rest):
        return f"sys_exit_{found[1]}", found[2]
    if found := NAMED.match(rest):
        return found[1], (found[2] or "").strip()
    return None


def _nanoseconds(time: str) -> int:
    seconds, _, rest = time.partition(".")
    return int(seconds) * 10**9 + int(rest.ljust(9, "0")[:9])


FIELD = re.compile(r"(\w+): (0x[0-9a-f]+|[0-9a-f]+)\b")


def numbers(fields: str) -> dict[str, int]:
    """The arguments of a system call, which tracers print in hexadecimal with or without 0x."""
    return {name: int(value, 16) for name, value in FIELD.findall(fields)}


def number(text: str) -> int:
    """A number that is hexadecimal after 0x, and decimal without."""
    return int(text, 16) if text.startswith("0x") else int(text)


class Page(NamedTuple):
    """Some pages of a file in one folio: ``file`` is (device, inode), ``first`` its first page, ``pfn`` its first frame."""

    file: tuple[str, str]
    first: int
    pfn: int
    pages: int


ADDED, REMOVED = "mm_filemap_add_to_page_cache", "mm_filemap_delete_from_page_cache"
PAGE = re.compile(r"dev (\d+:\d+) ino (?:0x)?([0-9a-f]+) .*?\bpfn=(0x[0-9a-f]+|\d+) ofs=(\d+)(?: order=(1?\d))?$")


def page(fields: str) -> Page | None:
    """What events ADDED and REMOVED say; None if the fields are not theirs."""
    found = PAGE.match(fields)
    if found is None or int(found[4]) % (1 << PAGE_SHIFT):
        return None
    return Page((found[1], found[2]), int(found[4]) >> PAGE_SHIFT, number(found[3]), 1 << int(found[5] or 0))


PACKED = {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zst"}

LIMIT = 256 << 20
"""So many bytes of text are read at most: what is packed, or a device, may have no end."""


def lines(path: str) -> list[str]:
    """The lines of a file of text, unpacked if it is packed with gzip, xz, bzip2 or zstd.

    Raises OSError, and :class:`NoText` for a file that is no text, is longer than LIMIT, or cannot be unpacked here.
    """
    with open(path, "rb") as file:
        head = file.peek(64)
        kind = next((kind for magic, kind in PACKED.items() if head.startswith(magic)), None)
        try:
            if kind is None:
                data = file.read(LIMIT + 1) if b"\0" not in head else head
            elif kind == "zst":
                data = _unzstd(path, file)
            else:
                data = UNPACK[kind](file).read(LIMIT + 1)
        except NoText:
            raise
        except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise NoText(f"{path}: damaged or cut short ({error}): pack the text again") from error
    if data[:2] == b"\x17\x08" or data.startswith(b"PERFILE2"):
        raise NoText(f"{path}: a recording, not its text: give the output of trace-cmd report or perf script")
    if b"\0" in data:
        raise NoText(f"{path}: it is no text: name a text of ftrace, trace-cmd report or perf script")
    if len(data) > LIMIT:
        raise NoText(f"{path}: more than {LIMIT >> 20} MiB of text: give a part of it")
    # A thread's name may be cut within a character.
    return split(data.decode("utf-8-sig", errors="replace"))


def split(text: str) -> list[str]:
    """The lines of a text, with their ends."""
    return list(io.StringIO(text))


UNPACK: dict[str, Callable[[Any], IO[bytes] | gzip.GzipFile]] = {"gz": gzip.open, "xz": lzma.open, "bz2": bz2.open}
CHUNK = 1 << 10  # of zstd, which may unpack to 32 MiB


def _unzstd(path: str, file: IO[bytes]) -> bytes:
    """Unpack zstd with what this Python has for it, up to the limit.  Raises ValueError when it is damaged."""
    for name in ("compression.zstd", "zstandard"):
        try:
            zstd = importlib.import_module(name)
        except ImportError:
            continue
        text, frame, rest = bytearray(), None, b""
        try:
            while len(text) <= LIMIT and (chunk := rest or file.read(CHUNK)):
                if frame is None:
                    frame = zstd.ZstdDecompressor()
                    frame = frame.decompressobj() if name == "zstandard" else frame
                text += frame.decompress(chunk)
                rest = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from error
        if frame is not None and len(text) <= LIMIT:
            raise ValueError("the last frame has no end")
        return bytes(text)
    raise NoText(f"{path}: packed with zstd: use Python 3.14, or pip install zstandard, or unzstd it")
