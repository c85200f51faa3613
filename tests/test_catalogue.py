# SPDX-License-Identifier: Apache-2.0
"""Each scenario gives what ``guestmem list`` says of it, with these counts, at one page and two frames."""

from collections.abc import Callable
from typing import Any

import pytest

from guestmem.checker import Model
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS

Recorded = Callable[[str, Any], None]


CASES = [(name, protection) for name, scenario in SCENARIOS.items() for protection in scenario.expected]


@pytest.mark.parametrize(("name", "protection"), CASES)
def test_expected(name: str, protection: str, recorded: Recorded) -> None:
    scenario = SCENARIOS[name]
    given = {"protection": PROTECTIONS[protection]} if protection else {}
    outcome = Model(scenario.build(**given, **scenario.small)).explore()
    assert {v.rule for v in outcome.violations} == {scenario.expected[protection]} - {""}
    assert outcome.missed == []
    steps = outcome.violations[0].steps if outcome.violations else None
    recorded(f"{name} {protection}", [outcome.states, outcome.transitions, steps])
