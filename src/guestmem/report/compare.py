# SPDX-License-Identifier: Apache-2.0
"""The table of hypervisors and protections: what holds, what goes wrong and how soon, what it costs."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from guestmem.checker.explore import Model, Outcome
from guestmem.checker.frontend.source import source_line
from guestmem.checker.trace import error_name, replay
from guestmem.linux.trace import operations, pasted
from guestmem.model import Refused, alone
from guestmem.model.errors import NO_PANIC
from guestmem.report import explain, names, price
from guestmem.report.together import shares
from guestmem.rules import CONTENTS_SURVIVE, HOST_READS_SECRET, HOST_WRITES_PRIVATE, OUT_OF_SPECULATION
from guestmem.scenarios import workload as workloads
from guestmem.scenarios.cast import Cast, CrashDump, Walker
from guestmem.scenarios.catalogue import ARCHES, PROTECTIONS, SCENARIOS
from guestmem.scenarios.host import Host
from guestmem.scenarios.huge import Scanner
from guestmem.scenarios.users import Pinner
from guestmem.scenarios.workload import Workload

__all__ = ["ACCESSORS", "Cell", "Comparison", "Key", "comparable", "compare"]

#: Who reaches into memory uninvited, by the name of the thread.
UNINVITED = {
    "zeropad0": "load_unaligned_zeropad",
    "kcore0": "copy_from_kernel_nofault",
    "plain_read0": "plain read",
    "walker0": "walker",
    "crash_dump0": "crash dump",
    "scanner": "scan for migration",
    "pinner": "long-term pin",
}

#: Who can be added to the standard cast.
ACCESSORS: dict[str, type[Host]] = {"crash-dump": CrashDump, "gup": Pinner, "migration": Scanner, "walker": Walker}

#: What is compared unless something else is named.
HYPERVISORS = ("gunyah", "pkvm", "kvm")

#: What a broken rule means to the host or the guest, in the space of a cell.
WORDS = {
    NO_PANIC: "panic",
    HOST_READS_SECRET: "leak",
    HOST_WRITES_PRIVATE: "overwritten",
    OUT_OF_SPECULATION: "exposed",
    CONTENTS_SURVIVE: "data lost",
}
WIDTH, COLUMN = 80, 15


class Key(NamedTuple):
    """What a cell is about, by name; ``speculation``: the claim that no secret can be read by transient execution."""

    hypervisor: str
    protection: str
    arch: str
    speculation: bool = False
    accessors: tuple[str, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()

    def build(self) -> Cast:
        """The world to explore."""
        scenario = SCENARIOS[self.hypervisor]
        if self.accessors:
            bases: tuple[Any, ...] = (scenario.world, *(ACCESSORS[name] for name in self.accessors))
            scenario = replace(scenario, world=type(scenario.name, bases, {"__module__": __name__}))
        given = {"protection": PROTECTIONS[self.protection], "arch": ARCHES[self.arch], "speculation": self.speculation}
        world = scenario.build(**given, **dict(self.sizes))
        assert isinstance(world, Cast)
        return world

    def refused(self) -> str:
        """Why there is nothing to explore: no such host, or the library refuses the file; else the empty string."""
        scenario = SCENARIOS[self.hypervisor]
        if not self.arch.startswith(scenario.arch):
            return f"there is no {self.hypervisor} on {self.arch}"
        with alone():
            err = self.build().file.create()
        if err:
            return f"create: {error_name(err)}: the direct map of {self.arch} cannot be changed"
        return ""


class Found(NamedTuple):
    """A broken rule: by whose access, after how many steps, and the last line of the shortest way there."""

    who: str
    rule: str
    detail: str
    steps: int
    last: str


class Explored(NamedTuple):
    """What an exploration found, the shortest way first; ``way`` is the table of that one."""

    outcome: Outcome
    found: list[Found]
    way: list[str]


def word(rule: str) -> str:
    """What breaking a rule means, in a word."""
    return WORDS.get(rule, "violated")


@dataclass
class Cell:
    """One cell of the table; ``found`` has the shortest way first, and ``way`` the lines of its step table.

    ``verdict`` is that of an exploration, or "refused" where there is nothing to explore; ``why`` says why.  ``cost`` counts
    the work of the workload by kind.
    """

    key: Key
    verdict: str
    states: int
    transitions: int
    why: str
    found: list[Found] = field(default_factory=list)
    way: list[str] = field(default_factory=list)
    cost: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The cell as one object."""
        return {
            "hypervisor": self.key.hypervisor,
            "protection": self.key.protection,
            "arch": self.key.arch,
            "verdict": self.verdict,
            "rule": self.found[0].rule if self.found else None,
            "steps": self.found[0].steps if self.found else None,
            "states": self.states,
            "transitions": self.transitions,
            "why": self.why or None,
            "violations": [found._asdict() for found in self.found],
            "survive": self.survive(),
            "cost": self.cost,
        }

    def __str__(self) -> str:
        """The verdict in a word, and in how many steps."""
        if not self.found:
            return self.verdict
        return f"{word(self.found[0].rule)} {self.found[0].steps or ''}".rstrip()

    def survive(self) -> list[str]:
        """The uninvited accessors that do no harm; none is known to do none where not everything was explored."""
        if self.why:
            return []
        present = [thread.name for thread in self.key.build().threads]
        harmful = [found.who for found in self.found]
        return [who for name, who in UNINVITED.items() if name in present and who not in harmful]

    def details(self) -> Iterator[str]:
        """Who breaks what and how, who does no harm, and the work that was counted."""
        yield f"{self.key.hypervisor} {self.key.protection} {self.key.arch}: {self.verdict}"
        if self.verdict != "refused":
            yield f"   {self.states} states, {self.transitions} transitions"
        together: dict[tuple[int, str, str], list[str]] = {}
        for found in self.found:
            together.setdefault((found.steps, found.detail or found.rule, found.last), []).append(found.who)
        for (steps, detail, last), who in together.items():
            yield from _wrapped(f"{steps:>5}  {', '.join(who)}: {detail}", " " * 7)
            if detail not in last:
                yield from _wrapped(f"       {last}", " " * 9)
        if self.found and self.survive():
            yield from _wrapped(f"   no harm from {', '.join(self.survive())}", " " * 6)
        if self.cost:
            yield from _wrapped(f"   {price.in_words(self.cost)}", " " * 6)


@dataclass
class Comparison:
    """The table that ``guestmem compare`` prints.

    Attributes:
        cells: hypervisor by hypervisor, architecture by architecture, protection by protection.
        workload: whose work is counted.
        profile: what that work takes on a machine that was measured.
    """

    cells: list[Cell]
    workload: Workload
    profile: price.Profile

    @property
    def complete(self) -> bool:
        """Whether each cell has its answer."""
        return all(cell.verdict != "incomplete" for cell in self.cells)

    def __repr__(self) -> str:
        return f"<Comparison: {sum(cell.verdict == 'holds' for cell in self.cells)} of {len(self.cells)} cells hold>"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, *, steps: bool = False, details: bool = False) -> Iterator[str]:
        """The lines of the table.

        ``steps``: and for each row the shortest way to what is broken; ``details``: and for each cell who breaks what, who
        does no harm, and the work that was counted.
        """
        yield from self._matrix()
        yield from self._legend()
        yield ""
        yield from self._costs()
        if details:
            for cell in self.cells:
                yield ""
                yield from cell.details()
        if steps:
            for row in self._rows().values():
                for cell in [cell for cell in row if cell.way][:1]:
                    yield ""
                    yield f"{cell.key.hypervisor}, {cell.key.protection}: the shortest way to {word(cell.found[0].rule)}"
                    yield from cell.way

    def _rows(self) -> dict[str, list[Cell]]:
        """The cells by the name of their row."""
        several = len({cell.key.arch for cell in self.cells}) > 1
        rows: dict[str, list[Cell]] = {}
        for cell in self.cells:
            rows.setdefault(f"{cell.key.hypervisor} {cell.key.arch}" if several else cell.key.hypervisor, []).append(cell)
        return rows

    def _matrix(self) -> Iterator[str]:
        rows = self._rows()
        width = max(WIDTH - COLUMN * len(PROTECTIONS), *(len(name) + 2 for name in rows))
        protections = list(dict.fromkeys(cell.key.protection for cell in self.cells))
        yield f"{'':<{width}}{''.join(f'{name:<{COLUMN}}' for name in protections)}".rstrip()
        for name, row in rows.items():
            yield f"{name:<{width}}{''.join(f'{cell!s:<{COLUMN}}' for cell in row)}".rstrip()

    def _legend(self) -> Iterator[str]:
        """What the words in the cells mean."""
        rules = list(dict.fromkeys(cell.found[0].rule for cell in self.cells if cell.found))
        whys = list(dict.fromkeys((cell.verdict, cell.why) for cell in self.cells if cell.why))
        if not rules and not whys:
            return
        yield ""
        for rule in rules:
            yield from _wrapped(f"{word(rule) + ' N':<14}broken in N steps and no fewer: {rule}", " " * 14)
        for verdict, why in whys:
            yield from _wrapped(f"{verdict:<14}{why}", " " * 14)

    def _costs(self) -> Iterator[str]:
        """What each protection costs, row by row, and what it costs more than none."""
        yield from _wrapped(f"cost: {self.workload.text}; prices: {self.profile.machine}", "  ")
        for name, row in self._rows().items():
            none = next((cell for cell in row if cell.cost and cell.key.protection == "none"), None)
            alike: dict[str, list[str]] = {}
            for cell in row:
                if cell.cost:
                    alike.setdefault(self._price(cell, none), []).append(cell.key.protection)
            for number, (said, protections) in enumerate(alike.items()):
                head = f"{'' if number else name:<19} {', '.join(protections):<19} "
                yield from _wrapped(head + said, " " * 40)
        unpriced = self.profile.unpriced(dict.fromkeys(kind for cell in self.cells for kind in cell.cost))
        if unpriced:
            yield f"without a price: {', '.join(price.WORDS[kind][1] for kind in unpriced)}"

    def _price(self, cell: Cell, none: Cell | None) -> str:
        """What a cell costs; if there is a cell without protection, how much more than that."""
        took = self.profile.nanoseconds(cell.cost)
        if none is None or none is cell:
            free = {kind: cell.cost[kind] for kind in (*self.profile.unpriced(cell.cost), "refused") if kind in cell.cost}
            return f"{_time(took)}{f' and {price.in_words(free)}' if free else ''}"
        more = {kind: count - none.cost.get(kind, 0) for kind, count in cell.cost.items() if count > none.cost.get(kind, 0)}
        if not more:
            return "no more"
        return f"{_time(took - self.profile.nanoseconds(none.cost))} more: {price.in_words(more)}"

    def as_json(self) -> dict[str, Any]:
        """The table as one object."""
        cells = [{**cell.as_json(), "nanoseconds": round(self.profile.nanoseconds(cell.cost))} for cell in self.cells]
        return {"schema": 2, "workload": self.workload.text, "prices_of": self.profile.machine, "cells": cells}


def _time(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.2f} ms"


def _wrapped(line: str, indent: str) -> list[str]:
    return textwrap.wrap(
        line, WIDTH, subsequent_indent=indent, drop_whitespace=True, break_long_words=False, break_on_hyphens=False
    )


def comparable() -> list[str]:
    """The scenarios that can be compared: those with the standard cast."""
    return [s.name for s in SCENARIOS.values() if isinstance(s.world, type) and issubclass(s.world, Cast)]


def _digest(key: Key) -> str:
    """What there is to explore, so that what is the same is explored once; the empty string: refused."""
    return "" if key.refused() else Model.translate(key.build()).digest


def _explore(key: Key, memory: int) -> Explored:
    model = Model(key.build())
    outcome = model.explore(stop_at_first=False, memory=memory)
    found = [Found("", f"nothing shows: {missed}", "", 0, "") for missed in outcome.missed if not outcome.violations]
    way: list[str] = []
    for violation in outcome.by_rule_and_actor().values():
        rows = list(replay(key.build(), violation.slices + violation.cycle))
        row = rows[len(violation.slices) - 1]
        who = UNINVITED.get(row.thread, row.thread)
        changes = "; ".join(f"{name}: {old} -> {new}" for name, old, new in row.changes[:2])
        last = changes or (source_line(violation.place) if violation.place else row.text)
        found.append(Found(who, violation.rule, violation.detail, violation.steps, last))
        if not way:
            cycle, waits = len(violation.cycle), violation.waits
            way = list(explain.lines(rows, violation.rule, violation.detail, cycle, waits, mine="", full=False))
    return Explored(outcome, found, way)


def cells(wanted: Sequence[Key], workload: Workload, note: Callable[[str], None]) -> list[Cell]:
    """Explore and price cells, several at a time.  Cells whose translated code is the same are explored once."""
    workers, memory = shares(len(wanted))
    with ProcessPoolExecutor(workers) as pool:
        digests = dict(zip(wanted, pool.map(_digest, wanted), strict=True))
        first = {digest: key for key, digest in reversed(digests.items()) if digest}
        running = {pool.submit(_explore, key, memory): digest for digest, key in first.items()}
        explored: dict[str, Explored] = {}
        for done in as_completed(running):
            explored[running[done]] = done.result()
            note(f"{len(explored)} of {len(running)} explored")
        table = []
        for key in wanted:
            if not digests[key]:
                table.append(Cell(key, "refused", 0, 0, key.refused()))
                continue
            outcome, found, way = explored[digests[key]]
            cost = workloads.price(SCENARIOS[key.hypervisor], PROTECTIONS[key.protection], ARCHES[key.arch], workload)
            table.append(Cell(key, outcome.verdict, outcome.states, outcome.transitions, outcome.why, found, way, cost))
        return table


def compare(
    *hypervisors: str,
    protection: Sequence[str] = (),
    arch: Sequence[str] = ("arm64",),
    accessor: Sequence[str] = (),
    speculation: bool = False,
    trace: str | os.PathLike[str] | None = None,
    profile: str | os.PathLike[str] | None = None,
    note: Callable[[str], None] = lambda _: None,
    **sizes: int,
) -> Comparison:
    """Check hypervisors under protections and price a workload, as ``guestmem compare`` does.

    Without ``hypervisors``, Gunyah, pKVM and KVM; without ``protection``, all.  ``trace`` is a text of trace events whose
    operations are priced instead of the built-in boot, ``profile`` a file written by ``guestmem calibrate``; ``note`` is told
    how far it is.  Raises :class:`Refused` for a user's mistake, in a line, and
    :class:`~guestmem.linux.trace.text.NoText` for a trace that is no text.
    """
    chosen = [names.known(name, "hypervisor", comparable()) for name in hypervisors or HYPERVISORS]
    for name in protection:
        names.protection(name)
    for name in arch:
        names.arch(name)
    added = tuple(names.known(name, "accessor", ACCESSORS) for name in accessor)
    prices = price.profile(profile)
    workload = workloads.boot() if trace is None else _workload(os.fspath(trace))
    wanted = []
    for name in chosen:
        scenario = SCENARIOS[name]
        sized = names.sizes(scenario, sizes)
        scenario.build(**sized)  # a mistake is one of this process
        extra = speculation, added, tuple(sized.items())
        wanted += [Key(name, p, a, *extra) for a in arch for p in protection or PROTECTIONS]
    return Comparison(cells(wanted, workload, note), workload, prices)


def _workload(file: str) -> Workload:
    """The operations in a text of trace events."""
    try:
        return Workload(*operations.operations(file, pasted.lines(file)))
    except OSError as error:
        raise Refused(file, f"{error.strerror}", "name a text of ftrace") from error
