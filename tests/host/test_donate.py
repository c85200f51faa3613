# SPDX-License-Identifier: Apache-2.0
"""The shared test model: the numbers that other checkers report for it, exactly."""

import pytest

from donate import Donate
from guestmem.checker import Model
from lockstep import Lockstep


@pytest.mark.parametrize(("pages", "states", "transitions"), [(2, 1728, None), (3, 41472, None), (4, 995328, 10174464)])
def test_states_and_transitions(pages: int, states: int, transitions: int | None) -> None:
    outcome = Model(Donate(pages=pages)).explore()
    assert outcome.verdict == "holds"
    assert outcome.states == states == 3 * 24**pages
    assert transitions in (None, outcome.transitions)


def test_a_stale_translation_is_found_in_four_steps() -> None:
    outcome = Model(Donate(pages=4, bug=True)).explore()
    assert outcome.verdict == "violated"
    (violation,) = outcome.violations
    assert violation.steps == 4
    assert [slice_.choices[0] for slice_ in violation.slices] == [0, 6, 7, 11]  # acquire, allocate, zap, donate


def test_at_most_24_bytes_a_state() -> None:
    outcome = Model(Donate(pages=4)).explore()
    assert outcome.bytes <= 24 * outcome.states


@pytest.mark.parametrize("seed", range(5))
def test_plain_python_and_translated_code_agree(seed: int) -> None:
    model = Model(Donate(pages=2))
    assert Lockstep(lambda: Donate(pages=2), model).run(seed, 200) == 200
