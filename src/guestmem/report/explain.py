# SPDX-License-Identifier: Apache-2.0
"""A saved counterexample, replayed as ordinary Python."""

from __future__ import annotations

import bdb
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guestmem.checker import lasso
from guestmem.checker.trace import Row, Unreplayed, counterexample, ended, table
from guestmem.model import Refused
from guestmem.model.schedule import Slice
from guestmem.report import names
from guestmem.report.names import arch, plain, protection, text
from guestmem.scenarios.catalogue import Scenario

if TYPE_CHECKING:
    from guestmem.checker.explore import Violation
    from guestmem.report.check import Check

__all__ = ["Changed", "Explanation", "Left", "Saved", "explain", "lines", "saved"]

Saved = dict[str, Any]
"""A counterexample as it is written to a file: one object of JSON."""


class Left(Exception):
    """The debugger was left, as one line."""


def saved(name: str, given: Mapping[str, Any], violation: Violation) -> Saved:
    """A counterexample of a scenario that was built with what is ``given``."""
    slices, cycle = ([[s.thread, list(s.choices), s.stepped] for s in part] for part in (violation.slices, violation.cycle))
    return {
        "schema": 1,
        "scenario": name,
        "options": plain(given),
        "rule": violation.rule,
        "detail": violation.detail,
        "slices": slices,
        "cycle": cycle,
        "waits": [wait.as_json() for wait in violation.waits],
    }


@dataclass(frozen=True)
class Explanation:
    """A counterexample that was replayed: ``str`` is what ``guestmem explain`` prints.

    Attributes:
        what: the scenario and its options.
        file: the user's file that it is from; the empty string if it is one of the project's.
        rule, detail: the rule that is broken, and how.
        rows: the steps.
        cycle: how many of the last steps happen again and again.
        waits: who does not get on, and why.
    """

    what: str
    file: str
    rule: str
    detail: str
    rows: list[Row]
    cycle: int
    waits: list[lasso.Waiting]

    def lines(self, *, full: bool = False) -> Iterator[str]:
        """What ``guestmem explain`` prints; ``full``: all steps, also those that every run begins with."""
        yield self.what
        yield from lines(self.rows, self.rule, self.detail, self.cycle, self.waits, mine=self.file, full=full)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return f"<Explanation of {self.what}: {len(self.rows)} steps: {self.rule}>"


def lines(
    rows: Sequence[Row], rule: str, detail: str, cycle: int, waits: Sequence[lasso.Waiting], *, mine: str, full: bool
) -> Iterator[str]:
    """The table of a counterexample, the broken rule last."""
    if waits:
        yield from lasso.lines(rows, cycle, waits, mine=mine, full=full)
    else:
        yield from table(rows, mine=mine, full=full)
    yield from ended(rows, rule, detail)


def explain(source: Check | str | os.PathLike[str], *, debug_at: int | None = None) -> Explanation:
    """Replay a counterexample: that of a check, or one that ``check --save-trace`` wrote to a file.

    ``debug_at``: enter the debugger in front of this step; 0: of the last.  Raises :class:`Refused` where there is no
    counterexample, and where the model has changed since it was saved; :class:`Left` where the debugger is left.
    """
    if isinstance(source, str | os.PathLike):
        return _replayed(os.fspath(source), _read(os.fspath(source)), None, debug_at)
    return _replayed(source.what, source.saved(), source.scenario, debug_at)


class Changed(Refused):
    """A counterexample that does not happen any more."""


def still_happens(trace: Saved) -> str:
    """The table of a saved counterexample if it still happens; the empty string if it does not, or not any more.

    Whoever mends what it shows may have changed the steps as well: then nothing is known but that this way is no way any more;
    ``guestmem check`` looks for others.  Raises :class:`Refused` if there is no such scenario.
    """
    try:
        return str(_replayed(str(trace.get("scenario")), trace, None, None))
    except Changed:
        return ""


def _read(file: str) -> Saved:
    try:
        with open(file, encoding="utf-8") as stream:
            found: Saved = json.load(stream)
    except OSError as error:
        raise Refused(file, f"{error.strerror}", "name a file written by check --save-trace") from error
    except ValueError as error:
        raise Refused(file, "no saved trace", "name a file written by check --save-trace") from error
    return found


def _replayed(where: str, trace: Saved, scenario: Scenario | None, debug_at: int | None) -> Explanation:
    try:
        cycle = len(trace.get("cycle", ()))
        slices = [Slice(thread, tuple(choices), stepped) for thread, choices, stepped in trace["slices"] + trace.get("cycle", [])]
        waits = [lasso.Waiting.from_json(wait) for wait in trace.get("waits", ())]
        name, given, rule, detail = trace["scenario"], dict(trace["options"]), trace["rule"], trace["detail"]
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise Refused(where, "no saved trace", "name a file written by check --save-trace") from error
    for option, named in (("protection", protection), ("arch", arch)):
        if option in given:
            given[option] = named(given[option])
    scenario = scenario or names.scenario(name)
    if debug_at is not None:
        debug_at = debug_at or len(slices)
        if not 1 <= debug_at <= len(slices):
            raise Refused(where, f"there is no step {debug_at}", f"it has {len(slices)}")
    try:
        rows = lasso.closed(counterexample(scenario.build(**given), rule, slices, debug_at), cycle)
    except bdb.BdbQuit as error:
        raise Left(f"left the debugger at step {debug_at} of {len(slices)}") from error
    except Unreplayed as error:
        raise Changed(where, f"replayed, {error}", "the model has changed since it was saved") from error
    return Explanation(f"{name} {text(given)}".rstrip(), scenario.file, rule, detail, rows, cycle, waits)
