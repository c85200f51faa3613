# SPDX-License-Identifier: Apache-2.0
"""``guestmem check --show`` prints what a phase hands on, and explores nothing; a block's ``repr`` ends."""

from pathlib import Path

import pytest

from guestmem.checker.translate import Translation
from guestmem.cli import main as cli
from worlds import world_in

WHILE = Path(__file__).with_name("goldens") / "golden_while.py"


@pytest.mark.parametrize("phase", ["tree", "ir"])
def test_a_phase_is_shown_as_its_golden(capsys: pytest.CaptureFixture[str], phase: str) -> None:
    assert cli.main(["check", f"{WHILE}:W", "--show", phase]) == 0
    assert capsys.readouterr().out == WHILE.with_suffix(f".{phase}").read_text() + "\n"


def test_the_c_that_is_shown_is_what_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", f"{WHILE}:W", "--show", "c"]) == 0
    assert capsys.readouterr().out == Translation(world_in(WHILE)).source + "\n"


def test_the_repr_of_a_block_does_not_follow_the_graph() -> None:
    (thread,) = Translation(world_in(WHILE)).bodies.threads
    assert [repr(block) for block in thread.blocks[:2]] == ["b0", "b1"]
    assert len(repr(thread)) < 2000
