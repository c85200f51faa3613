# SPDX-License-Identifier: Apache-2.0
"""For each rule a bad twin that differs from the good one in one marked line, and is caught, always the same way."""

import inspect

import pytest

import twins
from guestmem.checker import Model
from guestmem.guest_memfd.library import Protection
from guestmem.scenarios.cast import Cast
from guestmem.scenarios.hypervisors import OnGunyah, OnKvm

UNUSED = "a folio is freed only when nothing refers to it or maps it"
FREE = "a free frame is in the direct map, owned by the host, mapped by no guest, flagged by nobody"

CAUGHT = [
    (twins.GunyahNoFlush, "no host access ends in a panic", 14, 45543),
    (twins.KvmRestoreFirst, "the host never reads a guest's secret", 23, 21830),
    (twins.KvmNoGuestFlush, "the host never writes a guest's private page", 20, 25918),
    (twins.KvmNotCleared, "a frame given to a guest holds no host data", 16, 28633),
    (twins.KvmNotScrubbed, "a frame given back holds no secret", 24, 22169),
    (twins.GunyahNotRestored, FREE, 13, 31015),
    (twins.KvmBoundTwice, "a page has at most one private owner", 25, 502862),
    (twins.KvmNotInvalidated, UNUSED, 21, 14990),
    (twins.KvmLockKept, "no lock is held at return", 3, 20462),
    (twins.KvmExitKept, "no deadlock; a wait ends", 7, 11677),
    (twins.KvmFolioLocked, "a thread does not take a lock it already holds", 12, 10707),
    (twins.KvmReferenceLeaked, "counters equal the holders they count", 9, 19600),
    (twins.KvmClearedAgain, "contents survive where the contract says so", 25, 20573),
    (twins.GunyahLentByOffset, "no host access ends in a panic", 22, 36412),
]


@pytest.mark.parametrize(("good", "states", "transitions"), [(OnKvm, 21782, 202070), (OnGunyah, 31302, 287463)])
def test_the_good_twin_holds(good: type[Cast], states: int, transitions: int) -> None:
    outcome = Model(good(protection=Protection.UNMAP, pages=1, frames=2)).explore()
    assert (outcome.verdict, outcome.violations) == ("holds", [])
    assert (outcome.states, outcome.transitions) == (states, transitions)


@pytest.mark.parametrize(("bad", "rule", "steps", "states"), CAUGHT, ids=lambda value: getattr(value, "__name__", ""))
def test_the_bad_twin_is_caught(bad: type[Cast], rule: str, steps: int, states: int) -> None:
    outcome = Model(bad(protection=Protection.UNMAP, pages=1, frames=2)).explore(stop_at_first=False)
    assert outcome.verdict == "violated"
    assert min(v.steps for v in outcome.violations if v.rule == rule) == steps
    assert outcome.states == states


def test_a_half_done_conversion_is_caught() -> None:
    outcome = Model(twins.KvmHalfConverted(protection=Protection.UNMAP, pages=2, frames=3)).explore()
    (violation,) = outcome.violations
    assert (violation.rule, violation.steps) == ("success means done, failure means nothing changed", 19)
    assert outcome.states == 122861


def test_a_bad_twin_differs_in_one_marked_line() -> None:
    worlds = [w for w in vars(twins).values() if inspect.isclass(w) and issubclass(w, Cast) and w.__module__ == "twins"]
    assert inspect.getsource(twins).count("# BUG: ") == len(worlds) == len(CAUGHT) + 1
