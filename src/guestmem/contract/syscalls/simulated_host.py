# SPDX-License-Identifier: Apache-2.0
"""The simulated host as a whole, with what needs all of it: children, limits, races."""

from __future__ import annotations

from typing import Any

from guestmem.contract.interface import PAGE_SIZE, Host, Unmodelled
from guestmem.contract.operations import OPERATIONS
from guestmem.contract.results import EINTR, EINVAL, EIO, ENOSYS, EPERM, Denied, Failure, Other, Result, Signal, failed
from guestmem.contract.syscalls.files import NO_SUCH_OPERATION, Files
from guestmem.contract.syscalls.liveupdate import LiveUpdates
from guestmem.contract.syscalls.machine import Booted, SimulatedMachine
from guestmem.contract.syscalls.mappings import Mappings
from guestmem.contract.syscalls.numa import Numa
from guestmem.contract.syscalls.objects import Gmem, Vcpu, Vm
from guestmem.contract.syscalls.race import race
from guestmem.contract.syscalls.slot_race import ClosedFile, DeletedSlot, MovedSlot, SlotRace, race_slot
from guestmem.contract.syscalls.task import Task
from guestmem.contract.syscalls.userfaults import Userfaults
from guestmem.contract.syscalls.users import Users
from guestmem.contract.syscalls.vms import Vms
from guestmem.linux.facts import Facts
from guestmem.linux.uapi import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE

__all__ = ["SimulatedHost"]

SOME_PAGES = 3  # that a signal lets through
LARGEST = 9  # 2 MiB
OTHER_PROCESS = "a VM is used by the process that made it"


class SimulatedHost(Host):
    """The contract's user-space interface on the model.

    Attributes:
        facts: of the machine whose kernel the model stands for.
        task, files, mappings, users, vms: its parts.
    """

    name = "model"
    facts = Facts()
    # What its parts are made of.
    Task, Files, Mappings, Users, Vms = Task, Files, Mappings, Users, Vms

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.boot()

    def boot(self) -> None:
        """A new machine, with nothing open."""
        self.kernel = Booted(**{**room(self.facts.huge_order), **self.sizes})
        self.task = self.Task(self.kernel, self.facts)
        self.files = self.Files(self.task)
        self.mappings = self.Mappings(self.task, self.files)
        self.users = self.Users(self.task, self.mappings)
        self.vms = self.Vms(self.task, self.users)
        parts = self.task, self.files, self.mappings, self.users, self.vms
        others = Userfaults(self.task, self.mappings), Numa(self.task, self.mappings), LiveUpdates(self.task)
        self.consist(*parts, *others, Together(self))

    def resemble(self, facts: Facts) -> None:
        """Have what the machine has whose kernel the model is compared with."""
        self.facts = facts
        self.boot()

    def finish(self) -> Result:
        """Close everything.  Where that breaks a rule, or is interrupted, a new machine takes over."""
        ended: Result = Other("interrupted")
        try:
            ended = super().finish()
        finally:
            if failed(ended):
                self.boot()
        return ended


def room(order: int) -> dict[str, int]:
    """Sizes of a machine for files of a few huge pages of 2^order pages; of no huge pages, if they are too large for it."""
    if not 0 < order <= LARGEST:
        return {"order": 0, "huge": 0, "vms": SimulatedMachine.geometry["files"]}
    if order <= SimulatedMachine.geometry["order"]:
        return {"order": order}
    return {"order": order, "pages": 2 << order, "frames": 5 << order}


class Together:
    """What needs several parts of a host."""

    def __init__(self, host: SimulatedHost) -> None:
        self.host = host
        self.kernel, self.task, self.files, self.vms = host.kernel, host.task, host.files, host.vms

    def in_full_table(self, operation: str, *arguments: Any) -> Result:
        self.task.full = True
        try:
            return self.host.raising(operation, *arguments)
        finally:
            self.task.full = False

    def times_changed(self, fd: Result, operation: str, *arguments: Any) -> Result:
        gmem = self.task.of_kind(fd, Gmem, EINVAL, NO_SUCH_OPERATION)
        gmem.changed = False
        self.host.perform(operation, *arguments)
        return int(gmem.changed), int(gmem.changed)

    def in_child(self, operation: str, *arguments: Any) -> Result:
        if operation == "set_user_memory_region2":
            self.vms.address(arguments[5], arguments[4])
        if OPERATIONS[operation].of_vm and isinstance(self.task.file(arguments[0]), (Vm, Vcpu)):
            raise Denied(EIO, OTHER_PROCESS)
        if operation in ("guest_load", "guest_store", "race_punch", "race_slot"):
            raise Unmodelled("a child that runs its parent's guest")
        parent = self.task.fork()
        try:
            result: Result = getattr(self.host, operation)(*arguments)
        finally:
            rule = self.host.rule
            ended = self.host.finish()
            self.task.back(parent)
            self.host.rule = rule
        return ended if failed(ended) else result

    def in_memlock(self, limit: int, operation: str, *arguments: Any) -> Result:
        self.task.lockable = limit
        try:
            return self.in_child(operation, *arguments)
        finally:
            self.task.lockable = None

    def sealed(self, mapping: Result, operation: str, *arguments: Any) -> Result:
        self.task.mapping(mapping)
        if not self.task.facts.seals:
            raise Denied(ENOSYS, "the kernel knows mseal(2)")
        if operation in ("munmap", "mprotect", "mremap") and arguments[0] == mapping:
            raise Denied(EPERM, "a sealed mapping stays where it is and as it is")
        return self.in_child(operation, *arguments)

    def fallocate_signalled(self, fd: Result, length: int) -> Result:
        gmem = self.task.of_kind(fd, Gmem, EINVAL, NO_SUCH_OPERATION)
        self.kernel.serial.signal_after = SOME_PAGES
        ended: int | Failure = 0
        try:
            self.files.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, length)
        except Denied as denied:
            ended = denied.failure
        finally:
            self.kernel.serial.signal_after = None
        return ended, int(0 < gmem.resident(0, length // PAGE_SIZE) < length // PAGE_SIZE)

    def allocate_limited(self, limit: int, length: int) -> Result:
        """Whoever goes over the limit is sent SIGKILL (mem_cgroup_out_of_memory), and dies when it leaves the kernel."""
        child, fd = one_file(length)
        child.kernel.serial.signal_after = limit // PAGE_SIZE
        return Signal("SIGKILL") if child.fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, length) == EINTR else 0

    def charge(self, length: int) -> Result:
        """Who allocates is charged with what is in the page cache then (filemap_add_folio)."""
        child, fd = one_file(length)
        file, counts = child.task.file(fd), []
        assert isinstance(file, Gmem)
        for mode in (FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE):
            child.fallocate(fd, mode, 0, length)
            counts.append(file.resident(0, length // PAGE_SIZE))
        return tuple(counts)

    def race_punch(self, vcpu: Result | None, fd: Result, mapping: Result, pages: int) -> Result:
        self.task.mapping(mapping, 0, pages * PAGE_SIZE)
        gmem = self.task.of_kind(fd, Gmem, EINVAL, NO_SUCH_OPERATION)
        places = [gmem.at(pgoff) for pgoff in range(pages)]
        wrong = race(self.kernel.world, self.kernel.serial, gmem, places, vcpu is not None)
        self.files.fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, pages * PAGE_SIZE)
        return len(wrong), gmem.resident(0, pages)

    def race_slot(self, vm: Result, vcpu: Result, way: str, memory: Result, pages: int) -> Result:
        wrong = race_slot(self.contest(vm, self.task.vcpu(vcpu), way, memory, pages))
        return Other(wrong[0]) if wrong else 0

    def contest(self, vm: Result, vcpu: Vcpu, way: str, memory: Result, pages: int) -> SlotRace:
        """The guest and who takes its slot, in a way."""
        if way == "move":
            self.task.mapping(memory, 0, pages * PAGE_SIZE)
            return MovedSlot(self.vms, vcpu, pages, vm, memory)
        if way == "close":
            assert isinstance(memory, int)
            return ClosedFile(self.vms, vcpu, pages, memory)
        return DeletedSlot(self.vms, vcpu, pages, self.task.of_kind(memory, Gmem, EINVAL, NO_SUCH_OPERATION))


def one_file(length: int) -> tuple[SimulatedHost, Result]:
    """A host of its own with a file, and room for all its pages."""
    pages = length // PAGE_SIZE
    host = SimulatedHost(files=1, huge=0, vms=1, order=0, pages=pages, frames=pages + 1)
    return host, host.create_guest_memfd(host.create_vm(), length, 0)
