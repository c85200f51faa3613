# SPDX-License-Identifier: Apache-2.0
"""docs/kernels.md says what docs/kernels.json has, and that has no failure."""

import importlib.util
from pathlib import Path

from guestmem.linux.facts import Facts

TOOL = Path(__file__).parents[2] / "tools" / "generate_kernels.py"
_spec = importlib.util.spec_from_file_location("generate_kernels", TOOL)
assert _spec is not None and _spec.loader is not None
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)


def test_the_page_is_made_of_the_results() -> None:
    text = tool.PAGE.read_text()
    made = tool.BEGIN + "\n".join(tool.page(tool.kept())) + "\n" + tool.END
    assert made in text, "run python tools/generate_kernels.py"


def test_no_row_failed_and_nothing_diverged_unexplained() -> None:
    for one in tool.kept():
        assert (one["failed"], one["divergences"], one["why"]) == ([], [], None), one["kernel"]
        assert set(one["model"]) == {"pass"}


def test_what_a_vmm_uses_follows_from_what_slots_take() -> None:
    assert tool.way(Facts()._asdict()) == "all memory from one file (1)"
    assert tool.way(Facts(bindable=(0,))._asdict()) == "private pages from a file (2)"
    assert tool.way(Facts(bindable=(), protected=())._asdict()) == "no guest_memfd (3)"
