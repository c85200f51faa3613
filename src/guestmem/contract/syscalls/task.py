# SPDX-License-Identifier: Apache-2.0
"""A process on the simulated host: its descriptors and mappings, what they refer to, and how that ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from guestmem.contract.interface import NO_MAPPING
from guestmem.contract.results import EBADF, EINVAL, EMFILE, ENOTTY, Denied, Errno, Result
from guestmem.contract.syscalls.machine import Booted
from guestmem.contract.syscalls.objects import Gmem, Kvm, Mapping, Open, Pinned, Secret, Session, Userfaultfd, Vcpu, Vm
from guestmem.linux.facts import Facts

__all__ = ["NOT_ITS_IOCTL", "NOT_OPEN", "Task"]

Kind = TypeVar("Kind", bound=Open)

NOT_OPEN = "the descriptor is not open"
NOT_ITS_IOCTL = "the descriptor does not have the ioctl"


class Task:
    """Handles, and what they stand for.

    Attributes:
        facts: of the machine.
        fds, maps: by handle.
        next: the handle that is given out next.
        full: no descriptor is free.
        lockable: how many bytes may be locked (RLIMIT_MEMLOCK); None: any.
    """

    def __init__(self, kernel: Booted, facts: Facts) -> None:
        self.kernel = kernel
        self.facts = facts
        self.fds: dict[int, Open] = {}
        self.maps: dict[int, Mapping] = {}
        self.next = 0
        self.full = False
        self.lockable: int | None = None

    def handle(self) -> int:
        """A new handle."""
        self.next += 1
        return self.next - 1

    def room(self) -> None:
        """Whether a descriptor is free (get_unused_fd_flags)."""
        if self.full:
            raise Denied(EMFILE, "a descriptor is free")

    def opened(self, file: Open) -> int:
        """A descriptor for a file."""
        self.room()
        handle = self.handle()
        self.fds[handle] = file
        file.uses += 1
        return handle

    def file(self, fd: Result) -> Open:
        """What a descriptor refers to."""
        file = self.fds.get(fd) if isinstance(fd, int) else None
        if file is None:
            raise Denied(EBADF, NOT_OPEN)
        return file

    def of_kind(self, fd: Result, kind: type[Kind], otherwise: Errno, rule: str) -> Kind:
        """What a descriptor refers to, which must be of a kind."""
        file = self.file(fd)
        if not isinstance(file, kind):
            raise Denied(otherwise, rule)
        return file

    def vcpu(self, fd: Result) -> Vcpu:
        """The vCPU of an ioctl."""
        of_vm = isinstance(self.file(fd), Vm)
        return self.of_kind(fd, Vcpu, Errno(self.facts.unknown_vm_ioctl) if of_vm else ENOTTY, NOT_ITS_IOCTL)

    def vm(self, fd: Result) -> Vm:
        """The VM of an ioctl."""
        return self.of_kind(fd, Vm, EINVAL if isinstance(self.file(fd), Vcpu | Kvm) else ENOTTY, NOT_ITS_IOCTL)

    def drop(self, file: Open) -> None:
        """One user of a file less; the last one closes it (fput)."""
        file.uses -= 1
        if file.uses:
            return
        if isinstance(file, Gmem):
            file.file.release()
            for slot in file.bindings():
                slot.file = None
            file.vm.files.remove(file)
            self.drop(file.vm)
        elif isinstance(file, Secret):
            file.file.release(self.kernel.cpu)
        elif isinstance(file, Vcpu):
            self.drop(file.vm)
        elif isinstance(file, Pinned):
            file.unpin()
        elif isinstance(file, Session):
            for preserved in file.files.values():
                preserved.file.unpreserve()
                self.drop(preserved)
        elif isinstance(file, Userfaultfd):
            file.mapping.traps.set(0, file.mapping.traps.end(), 0)

    def mapping(self, handle: Result | str | None, offset: int = 0, length: int = 0) -> Mapping:
        """A mapping that has a range."""
        mapping = self.maps.get(handle) if isinstance(handle, int) else None
        if mapping is None or offset < 0 or length < 0 or not mapping.spans.cover(offset, offset + length):
            raise Denied(NO_MAPPING)
        return mapping

    def vms(self) -> Iterator[Vm]:
        """The VMs of which something is open."""
        for file in self.fds.values():
            if isinstance(file, (Gmem, Vcpu)):
                yield file.vm
            elif isinstance(file, Vm):
                yield file

    def fork(self) -> tuple[dict[int, Open], dict[int, Mapping], int]:
        """Be the child from now on; the parent, for :meth:`back`."""
        parent = dict(self.fds), dict(self.maps), self.next
        for file in (*self.fds.values(), *(mapping.file for mapping in self.maps.values())):
            file.uses += 1
        self.maps = {handle: mapping.copy() for handle, mapping in self.maps.items()}
        return parent

    def back(self, parent: tuple[dict[int, Open], dict[int, Mapping], int]) -> None:
        """Be the parent again, after the child's :meth:`finish`."""
        self.fds, self.maps, self.next = parent

    # ---- operations

    def dup(self, fd: Result) -> Result:
        return self.opened(self.file(fd))

    def pass_descriptor(self, fd: Result) -> Result:
        file = self.file(fd)
        if isinstance(file, Pinned) and not file.is_pipe:
            raise Denied(EINVAL, "an io_uring is not passed on")
        return self.opened(file)

    def close(self, fd: Result) -> Result:
        file = self.file(fd)
        assert isinstance(fd, int)
        del self.fds[fd]
        with self.kernel.running():
            self.drop(file)
        return 0

    def finish(self) -> Result:
        with self.kernel.running():
            for handle in list(self.maps):
                self.drop(self.maps.pop(handle).file)
            for handle in list(self.fds):
                self.drop(self.fds.pop(handle))
        self.next = 0
        return 0
