# SPDX-License-Identifier: Apache-2.0
"""The machine of the simulated host, and who decides what may happen on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from guestmem.contract.interface import Exhausted
from guestmem.contract.syscalls.hugetlb import HugetlbMemfd
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.machine.frame import Content, Frame
from guestmem.machine.machine import Hypervisor, Machine
from guestmem.mm.folio import Folio, Kernel
from guestmem.mm.secretmem import Secretmem
from guestmem.model import World, array, part, thread
from guestmem.model.control import InTurn, running
from guestmem.model.errors import Deadlock

__all__ = ["Booted", "Serial", "SimulatedMachine"]


class SimulatedMachine(World):
    """A host with some files of guest memory, a few of them of huge pages, and for each the guest that uses it."""

    geometry = {
        "files": 5,
        "pages": 48,
        "frames": 300,
        "huge": 2,
        "cpus": 1,
        "vms": 7,
        "vcpus": 1,
        "users": 30,
        "block": 0,
        "table": 0,
        "order": 4,
    }

    jobs: ClassVar[list[Callable[[], None]]]

    machine: Machine = part()
    hypervisor: Hypervisor = part()
    kernel: Kernel = part()
    driver: KvmDriver = part()
    files: list[GuestMemfd] = array("files")
    huge: list[HugetlbMemfd] = array("huge")
    secrets: list[Secretmem] = array("files")

    @thread("users")
    def user(self, number: int) -> None:
        """One of those who may hold a reference to a folio; in a race, does its job."""
        if number < len(self.jobs):
            self.jobs[number]()

    def setup(self) -> None:
        object.__setattr__(self, "jobs", [])  # not of the model's state
        self.machine.hypervisor = self.hypervisor
        self.machine.wire()
        self.kernel.machine = self.machine
        self.kernel.signals = True
        self.kernel.wire()
        for file, guest in zip((*self.files, *self.huge), self.machine.guests, strict=True):
            file.kernel = self.kernel
            file.driver = self.driver
            guest.running = True
        for secret in self.secrets:
            secret.kernel = self.kernel


class Serial(InTurn):
    """Nothing fails, and the allocator hands out the next free frame.

    Attributes:
        signal_after: a signal arrives when so many more frames were handed out; None: none does.
    """

    def __init__(self, folios: list[Folio]) -> None:
        super().__init__("frame", lambda frame: folios[frame].free)
        self.folios = folios
        self.signal_after: int | None = None
        self.chose = ""

    def blocked(self, function: Callable[..., Any]) -> None:
        """A frame that is free does not begin as many as are wanted; another does."""
        if self.chose != "frame":
            super().blocked(function)
        self.chose = ""
        self.last = (self.last + 1) % len(self.folios)

    def choose(self, n: int, label: str) -> int:
        self.chose = label
        if label == "a signal is pending?":
            return int(self.signal_after == 0)
        if label == "frame" and self.signal_after:
            self.signal_after -= 1
        try:
            return super().choose(n, label)
        except Deadlock as error:
            raise Exhausted("no frame is free") from error


class Booted:
    """A machine that runs: its world, who decides what may happen, and the bytes in its frames.

    Attributes:
        mm: the memory management of its kernel.
        cpu: the one on which system calls run.
        bytes: of frames, by offset, where they are not zero.
    """

    def __init__(self, **sizes: int) -> None:
        self.world = SimulatedMachine(**sizes)
        for file in self.world.huge:
            file.order = sizes.get("order", SimulatedMachine.geometry["order"])
        self.mm = self.world.kernel
        self.cpu = self.world.machine.cpus[0]
        self.serial = Serial(self.mm.folios)
        self.bytes: dict[Frame, dict[int, int]] = {}

    def running(self) -> AbstractContextManager[None]:
        """While the model's code runs."""
        return running(self.serial)

    def cells(self, frame: Frame) -> dict[int, int]:
        """The bytes of a frame; none but zeros where it is labelled so."""
        if frame.content is Content.ZERO or frame not in self.bytes:
            self.bytes[frame] = {}
        return self.bytes[frame]
