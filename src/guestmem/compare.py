# SPDX-License-Identifier: Apache-2.0
"""The table of protections and hypervisors: what holds, what goes wrong and how soon, and what it costs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from guestmem.checker.explore import Model, Outcome, default_memory
from guestmem.checker.source import Place, source_line
from guestmem.scenarios.cast import Cast
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS
from guestmem.scenarios.workload import Workload, price

__all__ = ["Cell", "cells", "comparable", "table"]

#: Who reaches into memory uninvited; for each, compare says what becomes of it.
ACCESSORS = {
    "zeropad0": "load_unaligned_zeropad",
    "kcore0": "copy_from_kernel_nofault",
    "snapshot0": "a plain read by a walker of memory",
    "process": "the VMM's process",
    "vmm": "the VMM",
    "vcpu0": "the guest",
}


@dataclass
class Cell:
    """One hypervisor under one protection.

    ``found`` are the broken rules as (accessor, rule, detail, steps, last line), the shortest first.
    """

    hypervisor: str
    protection: str
    verdict: str
    states: int
    transitions: int
    why: str
    found: list[tuple[str, str, str, int, str]] = field(default_factory=list)
    cost: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The cell as one object."""
        first = self.found[0] if self.found else None
        keys = ("who", "rule", "detail", "steps", "last")
        return {
            "hypervisor": self.hypervisor,
            "protection": self.protection,
            "verdict": self.verdict,
            "rule": first[1] if first else None,
            "steps": first[3] if first else None,
            "states": self.states,
            "transitions": self.transitions,
            "why": self.why or None,
            "violations": [dict(zip(keys, violation, strict=True)) for violation in self.found],
            "cost": self.cost,
        }


def comparable() -> list[str]:
    """The scenarios that can be compared: those with the standard cast."""
    return [s.name for s in SCENARIOS.values() if isinstance(s.world, type) and issubclass(s.world, Cast)]


def _digest(hypervisor: str, protection: str) -> str:
    """What the translated code is, so that what is the same code is explored once."""
    world = SCENARIOS[hypervisor].build(protection=PROTECTIONS[protection])
    return hashlib.sha256(Model.translate(world).source.encode()).hexdigest()


def _explore(hypervisor: str, protection: str, memory: int) -> Outcome:
    world = SCENARIOS[hypervisor].build(protection=PROTECTIONS[protection])
    return Model(world).explore(stop_at_first=False, memory=memory)


def _cell(hypervisor: str, protection: str, outcome: Outcome, cost: dict[str, int]) -> Cell:
    threads = SCENARIOS[hypervisor].build().threads
    found = []
    for v in sorted(outcome.violations, key=lambda v: v.steps):
        name = threads[v.thread].name if v.thread is not None else ""
        last = source_line(v.place) if isinstance(v.place, Place) else ""
        found.append((ACCESSORS.get(name, name), v.rule, v.detail, v.steps, last))
    for missed in outcome.missed:
        found.append(("", f"nothing shows: {missed}", "", 0, ""))
    return Cell(hypervisor, protection, outcome.verdict, outcome.states, outcome.transitions, outcome.why, found, cost)


def cells(wanted: Sequence[tuple[str, str]], workload: Workload, note: Callable[[str], None]) -> list[Cell]:
    """Explore and price cells, several at a time.  Cells whose translated code is the same are explored once."""
    workers = max(1, min(os.cpu_count() or 1, len(wanted)))
    memory = default_memory() // workers
    with ProcessPoolExecutor(workers) as pool:
        digests = dict(zip(wanted, pool.map(_digest, *zip(*wanted, strict=True)), strict=True))
        first = {digest: cell for cell, digest in reversed(digests.items())}
        running = {pool.submit(_explore, *cell, memory): digest for digest, cell in first.items()}
        outcomes: dict[str, Outcome] = {}
        for done in as_completed(running):
            outcomes[running[done]] = done.result()
            note(f"{len(outcomes)} of {len(running)} explored")
        return [
            _cell(h, p, outcomes[digests[h, p]], price(SCENARIOS[h], PROTECTIONS[p], workload)) for h, p in wanted
        ]


def table(cells: Sequence[Cell], workload: Workload) -> Iterator[str]:
    """The lines of the table."""
    yield f"{'hypervisor':<11} {'protection':<12} {'verdict':<11} {'states':>11} {'transitions':>12}  steps  first broken rule"
    for cell in cells:
        first = cell.found[0] if cell.found else None
        line = f"{cell.hypervisor:<11} {cell.protection:<12} {cell.verdict:<11} {cell.states:>11} {cell.transitions:>12}"
        if cell.why:
            line += f"         {cell.why}"
        yield f"{line}  {first[3]:>5}  {first[1]}" if first else line
        for who, rule, detail, steps, last in cell.found:
            yield f"{'':<12}{steps:>3} steps, {who}: {detail or rule}"
            if last:
                yield f"{'':<12}          at: {last}"
    yield ""
    yield f"cost of {workload.text}"
    for cell in cells:
        costs = "  ".join(f"{name} {count}" for name, count in cell.cost.items())
        yield f"{cell.hypervisor:<11} {cell.protection:<12} {costs}"
