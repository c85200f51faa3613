# SPDX-License-Identifier: Apache-2.0
"""Traces as people paste them into mails: quoted ones are read, and what a mail program has changed is refused.

A line that was broken in two has lost its fields, and what stands around a trace may hide that something was left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from guestmem.linux.trace import text
from guestmem.linux.trace.text import EVENT, Event, NoText, Unreadable, parse

__all__ = ["as_printed", "lines"]

QUOTE = re.compile(r"\s?(?:[A-Za-z]{0,3}> ?)+|(?:\| ?)+")
TRACE = re.compile(r"#\s*(?:tracer|entries-in-buffer)|#\s+TASK-PID|cpus=\d")
HEAD = re.compile(r".*\[\d+\]\s.*\d\.\d+:")  # of an event
BEGIN = re.compile(r"\s*\S.*?(?:-|\s)\d+\s+(?:\(|\[|$)")  # of an event that was cut short
TAG = re.compile(r"\s*</?(?:body|br|code|div|html|p|pre|span|tt)\b[^>]*>|.*</?(?:br|code|div|p|pre|span|tt) ?/?>\s*$", re.I)
ENCODED = "=3D0x"  # quoted-printable
STACK = re.compile(r"[0-9a-f]{8,} \S+ \(\S+\)$")
PROSE = re.compile(
    r"[A-Z][\w-]*: |.*\b(?:wrote|writes):$|\s*(?:-{2,}|~{3,}|`{3}\w*|\W*(?:\.{3}|…|snip)\W*)\s*$|[A-Za-z][A-Za-z .,;:!?'-]*$"
)
WORDS, DATA = re.compile(r"\b[A-Za-z']{2,}\b"), re.compile(r"=|0x|\[\d|\d\.\d{3}")
LONGEST = 132  # columns; where longer lines are whole, none was broken
SLACK = 8  # columns: a line may be broken where it had several spaces
GIVE = "give the trace alone, as it was printed, in a file of its own"


def lines(path: str) -> list[str]:
    """The lines of a file as a tracer printed them.

    Raises what :func:`guestmem.linux.trace.text.lines` raises, and NoText for a mail that is more than a quoted trace.
    """
    return as_printed(path, text.lines(path))


def as_printed(path: str, pasted: Sequence[str]) -> list[str]:
    """Lines without the marks of a quotation, if all lines of the trace have them.  Raises :class:`NoText`."""
    plain = list(_unquoted(path, pasted))
    for number, line in enumerate(plain, 1):
        _no_markup(path, number, line)
    longest, rest, some = 0, list[Unreadable](), False
    for one in parse(plain):
        if isinstance(one, (Event, Unreadable)):
            longest = max(longest, len(one.text.rstrip()))
        some |= isinstance(one, Event) or (isinstance(one, Unreadable) and HEAD.match(one.text) is not None)
        if isinstance(one, Unreadable):
            rest.append(one)
    for one in rest if some else ():
        if one.line > 1 and longest <= LONGEST:
            _not_broken(path, plain[one.line - 2].rstrip(), one, longest)
    for one in rest if some else ():
        _no_prose(path, one)
    return plain


def _unquoted(path: str, pasted: Sequence[str]) -> Iterator[str]:
    """Lines without the marks, where each line of the trace has the same."""
    if not any(QUOTE.match(line) for line in pasted):
        yield from pasted
        return
    marks: dict[str, int] = {}
    for number, line in enumerate(pasted, 1):
        mark, of = _quoted(line)
        if EVENT.match(of) or TRACE.match(of):
            marks.setdefault(mark.replace(" ", ""), number)
    if len(marks) > 1:
        (one, first), (other, second), *_ = marks.items()
        said = " and ".join(f"line {at} {f'with {m}' if m else 'without a mark'}" for m, at in ((one, first), (other, second)))
        raise NoText(f"{path}: parts of it are quoted otherwise than others ({said}): {GIVE}")
    for line in pasted:
        mark, of = _quoted(line)
        yield of if mark and mark.replace(" ", "") in marks else line


def _quoted(line: str) -> tuple[str, str]:
    """The marks of a quotation, and what is quoted."""
    found = QUOTE.match(line)
    return (found[0], line[found.end() :]) if found else ("", line)


def _shown(one: Unreadable) -> str:
    words = one.text.strip()
    return repr(words if len(words) <= 40 else f"{words[:37]}...")


def _no_markup(path: str, number: int, line: str) -> None:
    if ENCODED in line:
        raise NoText(f"{path}: line {number} is quoted-printable ({ENCODED}): {GIVE}")
    if "&lt;" in line or "&gt;" in line or ("<" in line and TAG.match(line)):
        raise NoText(f"{path}: line {number} is HTML: {GIVE}")


def _not_broken(path: str, before: str, one: Unreadable, longest: int) -> None:
    """Refuse a line that is the rest of the one before: with its first word, that would be longer than any."""
    if BEGIN.match(one.text):
        return
    word = one.text.split()[0]
    head = HEAD.match(before)
    if (head and head.end() == len(before)) or (before and len(before) + 1 + len(word) > longest - SLACK):
        what = f"line {one.line} ({_shown(one)}) is the rest of the line before"
        raise NoText(f"{path}: {what}, long lines were broken: {GIVE}")


def _no_prose(path: str, one: Unreadable) -> None:
    if STACK.match(one.text):
        raise NoText(f"{path}: line {one.line} has lost its indentation ({_shown(one)}): {GIVE}")
    if PROSE.match(one.text) or (len(WORDS.findall(one.text)) > 2 and not DATA.search(one.text)):
        raise NoText(f"{path}: line {one.line} is not of a trace ({_shown(one)}): {GIVE}")
