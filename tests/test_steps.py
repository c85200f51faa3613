# SPDX-License-Identifier: Apache-2.0
"""What is one step, and what a verdict owes to it."""

import pytest

from guestmem.checker import Model
from guestmem.guest_memfd.library import Protection
from guestmem.model.errors import NO_PANIC
from guestmem.scenarios.catalogue import SCENARIOS


@pytest.mark.parametrize("name", ["kvm-walker", "gunyah-walker", "pkvm-walker"])
def test_unmap_holds_but_for_a_walker_that_lets_others_run_after_its_question(name: str) -> None:
    scenario = SCENARIOS[name]
    model = Model(scenario.build(protection=Protection.UNMAP, **scenario.small))
    found = model.explore(stop_at_first=False).violations
    assert {(model.world.threads[v.thread or 0].name, v.rule) for v in found} == {("walker0", NO_PANIC)}
