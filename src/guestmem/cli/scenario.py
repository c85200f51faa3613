# SPDX-License-Identifier: Apache-2.0
"""Scenarios as the command line names them: their options, and counterexamples as files have them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from guestmem.cli.terminal import arch, count, protection

if TYPE_CHECKING:
    from guestmem.checker.explore import Violation
    from guestmem.scenarios.catalogue import Scenario

SIZES = ("pages", "frames", "cpus", "vms")


def one_size(text: str) -> tuple[str, int]:
    """A size of a world's own, as slots=3."""
    name, equals, number = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write NAME=N, as in slots=3")
    return name, count(number)


def sizes(scenario: Scenario, arguments: argparse.Namespace) -> dict[str, Any]:
    """The sizes given for a world; without a number of frames, one more than pages."""
    given = {name: getattr(arguments, name) for name in SIZES if getattr(arguments, name) is not None}
    if "pages" in given and "frames" in scenario.sizes:
        given.setdefault("frames", given["pages"] + 1)
    return {**given, **dict(arguments.size)}


def options(scenario: Scenario, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options given for a world, and the protection if it has one."""
    given: dict[str, Any] = {}
    if arguments.protection is not None:
        given["protection"] = protection(arguments.protection)
    elif scenario.protection is not None:
        given["protection"] = scenario.protection
    if arguments.arch is not None:
        given["arch"] = arch(arguments.arch)
    if arguments.speculation:
        given["speculation"] = True
    return given


def plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON has them."""
    from guestmem.scenarios.catalogue import ARCHES, PROTECTIONS

    names = {value: name for table in (PROTECTIONS, ARCHES) for name, value in table.items()}
    return {key: names.get(value, value) for key, value in given.items()}


def text(given: Mapping[str, Any]) -> str:
    """Options as a line has them."""
    return " ".join(f"{name}={value}" for name, value in plain(given).items())


def saved(name: str, given: Mapping[str, Any], violation: Violation) -> dict[str, Any]:
    """A counterexample as it is written to a file."""
    slices, cycle = ([[s.thread, list(s.choices), s.stepped] for s in part] for part in (violation.slices, violation.cycle))
    return {
        "schema": 1,
        "scenario": name,
        "options": plain(given),
        "rule": violation.rule,
        "detail": violation.detail,
        "slices": slices,
        "cycle": cycle,
        "waits": [wait.as_json() for wait in violation.waits],
    }
