# SPDX-License-Identifier: Apache-2.0
"""The table of hypervisors, protections and architectures: what holds, what goes wrong and how soon, what it costs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from guestmem.checker.explore import Model, Outcome, default_memory
from guestmem.checker.frontend.source import source_line
from guestmem.checker.trace import error_name, replay
from guestmem.model import alone
from guestmem.scenarios.cast import Cast, CrashDump, Walker
from guestmem.scenarios.catalogue import ARCHES, PROTECTIONS, SCENARIOS
from guestmem.scenarios.host import Host
from guestmem.scenarios.huge import Scanner
from guestmem.scenarios.users import Pinner
from guestmem.scenarios.workload import Workload, price

__all__ = ["ACCESSORS", "Cell", "Key", "cells", "comparable", "table"]

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


class Key(NamedTuple):
    """What a cell is about, by name; ``speculation``: the claim that no secret can be read by transient execution."""

    hypervisor: str
    protection: str
    arch: str
    speculation: bool
    accessors: tuple[str, ...] = ()

    def build(self) -> Cast:
        """The world to explore."""
        scenario = SCENARIOS[self.hypervisor]
        if self.accessors:
            bases: tuple[Any, ...] = (scenario.world, *(ACCESSORS[name] for name in self.accessors))
            scenario = replace(scenario, world=type(scenario.name, bases, {"__module__": __name__}))
        world = scenario.build(protection=PROTECTIONS[self.protection], arch=ARCHES[self.arch], speculation=self.speculation)
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


@dataclass
class Cell:
    """One cell of the table; ``found`` has the shortest way first.

    ``verdict`` is that of an exploration, or "refused" where there is nothing to explore; ``why`` says why.
    """

    key: Key
    verdict: str
    states: int
    transitions: int
    why: str
    found: list[Found] = field(default_factory=list)
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

    def survive(self) -> list[str]:
        """The uninvited accessors that do no harm; none is known to do none where not everything was explored."""
        if self.why:
            return []
        present = [thread.name for thread in self.key.build().threads]
        harmful = [found.who for found in self.found]
        return [who for name, who in UNINVITED.items() if name in present and who not in harmful]


def comparable() -> list[str]:
    """The scenarios that can be compared: those with the standard cast."""
    return [s.name for s in SCENARIOS.values() if isinstance(s.world, type) and issubclass(s.world, Cast)]


def _digest(key: Key) -> str:
    """What the translated code is, so that what is the same code is explored once; the empty string: refused."""
    return "" if key.refused() else hashlib.sha256(Model.translate(key.build()).source.encode()).hexdigest()


def _explore(key: Key, memory: int) -> tuple[Outcome, list[Found]]:
    model = Model(key.build())
    outcome = model.explore(stop_at_first=False, memory=memory)
    found = [Found("", f"nothing shows: {missed}", "", 0, "") for missed in outcome.missed if not outcome.violations]
    for violation in outcome.by_rule_and_actor().values():
        *_, row = replay(key.build(), violation.slices)
        who = UNINVITED.get(row.thread, row.thread)
        changes = "; ".join(f"{name}: {old} -> {new}" for name, old, new in row.changes[:2])
        last = changes or (source_line(violation.place) if violation.place else row.text)
        found.append(Found(who, violation.rule, violation.detail, violation.steps, last))
    return outcome, found


def cells(wanted: Sequence[Key], workload: Workload, note: Callable[[str], None]) -> list[Cell]:
    """Explore and price cells, several at a time.  Cells whose translated code is the same are explored once."""
    workers = max(1, min(os.cpu_count() or 1, len(wanted)))
    memory = default_memory() // workers
    with ProcessPoolExecutor(workers) as pool:
        digests = dict(zip(wanted, pool.map(_digest, wanted), strict=True))
        first = {digest: key for key, digest in reversed(digests.items()) if digest}
        running = {pool.submit(_explore, key, memory): digest for digest, key in first.items()}
        outcomes: dict[str, tuple[Outcome, list[Found]]] = {}
        for done in as_completed(running):
            outcomes[running[done]] = done.result()
            note(f"{len(outcomes)} of {len(running)} explored")
        table = []
        for key in wanted:
            if not digests[key]:
                table.append(Cell(key, "refused", 0, 0, key.refused()))
                continue
            outcome, found = outcomes[digests[key]]
            cost = price(SCENARIOS[key.hypervisor], PROTECTIONS[key.protection], ARCHES[key.arch], workload)
            table.append(Cell(key, outcome.verdict, outcome.states, outcome.transitions, outcome.why, found, cost))
        return table


def name(key: Key) -> str:
    """The columns that say which cell it is."""
    return f"{key.hypervisor:<11} {key.protection:<12} {key.arch:<12}"


def table(cells: Sequence[Cell], workload: Workload) -> Iterator[str]:
    """The lines of the table."""
    verdict = f"{'verdict':<11} {'states':>11} {'transitions':>12} {'steps':>6}  broken rule"
    yield f"{'hypervisor':<11} {'protection':<12} {'arch':<12} {verdict}"
    for cell in cells:
        line = f"{name(cell.key)} {cell.verdict:<11} {cell.states:>11} {cell.transitions:>12}"
        if cell.why:
            line += f"         {cell.why}"
        if cell.found:
            line += f" {cell.found[0].steps:>6}  {cell.found[0].rule}"
        yield line
        together: dict[tuple[int, str, str], list[str]] = {}
        for found in cell.found:
            together.setdefault((found.steps, found.detail or found.rule, found.last), []).append(found.who)
        for (steps, detail, last), who in together.items():
            yield f"{'':<24} {steps:>12}  {', '.join(who)}: {detail}"
            if detail not in last:
                yield f"{'':<39}{last}"
        if cell.found and cell.survive():
            yield f"{'':<24} {'no harm':>12}  {', '.join(cell.survive())}"
    yield ""
    yield f"cost of {workload.text}"
    for cell in cells:
        if cell.cost:
            yield f"{name(cell.key)} {'  '.join(f'{kind} {count}' for kind, count in cell.cost.items())}"
