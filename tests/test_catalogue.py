# SPDX-License-Identifier: Apache-2.0
"""Each scenario gives what ``guestmem list`` says of it, with these counts, at one page and two frames."""

from collections.abc import Callable
from typing import Any

import pytest

from guestmem.checker import Model
from guestmem.guest_memfd.library import Protection
from guestmem.machine.arch import Arch
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS
from guestmem.scenarios.host import GuestMemory
from guestmem.scenarios.hypervisors import OnKvm

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


def test_a_ladder_has_each_rung_once_and_what_is_given_on_all() -> None:
    rungs = SCENARIOS["gunyah-bbml2"].ladder(protection=Protection.UNMAP)
    assert rungs[0] == {"pages": 1, "frames": 2, "arch": Arch.ARM64_BBML2, "protection": Protection.UNMAP}
    assert rungs.count(rungs[0]) == 1


def test_a_world_with_sizes_of_its_own_is_explored_at_them() -> None:
    class Sized(OnKvm):
        geometry = {"frames": 5}

    class Higher(Sized):
        ladder = [{}, {"pages": 3}]

    assert OnKvm.ladder is GuestMemory.ladder
    assert Sized.ladder == [{}]
    assert Higher.ladder == [{}, {"pages": 3}]
