# SPDX-License-Identifier: Apache-2.0
"""Random programs of the model language are refused by name, or run in lockstep with plain Python."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from programs import Tally, programs, run


def test_random_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = Tally()

    @settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(programs())
    def each(text: str) -> None:
        run(text, Path(scratch), tally)

    with tempfile.TemporaryDirectory() as scratch:
        monkeypatch.setenv("XDG_CACHE_HOME", scratch)
        each()
    assert tally.compared >= 0.6 * tally.drawn
    assert tally.steps >= 5 * tally.compared
