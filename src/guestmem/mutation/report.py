# SPDX-License-Identifier: Apache-2.0
"""What became of mutants, as files and tables: results as they come, survivors that are known, killed of all."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from guestmem.model.errors import Refused
from guestmem.mutation.mutants import KINDS, Key
from guestmem.mutation.run import Result

__all__ = ["Listed", "Results", "line", "listed", "read_results", "score", "settled", "survivors", "tables"]

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


def read_results(path: str) -> tuple[dict[str, Any], dict[Key, Result]]:
    """What a file of results is about, and the results; nothing of a file that is not there.  Raises :class:`Refused`."""
    try:
        text = Path(path).read_text(encoding="utf-8") if os.path.exists(path) else ""
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            path, f"cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}", "name another file"
        ) from error
    try:
        # The line in which a run was killed is none.
        head, *rest = (json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()) if "\n" in text else ({},)
        results = [Result.from_json(one) for one in rest]
        return dict(head), {result.key: result for result in results}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(path, "it is no file of results", "name another one with --resume") from error


def hints(path: str) -> dict[Key, str]:
    """The case that killed each mutant, from a file of results of any code.  Raises :class:`Refused`, also for an empty one."""
    _, results = read_results(path)
    if not results:
        raise Refused(path, "it has no results", "name a file that --resume has written")
    return {key: result.case for key, result in results.items() if result.status == "killed"}


def settled(result: Result, known: Mapping[Key, Listed]) -> Result:
    """A result, with what the list says where no scenario killed the mutant."""
    entry = known.get(result.key)
    if entry is None or result.status == "killed":
        return result
    return replace(result, status=entry.reason if entry.reason in UNNOTICEABLE else result.status, why=entry.why)


class Results:
    """A file of results, one a line as they come, behind a line that says of which code they are.

    Opening one that is there continues it.  Raises :class:`Refused` when it is of other code, or of something else.
    """

    def __init__(self, path: str, about: Mapping[str, Any]) -> None:
        head = {"schema": 1, **about}
        before, self.found = read_results(path)
        for name, value in head.items():
            if before and before.get(name) != value:
                raise Refused(path, f"it has results of another {name}", "name another file with --resume, or remove it")
        try:
            self._stream = open(path, "a+b", buffering=0)  # noqa: SIM115
            self._stream.seek(0)
            self._stream.truncate(self._stream.read().rfind(b"\n") + 1)
        except OSError as error:
            raise Refused(path, f"cannot be written: {error.strerror}", "name another file with --resume") from error
        if not before:
            self._write(head)

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
        return f"{text}  {len(result.tried)} scenarios"
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


def survivors(results: Sequence[Result], known: Mapping[Key, Listed]) -> Iterator[str]:
    """A row of Markdown for each mutant that no scenario killed, with what is known of it."""
    yield "| where | change | what became of it | why |"
    yield "|---|---|---|---|"
    for result in results:
        if result.status not in ("killed", "same", "invalid"):
            key = result.key
            change = f"{key.kind}: `{key.before}` becomes `{key.after}`".replace("|", "\\|")
            reason = known[key].reason if key in known else result.status
            why = result.why.replace("|", "\\|") or "nobody has looked yet"
            yield f"| `{key.file}` `{key.function}` | {change} | {reason} | {why} |"
