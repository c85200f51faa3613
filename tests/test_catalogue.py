# SPDX-License-Identifier: Apache-2.0
"""Each scenario gives what ``guestmem list`` says of it, with these counts, at one page and two frames."""

import pytest

from guestmem.checker import Model
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS

#: States, transitions and steps without and with the direct map unmapped; "fixup" changes none of them.
COUNTS = {
    "kvm": ((4882, 44841, 17), (21782, 202070, None)),
    "pkvm": ((5673, 49315, 17), (9310, 85945, 25)),
    "gunyah": ((2930, 25681, 13), (31302, 287463, None)),
    "pkvm-asks": ((5255, 46082, 17), (14027, 131085, None)),
    "pkvm-6.12": ((2790, 24385, 13), (14027, 131085, None)),
    "gunyah-blocks": ((2930, 25681, 13), (46742, 429960, None)),
    "gunyah-two-vms": ((8160, 77499, 13), (131408, 1401626, None)),
}


@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_expected(name: str, protection: str) -> None:
    scenario = SCENARIOS[name]
    outcome = Model(scenario.build(protection=PROTECTIONS[protection], pages=1, frames=2)).explore()
    assert {v.rule for v in outcome.violations} == {scenario.expected[protection]} - {""}
    assert outcome.missed == []
    steps = outcome.violations[0].steps if outcome.violations else None
    assert (outcome.states, outcome.transitions, steps) == COUNTS[name]["unmap" in protection]
