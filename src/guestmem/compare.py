# SPDX-License-Identifier: Apache-2.0
"""The table of protections and hypervisors: what holds, what goes wrong and how soon, and what it costs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from guestmem.checker.explore import Model, Outcome, default_memory
from guestmem.checker.source import source_line
from guestmem.checker.trace import replay
from guestmem.model import World
from guestmem.scenarios.cast import Cast
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS
from guestmem.scenarios.workload import Workload, price

__all__ = ["Cell", "cells", "comparable", "table"]

#: Who reaches into memory uninvited, by the name of the thread.
UNINVITED = {
    "zeropad0": "load_unaligned_zeropad",
    "kcore0": "copy_from_kernel_nofault",
    "plain_read0": "plain read",
}


class Found(NamedTuple):
    """A broken rule: by whose access, after how many steps, and the last line of the shortest way there."""

    who: str
    rule: str
    detail: str
    steps: int
    last: str


@dataclass
class Cell:
    """One hypervisor under one protection; ``found`` has the shortest way first."""

    hypervisor: str
    protection: str
    verdict: str
    states: int
    transitions: int
    why: str
    found: list[Found] = field(default_factory=list)
    cost: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The cell as one object."""
        return {
            "hypervisor": self.hypervisor,
            "protection": self.protection,
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
        """The uninvited accessors that do no harm."""
        return [who for who in UNINVITED.values() if who not in [found.who for found in self.found]]


def comparable() -> list[str]:
    """The scenarios that can be compared: those with the standard cast."""
    return [s.name for s in SCENARIOS.values() if isinstance(s.world, type) and issubclass(s.world, Cast)]


def _digest(hypervisor: str, protection: str) -> str:
    """What the translated code is, so that what is the same code is explored once."""
    world = SCENARIOS[hypervisor].build(protection=PROTECTIONS[protection])
    return hashlib.sha256(Model.translate(world).source.encode()).hexdigest()


def _explore(hypervisor: str, protection: str, memory: int) -> tuple[Outcome, list[Found]]:
    def build() -> World:
        return SCENARIOS[hypervisor].build(protection=PROTECTIONS[protection])

    model = Model(build())
    outcome = model.explore(stop_at_first=False, memory=memory)
    found = [Found("", f"nothing shows: {missed}", "", 0, "") for missed in outcome.missed]
    for violation in sorted(outcome.violations, key=lambda v: v.steps):
        *_, row = replay(build(), violation.slices)
        who = UNINVITED.get(row.thread, row.thread)
        changes = "; ".join(f"{name}: {old} -> {new}" for name, old, new in row.changes[:2])
        last = changes or (source_line(violation.place) if violation.place else row.text)
        found.append(Found(who, violation.rule, violation.detail, violation.steps, last))
    return outcome, found


def cells(wanted: Sequence[tuple[str, str]], workload: Workload, note: Callable[[str], None]) -> list[Cell]:
    """Explore and price cells, several at a time.  Cells whose translated code is the same are explored once."""
    workers = max(1, min(os.cpu_count() or 1, len(wanted)))
    memory = default_memory() // workers
    with ProcessPoolExecutor(workers) as pool:
        digests = dict(zip(wanted, pool.map(_digest, *zip(*wanted, strict=True)), strict=True))
        first = {digest: cell for cell, digest in reversed(digests.items())}
        running = {pool.submit(_explore, *cell, memory): digest for digest, cell in first.items()}
        outcomes: dict[str, tuple[Outcome, list[Found]]] = {}
        for done in as_completed(running):
            outcomes[running[done]] = done.result()
            note(f"{len(outcomes)} of {len(running)} explored")
        table = []
        for hypervisor, protection in wanted:
            outcome, found = outcomes[digests[hypervisor, protection]]
            cost = price(SCENARIOS[hypervisor], PROTECTIONS[protection], workload)
            counts = outcome.states, outcome.transitions
            table.append(Cell(hypervisor, protection, outcome.verdict, *counts, outcome.why, found, cost))
        return table


def table(cells: Sequence[Cell], workload: Workload) -> Iterator[str]:
    """The lines of the table."""
    yield f"{'hypervisor':<11} {'protection':<12} {'verdict':<11} {'states':>11} {'transitions':>12} {'steps':>6}  broken rule"
    for cell in cells:
        line = f"{cell.hypervisor:<11} {cell.protection:<12} {cell.verdict:<11} {cell.states:>11} {cell.transitions:>12}"
        if cell.why:
            line += f"         {cell.why}"
        if cell.found:
            line += f" {cell.found[0].steps:>6}  {cell.found[0].rule}"
        yield line
        together: dict[tuple[int, str, str], list[str]] = {}
        for found in cell.found:
            together.setdefault((found.steps, found.detail or found.rule, found.last), []).append(found.who)
        for (steps, detail, last), who in together.items():
            yield f"{'':<11} {steps:>12}  {', '.join(who)}: {detail}"
            if detail not in last:
                yield f"{'':<26}{last}"
        if cell.found and cell.survive():
            yield f"{'':<11} {'no harm':>12}  {', '.join(cell.survive())}"
    yield ""
    yield f"cost of {workload.text}"
    for cell in cells:
        costs = "  ".join(f"{name} {count}" for name, count in cell.cost.items())
        yield f"{cell.hypervisor:<11} {cell.protection:<12} {costs}"
