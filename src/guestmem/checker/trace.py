# SPDX-License-Identifier: Apache-2.0
"""Counterexamples as people read them: replayed in plain Python, a row for each step, with what it changed."""

from __future__ import annotations

import bdb
import errno
import itertools
import os
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guestmem import model
from guestmem.checker.frontend.source import Place, shown_file, source_line
from guestmem.model.errors import ALWAYS_A_STEP, NO_DEADLOCK, Verdict
from guestmem.model.schedule import Schedule, Slice
from guestmem.model.world import World, snapshot

__all__ = ["Row", "Unreplayed", "as_json", "counterexample", "ended", "replay", "shown", "table"]

WIDTH = 100
INDENT = " " * 21
LANGUAGE = os.path.dirname(model.__file__)
#: Rules that no step breaks: what is wrong is that none comes.
WITHOUT_A_STEP = (NO_DEADLOCK, ALWAYS_A_STEP)


class Unreplayed(Exception):
    """A trace does not do as ordinary Python what the checker says of it."""


@dataclass
class Row:
    """One step of a trace.

    ``changes`` are (field, before, after); ``choices`` what the world decided; ``failed`` the functions that returned an
    error, with its number; ``broken`` the rules that this step broke, at ``broken_at``, a function and its line, if it was
    a line that broke one and no property of the state.  ``stack`` has the functions it was called by, innermost first.
    ``begun``: see :meth:`World.begun`; ``stepped``: it was more than a decision.
    """

    number: int
    thread: str
    function: str
    place: Place
    choices: list[str] = field(default_factory=list)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    failed: list[tuple[str, int]] = field(default_factory=list)
    broken: list[Verdict] = field(default_factory=list)
    broken_at: tuple[str, Place] | None = None
    stack: list[tuple[str, Place]] = field(default_factory=list)
    begun: bool = True
    stepped: bool = True

    @property
    def text(self) -> str:
        """The line of source at which the step was called."""
        return source_line(self.place)


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [(name, before[name], value) for name, value in after.items() if before[name] != value]


def _raised_at(error: BaseException) -> tuple[str, Place] | None:
    """The innermost function of a model that an exception came through, and the line in it."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        code = frame.f_code
        if os.path.dirname(code.co_filename) not in (LANGUAGE, os.path.dirname(__file__)):
            return code.co_qualname.partition(".<locals>")[0], Place(code.co_filename, line)
    return None


def replay(world: World, slices: Iterable[Slice], debug_at: int | None = None, waiting: Sequence[int] = ()) -> Iterator[Row]:
    """Run a trace as ordinary Python; a row for each slice, with the properties that it newly breaks.

    The row of a step that breaks a rule itself is the last.  ``debug_at``: enter the debugger in front of the step with
    this number; ``waiting``: the threads that wait at the end, unless they have returned.  Raises :class:`Unreplayed` where
    a step waits, chooses otherwise or raises what breaks no rule, and where a thread does not wait.
    """
    with Schedule(world, watch=True) as schedule:
        before = dict(snapshot(world))
        known = list(map(str, schedule.broken()))
        for number, slice_ in enumerate(slices, 1):
            row = Row(number, world.threads[slice_.thread].name, "", Place("", 0))
            if schedule.finished(slice_.thread):
                raise Unreplayed(f"{row.thread} has returned before step {number}")
            schedule.debug = number == debug_at
            ended = False
            try:
                ran = schedule.run(slice_)
                if ran is None and slice_.stepped:
                    raise Unreplayed(f"step {number} waits")
                broken = schedule.broken()
                row.broken = [verdict for verdict in broken if str(verdict) not in known]
                known = list(map(str, broken))
            except Verdict as verdict:
                row.broken, ended = [verdict], True
            except (Unreplayed, bdb.BdbQuit):
                raise
            except Exception as error:
                raised = _raised_at(error)
                where = f" at {shown(raised[1])}" if raised else ""
                raise Unreplayed(f"step {number} raises {type(error).__name__}: {error}{where}") from error
            taken = tuple(choice.taken for choice in schedule.choices)
            if taken != slice_.choices or any(choice.taken >= choice.of for choice in schedule.choices):
                raise Unreplayed(f"step {number} has other choices")
            event = schedule.event
            if event is not None:
                row.function, row.place = event.function, Place(event.file, event.line)
                row.stepped = bool(event.step)
                row.stack = [(function, Place(file, line)) for function, file, line in schedule.stack]
            row.choices = [text for text in map(str, schedule.choices) if text]
            row.failed = schedule.failed
            row.broken_at = next(filter(None, map(_raised_at, row.broken)), None)
            row.begun = world.begun()
            after = dict(snapshot(world))
            row.changes = _changed(before, after)
            before = after
            yield row
            if ended:
                return
        left = [number for number in waiting if not schedule.finished(number)]
        for number in left:
            if schedule.run(Slice(number)) is not None:
                raise Unreplayed(f"{world.threads[number].name} does not wait")
        if waiting and not left:
            raise Unreplayed("no thread waits")


def counterexample(
    world: World, rule: str, slices: Sequence[Slice], debug_at: int | None = None, waiting: Sequence[int] = ()
) -> list[Row]:
    """The rows of a trace that breaks a rule with its last step, or after which threads wait.

    Raises :class:`Unreplayed` where it does not.
    """
    if not slices and rule not in WITHOUT_A_STEP:
        _start(world, rule)
        return []
    if not slices and rule == ALWAYS_A_STEP:
        return []  # starting the threads would not end
    rows = list(replay(world, slices, debug_at, waiting))
    if len(rows) < len(slices):
        raise Unreplayed(f"step {len(rows)} already breaks a rule: {rows[-1].broken[0]}")
    found = [verdict.rule for verdict in rows[-1].broken] if rows else []
    if rule not in found and rule not in WITHOUT_A_STEP:
        raise Unreplayed(f"it breaks another rule: {found[0]}" if found else "no rule is broken")
    return rows


def _start(world: World, rule: str) -> None:
    """See that a rule is broken before the first step."""
    try:
        with Schedule(world) as schedule:
            found = [verdict.rule for verdict in schedule.broken()]
    except Verdict as verdict:
        found = [verdict.rule]
    except Exception as error:
        raise Unreplayed(f"it raises {type(error).__name__} before the first step: {error}") from error
    if rule not in found:
        raise Unreplayed("no rule is broken before the first step")


def shown(place: Place) -> Place:
    """A place as it is printed."""
    return place._replace(file=shown_file(place.file))


def error_name(number: int) -> str:
    """A negative number as an error of the kernel."""
    name = "EOPNOTSUPP" if -number == errno.EOPNOTSUPP else errno.errorcode.get(-number)  # not its alias ENOTSUP
    return f"-{name}" if name else str(number)


def as_json(row: Row) -> dict[str, Any]:
    """A row as one object."""
    found: dict[str, Any] = {
        "number": row.number,
        "thread": row.thread,
        "function": row.function,
        "file": row.place.file,
        "line": row.place.line,
        "text": row.text,
        "choices": row.choices,
        "changes": [list(change) for change in row.changes],
        "returned": [[function, error_name(number)] for function, number in row.failed],
        "stack": [[function, str(place)] for function, place in row.stack],
        "broken": [str(verdict) for verdict in row.broken],
    }
    if row.broken_at is not None:
        function, place = row.broken_at
        found["broken_at"] = {"function": function, "file": place.file, "line": place.line, "text": source_line(place)}
    return found


def set_up(rows: Sequence[Row], mine: str = "") -> int:
    """How many rows from the first on only do what every run begins with: one thread, no error, no line of ``mine``."""
    if not rows or rows[0].begun or not rows[-1].begun:
        return 0
    for count, row in enumerate(rows):
        if row.thread != rows[0].thread or row.failed or row.broken or any(place.file == mine for _, place in row.stack):
            return count
        if row.begun:
            return count + 1
    return 0


def table(rows: Sequence[Row], *, mine: str = "", full: bool = True) -> Iterator[str]:
    """The lines of a step table: who, where, which line of source, what it changed; the broken rule last.

    Lines of the file ``mine`` are marked.  Rules that were broken on the way, which another trace shows, are said where
    they were.  Unless it is to be ``full``, what every run begins with is one line.
    """
    folded = 0 if full else set_up(rows, mine)
    if folded > 1:
        decided = list(itertools.chain.from_iterable(row.choices for row in rows[:folded]))
        what = f"set-up: {', '.join(decided) or f'{folded} steps'} (--full shows each step)"
        yield from _wrapped(f"{f'1-{folded}':>4}   {rows[0].thread:<11} ", what)
    for row in rows[folded if folded > 1 else 0 :]:
        yield from _line(str(row.number), row.thread, row.function, row.place, row.stepped, row.choices, mine)
        through = next((at for at in row.stack if mine and at[1].file == mine), None)
        if through is not None and through[1] != row.place:
            yield from _line("", "", *through, True, [], mine)
        for number, failed in itertools.groupby(row.failed, key=lambda f: f[1]):
            yield from _wrapped(INDENT, f"{error_name(number)} from {', '.join(name for name, _ in failed)}")
        for name, old, new in row.changes:
            yield from _wrapped(INDENT, f"{name}: {old} -> {new}")
        if row.broken_at is not None and row.broken_at[1] != row.place:
            yield from _line("", "", *row.broken_at, True, [], mine)
        for verdict in row.broken:
            yield from _wrapped("      broken: " if row is rows[-1] else "      already broken: ", str(verdict), " " * 14)


def _line(
    number: str, thread: str, function: str, place: Place, stepped: bool, choices: Sequence[str], mine: str
) -> Iterator[str]:
    """Who, where and what; in two lines where one is too short."""
    head = f"{number:>4} {'>' if mine and place.file == mine else ' '} {thread:<11} {shown(place)!s:<26} {function}"
    what = source_line(place) if stepped else "decides"
    if choices:
        what += f"   [{', '.join(choices)}]"
    if len(head) + 2 + len(what) <= WIDTH:
        yield f"{head}: {what}"
    else:
        yield head
        yield from _wrapped(INDENT[2:], what)


def _wrapped(head: str, text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=indent or INDENT + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def ended(rows: Sequence[Row], rule: str, detail: str) -> Iterator[str]:
    """The line for a rule that no step of a table shows as broken: nothing happens any more, or nothing happened yet."""
    if not rows or not rows[-1].broken:
        yield from _wrapped("      broken: ", rule + (f": {detail}" if detail else ""), " " * 14)
