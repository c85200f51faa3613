# SPDX-License-Identifier: Apache-2.0
"""The real kernel as a host of the contract, through the bindings of ``guestmem.linux``.

It handles SIGBUS and SIGSEGV of its process, and leaves memory mapped, so it needs a process of its own: see
:class:`~guestmem.linux.process.Worker`.
"""

from __future__ import annotations

import functools
from typing import Any

from guestmem.contract.interface import Host, Missing
from guestmem.contract.kernel.children import Children
from guestmem.contract.kernel.files import Files
from guestmem.contract.kernel.liveupdate import LiveUpdates
from guestmem.contract.kernel.mappings import Mappings
from guestmem.contract.kernel.numa import Numa
from guestmem.contract.kernel.pins import Pins
from guestmem.contract.kernel.races import Races
from guestmem.contract.kernel.rings import Rings
from guestmem.contract.kernel.task import Task
from guestmem.contract.kernel.userfaults import Userfaults
from guestmem.contract.kernel.vms import Vms
from guestmem.contract.results import Result
from guestmem.linux.calls import NoNumber
from guestmem.linux.facts import Facts, find

__all__ = ["KernelHost"]


class KernelHost(Host):
    """The contract's user-space interface on this kernel.

    Raises OSError when there is no KVM to open.
    """

    name = "kernel"

    @functools.cached_property
    def facts(self) -> Facts:  # type: ignore[override]
        """Found when they are asked for first."""
        return find()

    def __init__(self) -> None:
        task = Task()
        mappings = Mappings(task)
        vms = Vms(task, mappings)
        shared = Files(task), Pins(task, mappings), Rings(task, mappings), Userfaults(task, mappings), Numa(mappings)
        others = LiveUpdates(task), Children(self, task, mappings), Races(self, task, mappings, vms)
        self.consist(task, mappings, vms, *shared, *others)

    def perform(self, name: str, *arguments: Any) -> Result:
        try:
            return super().perform(name, *arguments)
        except NoNumber as unknown:
            raise Missing(str(unknown)) from None
