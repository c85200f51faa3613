# SPDX-License-Identifier: Apache-2.0
"""What is one step, and what a verdict owes to it."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guestmem.checker import Model
from guestmem.guest_memfd.library import Protection
from guestmem.model import Record
from guestmem.model.errors import NO_PANIC
from guestmem.scenarios.catalogue import SCENARIOS

FLOORS = ("machine", "mm", "guest_memfd", "hypervisors")
TEXT = (Path(__file__).parents[2] / "docs" / "steps.md").read_text(encoding="utf-8")


def section(title: str) -> list[list[str]]:
    """The cells of the rows below a title that begin with a name."""
    body = TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\| `.*\|$", body, re.M)]


def defined() -> Iterator[Any]:
    """The functions, classes and methods of the floors."""
    for floor in FLOORS:
        package = importlib.import_module(f"guestmem.{floor}")
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(found.name)).values():
                if getattr(value, "__module__", None) == found.name:
                    yield value
                    if inspect.isclass(value):
                        yield from vars(value).values()


def test_of_every_step_the_documentation_says_what_makes_it_one() -> None:
    kinds = set(re.findall(r"^\| (\w+) \|", TEXT.partition("## Steps")[0], re.M)) - {"kind"}
    rows = section("Steps")
    assert [row[0] for row in rows if row[1] not in kinds or (row[1] in ("abstraction", "lock") and not row[2])] == []
    assert sorted(row[0].strip("`") for row in rows) == sorted(f.__qualname__ for f in defined() if hasattr(f, "_step"))


def test_what_a_lock_guards_is_documented() -> None:
    guarded = [
        repr(field)
        for cls in defined()
        if inspect.isclass(cls) and issubclass(cls, Record)
        for field in cls.fields().values()
        if field.guard and field.owner is cls
    ]
    assert sorted(row[0].strip("`") for row in section("What a lock guards")) == sorted(guarded)


@pytest.mark.parametrize("name", ["kvm-walker", "gunyah-walker", "pkvm-walker"])
def test_unmap_holds_but_for_a_walker_that_lets_others_run_after_its_question(name: str) -> None:
    scenario = SCENARIOS[name]
    model = Model(scenario.build(protection=Protection.UNMAP, **scenario.small))
    found = model.explore(stop_at_first=False).violations
    assert {(model.world.threads[v.thread or 0].name, v.rule) for v in found} == {("walker0", NO_PANIC)}
