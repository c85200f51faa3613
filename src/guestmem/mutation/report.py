# SPDX-License-Identifier: Apache-2.0
"""What became of mutants, as files and tables: results as they come, survivors that are known, killed of all."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guestmem.model.errors import Refused
from guestmem.mutation.mutants import KINDS, Key
from guestmem.mutation.run import Result

__all__ = ["Listed", "Results", "line", "listed", "score", "tables"]

#: What a list of survivors says of one: it does the same; it only costs more or less; the rules have a hole.
REASONS = ("equivalent", "cost", "hole")
#: Those that no rule could notice: they are not tried.
UNNOTICEABLE = ("equivalent", "cost")
#: In the order of the tables.
STATUSES = ("killed", "survived", "unreached", "incomplete", "cost", "equivalent", "same", "invalid")
#: Those that a rule could notice.
NOTICEABLE = STATUSES[:4]


@dataclass(frozen=True)
class Listed:
    """A survivor that somebody looked at: ``reason`` is one of ``REASONS``, ``why`` a sentence."""

    key: Key
    reason: str
    why: str


def listed(path: str) -> dict[Key, Listed]:
    """The survivors that a TOML file lists, in tables [[mutant]].  Raises :class:`Refused`."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("mutant", [])
    except OSError as error:
        raise Refused(path, f"{error.strerror}", "name a list of survivors, as docs/mutants.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(path, f"it is no TOML: {error}", "correct it") from error
    found = {}
    names = (*Key._fields[:-1], "reason", "why")
    for number, table in enumerate(tables, 1):
        texts = isinstance(table, dict) and all(isinstance(table.get(name), str) for name in names)
        if not texts or set(table) - {*names, "nth"} or not isinstance(table.get("nth", 1), int):
            raise Refused(path, f"table {number} is no mutant", f"it has the texts {', '.join(names)}, and maybe the number nth")
        if table["reason"] not in REASONS:
            raise Refused(path, f"table {number}: {table['reason']!r} is no reason", f"use one of {', '.join(REASONS)}")
        key = Key(**{"nth": 1, **{name: value for name, value in table.items() if name in Key._fields}})
        found[key] = Listed(key, table["reason"], table["why"])
    return found


class Results:
    """A file of results, one a line as they come, behind a line that says of which code they are.

    Opening one that is there continues it.  Raises :class:`Refused` when it is of other code, or of something else.
    """

    def __init__(self, path: str, about: Mapping[str, Any]) -> None:
        self.path = path
        self.found: dict[Key, Result] = {}
        head = {"schema": 1, **about}
        try:
            text = Path(path).read_text(encoding="utf-8") if os.path.exists(path) else ""
            whole = text[: text.rfind("\n") + 1]  # the line that a run was killed in is not one
            lines = whole.splitlines()
            if lines:
                self._read(lines, head)
            self._stream = open(path, "r+b" if os.path.exists(path) else "x+b", buffering=0)  # noqa: SIM115
            self._stream.truncate(len(whole.encode()))
            self._stream.seek(0, os.SEEK_END)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise Refused(path, f"cannot be used: {why}", "name another file with --resume") from error
        if not lines:
            self._write(head)

    def _read(self, lines: Sequence[str], head: Mapping[str, Any]) -> None:
        try:
            before, *rest = map(json.loads, lines)
            self.found = {result.key: result for result in map(Result.from_json, rest)}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Refused(self.path, "it is no file of results", "name another one with --resume") from error
        for name, value in head.items():
            if not isinstance(before, dict) or before.get(name) != value:
                raise Refused(self.path, f"it has results of another {name}", "name another file with --resume, or remove it")

    def add(self, result: Result) -> None:
        """Append one."""
        self.found[result.key] = result
        self._write(result.as_json())

    def _write(self, value: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(value).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def line(result: Result) -> str:
    """A result as one line."""
    key = result.key
    text = f"{result.status:<10}  {key.file}:{result.line} {key.kind}: {key.before} -> {key.after}"
    if result.status == "killed":
        steps = f" ({result.steps} steps)" if result.steps is not None else ""
        return f"{text}  {result.case}: {result.rule}{steps}"
    if result.status == "survived":
        return f"{text}  {result.tried} scenarios"
    return f"{text}  {result.why}" if result.why else text


def score(results: Sequence[Result]) -> tuple[int, int]:
    """Killed, and all that a rule could notice."""
    return sum(r.status == "killed" for r in results), sum(r.status in NOTICEABLE for r in results)


def tables(results: Sequence[Result]) -> Iterator[str]:
    """Killed of all that could be noticed, by file and by kind, and how many had another end."""
    files = sorted({r.key.file for r in results})
    yield from _table("file", files, results, lambda r: r.key.file)
    yield ""
    yield from _table("kind", [kind for kind in KINDS if any(r.key.kind == kind for r in results)], results, lambda r: r.key.kind)


def _table(what: str, names: Sequence[str], results: Sequence[Result], name_of: Callable[[Result], str]) -> Iterator[str]:
    yield f"{what:<28} {'killed / all':>14} {'':>5}" + "".join(f" {status:>10}" for status in STATUSES[1:])
    for name in [*names, "all"]:
        of = [r for r in results if name in ("all", name_of(r))]
        killed, noticeable = score(of)
        percent = f"{100 * killed // noticeable} %" if noticeable else ""
        counts = (sum(r.status == status for r in of) for status in STATUSES[1:])
        yield f"{name:<28} {f'{killed} / {noticeable}':>14} {percent:>5}" + "".join(f" {count:>10}" for count in counts)
