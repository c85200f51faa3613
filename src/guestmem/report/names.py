# SPDX-License-Identifier: Apache-2.0
"""Scenarios, protections and architectures by the names that people type."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from guestmem.checker.frontend.classes import refuse_lost_overrides
from guestmem.checker.frontend.source import shown_file
from guestmem.guest_memfd.library import Protection
from guestmem.machine.arch import Arch
from guestmem.model import Refused, World
from guestmem.model.record import BoolType, EnumType, IntType
from guestmem.scenarios.catalogue import ARCHES, PROTECTIONS, Scenario, find
from guestmem.upstream.catalogue import DEFECTS

__all__ = ["arch", "known", "option", "options", "plain", "protection", "scenario", "sizes", "text", "world"]


def known(name: str, what: str, names: Collection[str]) -> str:
    """A name that is one of ``names``.  Raises :class:`Refused` for another."""
    if name not in names:
        raise Refused(name, f"no such {what}", f"use one of {', '.join(names)}")
    return name


def protection(name: str | Protection) -> Protection:
    """The protection with a name."""
    return name if isinstance(name, Protection) else PROTECTIONS[known(name, "protection", PROTECTIONS)]


def arch(name: str | Arch) -> Arch:
    """The architecture with a name."""
    return name if isinstance(name, Arch) else ARCHES[known(name, "architecture", ARCHES)]


def scenario(named: str | type[World]) -> Scenario:
    """The scenario or defect with a name, the world ``file.py:Name`` of a file, or a world of yours.  Raises :class:`Refused`."""
    if isinstance(named, str):
        found = DEFECTS[named].scenario if named in DEFECTS else find(named)
        refuse_lost_overrides(found.world)
        return found
    methods = (inspect.unwrap(method) for method in vars(named).values() if inspect.isfunction(method))
    file = next((method.__code__.co_filename for method in methods), named.__module__)
    return Scenario(f"{shown_file(file)}:{named.__name__}", (named.__doc__ or "").partition("\n")[0], named)


def sizes(scenario: Scenario, given: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes given for a world; without a number of frames, one more than pages.  Raises :class:`Refused` for no numbers."""
    found = dict(given)
    for name in scenario.sizes & found.keys():
        if not isinstance(found[name], int) or found[name] < 1:
            raise Refused(f"{name}={found[name]!r}", "no number of at least 1", f"write {name}=1")
    if "pages" in found and "frames" in scenario.sizes:
        found.setdefault("frames", found["pages"] + 1)
    return found


def options(
    scenario: Scenario,
    with_protection: str | Protection | None = None,
    on_arch: str | Arch | None = None,
    speculation: bool = False,
) -> dict[str, Any]:
    """The options given for a world; without a protection, one under which it should hold, if it has any."""
    given: dict[str, Any] = {}
    if with_protection is not None:
        given["protection"] = protection(with_protection)
    elif scenario.protection is not None:
        given["protection"] = scenario.protection
    if on_arch is not None:
        given["arch"] = arch(on_arch)
    if speculation:
        given["speculation"] = True
    return given


def option(scenario: Scenario, name: str, value: str) -> Any:
    """A field of a world, as a user writes its value: yes or no, a number, the name of a member.  Raises :class:`Refused`."""
    can = {
        n: f
        for n, f in scenario.world.fields().items()
        if isinstance(f.type, BoolType | EnumType | IntType) and f.kind == "scalar"
    }
    kind = can[known(name, f"option of {scenario.name}", sorted(can))].type
    if isinstance(kind, IntType):
        if not value.removeprefix("-").isdigit():
            raise Refused(f"{name}={value}", "no number", f"write {name}=1")
        return int(value)
    if isinstance(kind, EnumType):
        members = {member.name.lower().replace("_", "-"): member for member in kind.members}
        return members[known(value.lower().replace("_", "-").replace("+", "-"), f"value of {name}", members)]
    return known(value.lower(), f"value of {name}", ("yes", "no")) == "yes"


def world(
    name: str | type[World],
    *,
    protection: str | Protection | None = None,
    arch: str | Arch | None = None,
    speculation: bool = False,
    **given: Any,
) -> World:
    """A scenario's world, to be looked at and run as ordinary Python; what is ``given`` are its sizes and options.

    Raises :class:`Refused` for names and sizes that there are not.
    """
    found = scenario(name)
    return found.build(**sizes(found, given), **options(found, protection, arch, speculation))


def plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON has them."""
    names = {value: name for table in (PROTECTIONS, ARCHES) for name, value in table.items()}
    return {key: names.get(value, value) for key, value in given.items()}


def text(given: Mapping[str, Any]) -> str:
    """Options as a line has them."""
    return " ".join(f"{name}={value}" for name, value in plain(given).items())
