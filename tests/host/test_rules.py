# SPDX-License-Identifier: Apache-2.0
"""Every rule that a host can break is numbered, and the document has the numbers."""

from pathlib import Path

from guestmem.model.errors import GUARDED, NO_DEADLOCK, NO_PANIC, NO_SLEEP
from guestmem.rules import RULES
from guestmem.scenarios.catalogue import SCENARIOS
from twins import TWINS

ROOT = Path(__file__).parents[2]


def test_what_a_scenario_is_known_to_break_is_numbered() -> None:
    assert {rule for scenario in SCENARIOS.values() for rule in scenario.expected.values() if rule} <= RULES.keys()


def test_a_property_of_all_states_is_numbered() -> None:
    for scenario in SCENARIOS.values():
        assert {method._always for method in scenario.world.marked("_always")} <= RULES.keys()


def test_a_rule_has_a_twin_that_breaks_it() -> None:
    without = RULES.keys() - {twin.rule for twin in TWINS}
    assert without == {"hibernation and unloading are refused while pages are out"}


def test_the_document_has_the_numbers() -> None:
    text = (ROOT / "docs" / "model.md").read_text()
    for number, (name, asks) in enumerate(RULES.items(), 1):
        assert f"| {number} | {name} | {asks} |\n" in text


def test_only_rules_of_the_language_stand_outside() -> None:
    source = (ROOT / "src" / "guestmem" / "rules.py").read_text()
    assert {name for name in RULES if f'= "{name}"' not in source} == {NO_PANIC, GUARDED, NO_SLEEP, NO_DEADLOCK}
