# SPDX-License-Identifier: Apache-2.0
"""Each scenario gives what ``guestmem list`` says of it, with these counts, and is in lockstep with plain Python.

Both at its small size, under every protection; in lockstep at its own size too.
"""

import functools
from collections.abc import Callable

import pytest

from guestmem.checker import Model
from guestmem.checker.engine.compile import QUICK
from guestmem.checker.explore import Outcome, Steps
from guestmem.checker.translate import Translation
from guestmem.guest_memfd.library import Protection
from guestmem.machine.arch import Arch
from guestmem.model import World
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS
from guestmem.scenarios.host import GuestMemory
from guestmem.scenarios.hypervisors import OnKvm
from lockstep import Lockstep

Recorded = Callable[..., None]


def runs_along(build: Callable[[], World], model: Steps) -> bool:
    """Whether plain Python does the same, far enough to have shown something."""
    return max(Lockstep(build, model).run(seed, 200) for seed in range(6)) >= 40


@pytest.mark.parametrize("name", SCENARIOS)
def test_expected(name: str, recorded: Recorded) -> None:
    """What two protections come to alike, is explored once."""
    scenario = SCENARIOS[name]
    outcomes: dict[str, Outcome] = {}
    for protection, rule in scenario.expected.items():
        given = {"protection": PROTECTIONS[protection]} if protection else {}
        build = functools.partial(scenario.build, **given, **scenario.small)
        world = build()
        translation = Translation(world)
        if translation.digest not in outcomes:
            model = Model(world, translation=translation)
            outcomes[translation.digest] = model.explore()
            assert runs_along(build, model), protection
        outcome = outcomes[translation.digest]
        assert ({v.rule for v in outcome.violations}, outcome.missed) == ({rule} - {""}, []), protection
        steps = outcome.violations[0].steps if outcome.violations else None
        recorded(f"{name} {protection}", states=outcome.states, transitions=outcome.transitions, steps=steps)


@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.small])
def test_lockstep_at_its_own_size(name: str) -> None:
    build = functools.partial(SCENARIOS[name].build, protection=Protection.UNMAP)
    assert runs_along(build, Steps(build(), flags=QUICK))


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
