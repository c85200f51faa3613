# SPDX-License-Identifier: Apache-2.0
"""For each rule a bad twin that differs from the good one in one marked line, and is caught, always the same way."""

from collections.abc import Callable
from errno import EOPNOTSUPP
from typing import Any

import pytest

from guestmem.checker import Model
from guestmem.machine.arch import Arch
from guestmem.model import alone
from guestmem.scenarios.cast import RunningVm, Vcpus
from guestmem.scenarios.hypervisors import KvmHost
from guestmem.scenarios.secretmem import Unsplittable
from twins import TWINS, Twin

Recorded = Callable[..., None]


class RunningOnKvm(KvmHost, Vcpus, RunningVm):
    """A VM on KVM, and its VMM."""


def good_name(twin: Twin) -> str:
    """The good twin that a bad one belongs to; the largest of the standard cast stands for the smaller."""
    return " ".join([twin.world.__name__, *(f"{key}={getattr(value, 'name', value)}" for key, value in twin.options.items())])


GOOD = {good_name(twin): twin for twin in sorted(TWINS, key=lambda twin: twin.pages)}


@pytest.mark.parametrize("name", GOOD)
def test_the_good_twin_holds(name: str, recorded: Recorded) -> None:
    twin = GOOD[name]
    world: Any = twin.build(twin.world)
    if twin.options.get("arch") is Arch.ARM64_BLOCKS and twin.world is not Unsplittable:
        with alone():  # there is nothing else to show
            assert world.file.create() == -EOPNOTSUPP
        return
    outcome = Model(world).explore()
    assert (outcome.verdict, outcome.violations, outcome.missed) == ("holds", [], [])
    recorded(f"good twin {name}", states=outcome.states, transitions=outcome.transitions)


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_the_bad_twin_is_caught(twin: Twin, recorded: Recorded) -> None:
    outcome = Model(twin.build(twin.variant())).explore(stop_at_first=twin.pages > 1)
    assert outcome.verdict == "violated"
    steps = min((v.steps for v in outcome.violations if v.rule == twin.rule), default=None)
    assert twin.rule in outcome.missed or steps is not None, sorted({(v.steps, v.rule) for v in outcome.violations})
    recorded(f"bad twin {twin.name}", steps=steps, states=outcome.states)


@pytest.mark.parametrize("shifted", [False, True])
def test_a_gfn_taken_for_a_page_offset_shows_where_they_differ(shifted: bool) -> None:
    twin = next(twin for twin in TWINS if twin.name == "GfnForPgoff")._replace(world=RunningOnKvm, options={"shifted": shifted})
    world = twin.build(twin.variant())
    assert Model(world).explore().verdict == ("violated" if shifted else "holds")
