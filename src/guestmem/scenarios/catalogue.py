# SPDX-License-Identifier: Apache-2.0
"""The scenarios by name, and what is expected of each under each protection."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guestmem.guest_memfd.library import Protection
from guestmem.machine.arch import Arch
from guestmem.machine.machine import HOST_READS_SECRET
from guestmem.model import Refused, World
from guestmem.model.errors import NO_PANIC
from guestmem.scenarios.host import CONTENTS_SURVIVE
from guestmem.scenarios.hypervisors import EagerOnGunyah, OnGunyah, OnKvm, OnPkvm, TwoOnGunyah, TwoOnKvm

__all__ = ["ARCHES", "PROTECTIONS", "SCENARIOS", "Scenario", "find"]

PROTECTIONS = {p.name.lower().replace("_", "+"): p for p in Protection}
ARCHES = {a.name.lower().replace("_", "-"): a for a in Arch}
HOLDS = ""


@dataclass(frozen=True)
class Scenario:
    """A world with a name.

    ``expected`` maps a protection to the rule that is broken first, or to the empty string where all rules hold.
    ``arch`` is what the names of the architectures begin with on which there is such a host.
    """

    name: str
    text: str
    world: Callable[..., World]
    options: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)
    arch: str = "arm64"

    def build(self, **options: Any) -> World:
        """The world, with sizes and options over the scenario's own."""
        return self.world(**{**self.options, **options})


def _each(none: str, unmap: str, fixup: str, both: str) -> dict[str, str]:
    return dict(zip(PROTECTIONS, (none, unmap, fixup, both), strict=True))


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "kvm",
            "plain KVM: nothing but the direct map keeps the host out",
            OnKvm,
            expected=_each(HOST_READS_SECRET, HOLDS, HOST_READS_SECRET, HOLDS),
            arch="",
        ),
        Scenario(
            "pkvm",
            "pKVM of Linux 7.3: a stage-2 abort is injected; guests take pages back without asking",
            OnPkvm,
            expected=_each(*[CONTENTS_SURVIVE] * 4),
        ),
        Scenario(
            "gunyah",
            "Gunyah: the host gets a synchronous external abort for a lent page",
            OnGunyah,
            expected=_each(NO_PANIC, HOLDS, NO_PANIC, HOLDS),
        ),
        Scenario(
            "pkvm-asks",
            "pKVM whose guests wait for the host's answer before they take a page back",
            OnPkvm,
            {"asks": True},
            _each(CONTENTS_SURVIVE, HOLDS, CONTENTS_SURVIVE, HOLDS),
        ),
        Scenario(
            "pkvm-6.12",
            "pKVM of Linux 6.12: a host access to a guest's page is a bug at EL2",
            OnPkvm,
            {"el2_panics": True, "asks": True},
            _each(NO_PANIC, HOLDS, NO_PANIC, HOLDS),
        ),
        Scenario(
            "gunyah-bbml2",
            "Gunyah on a direct map of block entries, split when a page leaves it, which may fail",
            OnGunyah,
            {"arch": Arch.ARM64_BBML2},
            _each(NO_PANIC, HOLDS, NO_PANIC, HOLDS),
        ),
        Scenario(
            "gunyah-two-vms",
            "two VMs on Gunyah that have the same page of a file, one after the other",
            TwoOnGunyah,
            expected=_each(NO_PANIC, HOLDS, NO_PANIC, HOLDS),
        ),
        Scenario(
            "gunyah-eager",
            "Gunyah, with a driver that lends a page when it becomes private, not when the guest touches it",
            EagerOnGunyah,
            expected=_each(NO_PANIC, HOLDS, NO_PANIC, HOLDS),
        ),
        Scenario(
            "kvm-two-vms",
            "two VMs on KVM that have the same page of a file, one after the other",
            TwoOnKvm,
            expected=_each(HOST_READS_SECRET, HOLDS, HOST_READS_SECRET, HOLDS),
            arch="",
        ),
    )
}


def find(name: str) -> Scenario:
    """The scenario with a name, or the world ``file.py:name`` of a user's file.  Raises :class:`Refused`."""
    if name in SCENARIOS:
        return SCENARIOS[name]
    file, colon, attribute = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise Refused(name, "no such scenario", f"use one of {', '.join(SCENARIOS)}; or file.py:name, a World in a file of yours")
    path = Path(file)
    if not path.is_file():
        raise Refused(name, f"there is no file {file}", "name a Python file with a World in it")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Refused:
        raise
    except Exception as error:
        at = _line_in(error, path)
        raise Refused(f"{file}{at}", f"{type(error).__name__}: {error}", "correct the file") from error
    world = getattr(module, attribute, None)
    if not (isinstance(world, type) and issubclass(world, World)):
        known = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, World) and v.__module__ == path.stem]
        raise Refused(name, f"{attribute!r} is no World of {file}", f"it has: {', '.join(known) or 'none'}")
    return Scenario(name, (world.__doc__ or "").partition("\n")[0], world)


def _line_in(error: Exception, path: Path) -> str:
    """The line of a file at which an error arose, as ``:line``."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f":{lines[-1]}" if lines else ""
