# SPDX-License-Identifier: Apache-2.0
"""The defects of posted series, looked for: each found or not, by which rule, how soon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from guestmem.report import names
from guestmem.report.check import explored
from guestmem.report.together import explorations
from guestmem.upstream.catalogue import DEFECTS

__all__ = ["Finding", "findings", "look_for"]


class Finding(NamedTuple):
    """What came of looking for a defect.

    Attributes:
        number: the defect's.
        found: a rule is broken.
        rule, steps, states: which one, in how many steps, how many states were seen until then.
        seconds: of exploring, without those of a compiler.
        cured: the verdict of the same world without the defect; the empty string: not asked.
        way: the lines of the shortest counterexample.
    """

    number: str
    found: bool
    rule: str
    steps: int
    states: int
    seconds: float
    cured: str
    way: list[str]

    @property
    def ok(self) -> bool:
        """Whether it is as it must be: a defect is found, an innocent one is not, and what is cured holds."""
        return self.found != bool(DEFECTS[self.number].innocent) and self.cured in ("", "holds")

    def lines(self, steps: bool) -> Iterator[str]:
        """What ``guestmem defects`` prints of it."""
        defect = DEFECTS[self.number]
        verdict = f"found in {self.steps} steps: {self.rule}" if self.found else "not found"
        if defect.innocent and not self.found:
            verdict = f"innocent: {defect.innocent}"
        yield f"{self.number:<4} {verdict}"
        yield f"     {defect.scenario.text}"
        yield f"     {defect.source}"
        if self.cured:
            yield f"     without the defect: {self.cured}"
        if steps:
            yield from self.way

    def as_json(self) -> dict[str, Any]:
        """It as one object."""
        defect = DEFECTS[self.number]
        return {
            "id": self.number,
            "found": self.found,
            "innocent": bool(defect.innocent),
            "rule": self.rule or None,
            "steps": self.steps or None,
            "states": self.states,
            "seconds": round(self.seconds, 2),
            "source": defect.source,
            "text": defect.scenario.text,
            "cured": self.cured or None,
        }


def look_for(number: str, with_cured: bool, memory: int) -> Finding:
    """Look for a defect, and explore the same world without it.  ``memory`` is in bytes, for each."""
    defect = DEFECTS[number]
    check = explored(defect.scenario, memory=memory)
    cured = explored(defect.cured, memory=memory).verdict if with_cured else ""
    seconds = sum(rung.seconds for rung in check.rungs)
    return Finding(number, bool(check.rule), check.rule, check.steps, check.states, seconds, cured, str(check).splitlines())


def findings(*numbers: str, cured: bool = False, note: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """Look for defects, all unless some are named, as many at a time as there are CPUs; in their order.

    Raises :class:`~guestmem.model.Refused` for a number that none has.
    """
    wanted = [names.known(number, "defect", DEFECTS) for number in numbers] or list(DEFECTS)
    yield from explorations(look_for, [(number, cured) for number in wanted], note)
