# SPDX-License-Identifier: Apache-2.0
"""Scenarios as the command line names them: their options, and counterexamples as files have them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from guestmem.cli.terminal import Usage, arch, protection

if TYPE_CHECKING:
    from guestmem.checker.explore import Violation
    from guestmem.model.world import World
    from guestmem.scenarios.catalogue import Scenario


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sizes and options given for a world."""
    wanted = ("pages", "frames", "cpus", "vms", "speculation")
    given = {n: getattr(arguments, n) for n in wanted if getattr(arguments, n) is not None}
    if arguments.arch is not None:
        given["arch"] = arch(arguments.arch)
    if arguments.protection is not None:
        given["protection"] = protection(arguments.protection)
    if "pages" in given and "frames" not in given:
        given["frames"] = given["pages"] + 1
    return given


def build(scenario: Scenario, given: dict[str, Any]) -> World:
    """The world; sizes it does not know, and errors of its own, are the user's mistake."""
    from guestmem.model.errors import Verdict

    world = scenario.world
    if "frames" not in getattr(world, "geometry", {}):
        given.pop("frames", None)
    try:
        return scenario.build(**given)
    except (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError, Verdict) as error:
        raise Usage(f"{scenario.name}: {type(error).__name__} while it is built: {error}: correct its setup()") from error


def plain(given: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON has them."""
    from guestmem.scenarios.catalogue import ARCHES, PROTECTIONS

    names = {value: name for table in (PROTECTIONS, ARCHES) for name, value in table.items()}
    return {key: names.get(value, value) for key, value in given.items()}


def saved(name: str, given: dict[str, Any], violation: Violation) -> dict[str, Any]:
    """A counterexample as it is written to a file."""
    slices = [[s.thread, list(s.choices), s.stepped] for s in violation.slices]
    return {
        "schema": 1,
        "scenario": name,
        "options": plain(given),
        "rule": violation.rule,
        "detail": violation.detail,
        "slices": slices,
    }
