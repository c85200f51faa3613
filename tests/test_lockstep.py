# SPDX-License-Identifier: Apache-2.0
"""Plain Python and translated code do the same, in every scenario under every protection."""

import functools

import pytest

from guestmem.checker import Model
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS
from lockstep import Lockstep

CASES = [(name, protection) for name, scenario in SCENARIOS.items() for protection in scenario.expected]


@pytest.mark.parametrize(("name", "protection"), CASES)
def test_random_schedules(name: str, protection: str) -> None:
    given = {"protection": PROTECTIONS[protection]} if protection else {}
    build = functools.partial(SCENARIOS[name].build, **given)
    model = Model(build())
    longest = max(Lockstep(build, model).run(seed, 300) for seed in range(8))
    assert longest >= 40
