# SPDX-License-Identifier: Apache-2.0
"""Posted libraries beside ours: what each breaks on each host, how soon, by whom; and which of its defects hides which."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.report import names
from guestmem.report.check import explored
from guestmem.report.together import explorations
from guestmem.upstream.libraries import HOSTS, LIBRARIES, fits, parts, scenario

__all__ = ["Broken", "Cell", "Layer", "Libraries", "Mask", "compare_libraries", "mask"]

WIDTH = 80


class Broken(NamedTuple):
    """A rule that a library breaks, in how many steps at least, and who breaks it soonest."""

    rule: str
    steps: int
    who: str


class Cell(NamedTuple):
    """What a library comes to on a host; ``way`` has the lines of its shortest counterexample."""

    library: str
    host: str
    verdict: str
    states: int
    broken: list[Broken]
    way: list[str]

    def __str__(self) -> str:
        if not self.broken:
            return self.verdict
        return f"{self.broken[0].steps} steps" + (f", {len(self.broken)} rules" if len(self.broken) > 1 else "")


def _explored(name: str, made_of: tuple[type[GuestMemfd], ...], host: str, memory: int) -> Cell:
    """Explore past what is broken, so that no rule hides another by being broken first."""
    if not all(fits(piece, host) for piece in made_of):
        return Cell(name, host, "is KVM's own", 0, [], [])
    library = made_of[0] if len(made_of) == 1 else type("Library", made_of, {"__module__": __name__})
    wanted = scenario(name, library, host)
    check = explored(wanted, all_rules=True, memory=memory)
    broken: dict[str, Broken] = {}
    for (rule, who), violation in check.rungs[0].found.items():
        broken.setdefault(rule, Broken(rule, violation.steps, who))
    return Cell(name, host, check.verdict, check.states, list(broken.values()), str(check).splitlines())


def _all(wanted: Sequence[tuple[str, tuple[type[GuestMemfd], ...], str]], note: Callable[[str], None]) -> list[Cell]:
    return list(explorations(_explored, wanted, note))


class Libraries(NamedTuple):
    """The table of libraries and hosts."""

    cells: list[Cell]

    @property
    def complete(self) -> bool:
        """Whether each cell has its answer."""
        return all(cell.verdict != "incomplete" for cell in self.cells)

    def lines(self, *, steps: bool = False) -> Iterator[str]:
        """The table, and below it each rule that is broken; ``steps``: and the shortest way there, for each library."""
        hosts = list(dict.fromkeys(cell.host for cell in self.cells))
        rows = list(dict.fromkeys(cell.library for cell in self.cells))
        yield f"{'library':<16}{''.join(f'{host:<21}' for host in hosts)}".rstrip()
        for row in rows:
            yield f"{row:<16}{''.join(f'{cell!s:<21}' for cell in self.cells if cell.library == row)}".rstrip()
        for row in rows:
            broken = [cell for cell in self.cells if cell.library == row and cell.broken]
            if broken:
                yield ""
                yield from textwrap.wrap(f"{row}: {LIBRARIES[row].__doc__}".partition("\n")[0], WIDTH)
            for cell in broken:
                for rule, n, who in cell.broken:
                    yield from textwrap.wrap(f"  {cell.host:<11}{n:>3} steps  {who}: {rule}", WIDTH, subsequent_indent=" " * 24)
            if broken and steps:
                yield from min(broken, key=lambda cell: cell.broken[0].steps).way

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def as_json(self) -> dict[str, Any]:
        """The table as one object."""
        cells = [{**cell._asdict(), "broken": [broken._asdict() for broken in cell.broken]} for cell in self.cells]
        for cell in cells:
            del cell["way"]
        return {"schema": 1, "cells": cells}


def compare_libraries(*libraries: str, hosts: Sequence[str] = (), note: Callable[[str], None] = lambda _: None) -> Libraries:
    """Explore libraries on hosts, all rules.  Raises :class:`~guestmem.model.Refused` for a name that none has."""
    for name in libraries:
        names.known(name, "library", LIBRARIES)
    for host in hosts:
        names.known(host, "host of libraries", HOSTS)
    return Libraries(_all([(name, (LIBRARIES[name],), host) for name in libraries for host in hosts or HOSTS], note))


class Layer(NamedTuple):
    """Parts of a library that break a rule first, while those below are hidden; ``broken`` None: they break nothing here."""

    parts: list[str]
    broken: Broken | None


class Mask(NamedTuple):
    """The defects of a library on a host, as they come to light when each is mended in turn."""

    library: str
    host: str
    layers: list[Layer]

    def lines(self) -> Iterator[str]:
        """Layer by layer, each hidden by those above."""
        yield f"{self.library} on {self.host}:"
        for number, (pieces, broken) in enumerate(self.layers, 1):
            said = f"{broken.steps} steps, {broken.who}: {broken.rule}" if broken else "nothing is broken by what is left"
            head = "first" if number == 1 else "with those mended"
            yield from textwrap.wrap(f"  {head}: {', '.join(pieces)}: {said}", WIDTH, subsequent_indent="    ")

    def as_json(self) -> dict[str, Any]:
        """It as one object."""
        layers = [{"parts": pieces, "broken": broken._asdict() if broken else None} for pieces, broken in self.layers]
        return {"library": self.library, "host": self.host, "layers": layers}


def mask(library: str, host: str, note: Callable[[str], None] = lambda _: None) -> Mask:
    """Mend the parts of a library, one after the other, the one that shows first.

    Raises :class:`~guestmem.model.Refused` for a name that none has.
    """
    left = parts(LIBRARIES[names.known(library, "library", LIBRARIES)])
    names.known(host, "host of libraries", HOSTS)
    layers = []
    while left:
        fewer = [tuple(other for other in left if other is not piece) or (GuestMemfd,) for piece in left]
        whole, *without = [cell.broken[:1] for cell in _all([(library, some, host) for some in (tuple(left), *fewer)], note)]
        guilty = [piece for piece, broken in zip(left, without, strict=True) if broken != whole] if whole else []
        guilty = guilty or left
        layers.append(Layer([piece.__name__ for piece in guilty], whole[0] if whole else None))
        left = [piece for piece in left if piece not in guilty]
    return Mask(library, host, layers)
