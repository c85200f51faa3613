# SPDX-License-Identifier: Apache-2.0
"""For each rule a bad twin that differs from the good one in one marked line, and is caught, always the same way."""

from collections.abc import Callable
from typing import Any

import pytest

from guestmem.checker import Model
from guestmem.guest_memfd.library import Protection
from twins import TWINS, Twin

Recorded = Callable[[str, Any], None]
GOOD = {twin.world: twin for twin in sorted(TWINS, key=lambda twin: twin.pages)}


@pytest.mark.parametrize("world", GOOD, ids=lambda world: world.__name__)
def test_the_good_twin_holds(world: Any, recorded: Recorded) -> None:
    pages = GOOD[world].pages
    outcome = Model(world(protection=Protection.UNMAP, pages=pages, frames=pages + 1)).explore()
    assert (outcome.verdict, outcome.violations, outcome.missed) == ("holds", [], [])
    recorded(f"good twin {world.__name__}", [outcome.states, outcome.transitions])


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_the_bad_twin_is_caught(twin: Twin, recorded: Recorded) -> None:
    outcome = Model(twin.build(protection=Protection.UNMAP)).explore(stop_at_first=twin.pages > 1)
    assert outcome.verdict == "violated"
    steps = min((v.steps for v in outcome.violations if v.rule == twin.rule), default=None)
    assert steps is not None, sorted({(v.steps, v.rule) for v in outcome.violations})
    recorded(f"bad twin {twin.name}", [steps, outcome.states])
