# SPDX-License-Identifier: Apache-2.0
"""What the options of a command say of a scenario."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from guestmem.cli.terminal import count

if TYPE_CHECKING:
    from guestmem.scenarios.catalogue import Scenario

SIZES = ("pages", "frames", "cpus", "vms")


def one_size(text: str) -> tuple[str, int]:
    """A size of a world's own, as slots=3."""
    name, equals, number = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write NAME=N, as in slots=3")
    return name, count(number)


def one_option(text: str) -> tuple[str, str]:
    """An option of a world, as asks=yes."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is no option: write NAME=VALUE, as in asks=yes")
    return name, value


def sizes(scenario: Scenario, arguments: argparse.Namespace) -> dict[str, Any]:
    """The sizes given for a world; without a number of frames, one more than pages."""
    from guestmem.report import names

    given = {name: getattr(arguments, name) for name in SIZES if getattr(arguments, name) is not None}
    return {**names.sizes(scenario, given), **dict(arguments.size)}


def options(scenario: Scenario, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options given for a world, and the protection if it has one."""
    from guestmem.report import names

    given = names.options(scenario, arguments.protection, arguments.arch, arguments.speculation)
    return {**given, **{name: names.option(scenario, name, value) for name, value in getattr(arguments, "option", ())}}
