# SPDX-License-Identifier: Apache-2.0
"""What each construct of the language becomes: a world a file, and beside it the tree and the IR that it is translated to.

``pytest -n0 --record`` writes them anew.
"""

from pathlib import Path

import pytest

from guestmem.checker.show import ir_of, tree_of
from guestmem.checker.translate import Translation
from guestmem.model.world import World
from worlds import world_in

GOLDENS = Path(__file__).with_name("goldens")
SOURCES = sorted(GOLDENS.glob("*.py"))


def shown(world: World) -> dict[str, str]:
    """The text of each phase, by the suffix of its file."""
    translation = Translation(world)
    return {".tree": tree_of(translation.program), ".ir": ir_of(translation.bodies)}


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_what_becomes_of(source: Path, request: pytest.FixtureRequest) -> None:
    for suffix, text in shown(world_in(source)).items():
        golden = source.with_suffix(suffix)
        if request.config.getoption("--record"):
            golden.write_text(text)
        assert text == golden.read_text(), golden.name


def test_every_golden_has_its_source() -> None:
    assert {file.stem for file in GOLDENS.iterdir() if file.is_file()} == {source.stem for source in SOURCES}
