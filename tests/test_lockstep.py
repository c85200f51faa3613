# SPDX-License-Identifier: Apache-2.0
"""Plain Python and translated code do the same, in every scenario under every protection."""

import functools
from typing import Any

import pytest

from guestmem.checker.engine.compile import QUICK
from guestmem.checker.explore import Steps
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS
from lockstep import Lockstep


def built(name: str, protection: str) -> Any:
    return SCENARIOS[name].build(**({"protection": PROTECTIONS[protection]} if protection else {}))


#: Where no handler needs to learn it, ``fixup`` is translated to what ``none`` is.
CASES = [
    (name, protection)
    for name, scenario in SCENARIOS.items()
    for protection in scenario.expected
    if "fixup" not in protection or built(name, protection).kernel.fixup_stage2
]


@pytest.mark.parametrize(("name", "protection"), CASES)
def test_random_schedules(name: str, protection: str) -> None:
    build = functools.partial(built, name, protection)
    model = Steps(build(), flags=QUICK)
    longest = max(Lockstep(build, model).run(seed, 200) for seed in range(8))
    assert longest >= 40
