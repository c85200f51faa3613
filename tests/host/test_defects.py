# SPDX-License-Identifier: Apache-2.0
"""Each defect of a posted series is found by its rule, with these counts; the same world without it holds."""

from collections.abc import Callable

import pytest

from guestmem.report.check import explored
from guestmem.upstream.catalogue import DEFECTS

Recorded = Callable[..., None]


@pytest.mark.parametrize("number", DEFECTS)
def test_found_and_cured(number: str, recorded: Recorded) -> None:
    defect = DEFECTS[number]
    for scenario, verdict in ((defect.scenario, "violated"), (defect.cured, "holds")):
        found = explored(scenario)
        assert found.verdict == verdict, scenario.name
        assert bool(found.rule) == (verdict == "violated")
        recorded(scenario.name, states=found.states, transitions=found.transitions, steps=found.steps or None)
