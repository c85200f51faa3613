# SPDX-License-Identifier: Apache-2.0
"""Counterexamples as people read them: replayed in plain Python, a row for each step, with what it changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from guestmem.checker.source import Place, source_line
from guestmem.model.errors import Verdict
from guestmem.model.schedule import Schedule, Slice
from guestmem.model.world import World, snapshot

__all__ = ["Row", "replay", "table"]


@dataclass
class Row:
    """One step of a trace.

    ``changes`` are (field, before, after); ``choices`` what the world decided; ``broken`` the rule that this step broke.
    """

    number: int
    thread: str
    function: str
    place: Place
    choices: list[str] = field(default_factory=list)
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    broken: str = ""

    @property
    def text(self) -> str:
        """The line of source at which the step was called."""
        return source_line(self.place)


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str, str]]:
    return [(name, before[name], value) for name, value in after.items() if before[name] != value]


def replay(world: World, slices: Iterable[Slice], debug_at: int | None = None) -> Iterator[Row]:
    """Run a trace as ordinary Python; a row for each slice, with the properties that it newly breaks.

    The row of a step that breaks a rule itself is the last.

    ``debug_at``: enter the debugger in front of the step with this number.
    """
    with Schedule(world) as schedule:
        before = dict(snapshot(world))
        known = [str(verdict) for verdict in schedule.broken()]
        for number, slice_ in enumerate(slices, 1):
            schedule.debug = number == debug_at
            row = Row(number, world.threads[slice_.thread].name, "", Place("", 0))
            ended = False
            try:
                schedule.run(slice_)
                broken = [str(verdict) for verdict in schedule.broken()]
                row.broken = "; ".join(rule for rule in broken if rule not in known)
                known = broken
            except Verdict as verdict:
                row.broken = str(verdict)
                ended = True
            event = schedule.event
            if event is not None:
                row.function, row.place = event.function, Place(event.file, event.line)
            row.choices = [text for text in map(str, schedule.choices) if text]
            after = dict(snapshot(world))
            row.changes = _changed(before, after)
            before = after
            yield row
            if ended:
                return


def table(rows: Iterable[Row]) -> Iterator[str]:
    """The lines of a step table: who, which line of source, what it changed; the broken rule last.

    Rules that were broken on the way, which another trace shows, are said where they were.
    """
    broken = ""
    for row in rows:
        if broken:
            yield f"      already broken: {broken}"
        where = f"{row.function}: {row.text}" if row.text else "decides"
        chosen = f"   [{', '.join(row.choices)}]" if row.choices else ""
        yield f"{row.number:>4}  {row.thread:<10} {where}{chosen}"
        for name, old, new in row.changes:
            yield f"{'':>4}  {'':<10}     {name}: {old} -> {new}"
        broken = row.broken
    if broken:
        yield f"      broken: {broken}"
