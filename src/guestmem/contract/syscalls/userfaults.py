# SPDX-License-Identifier: Apache-2.0
"""Userfaultfds of the simulated host: mm/userfaultfd.c, and the operations that guest_memfd has for it.

A fault that would be told is answered by a SIGBUS (UFFD_FEATURE_SIGBUS): see ``Mappings.page``.
"""

from __future__ import annotations

from collections.abc import Callable

from guestmem.contract.interface import PAGE_SIZE, Unmodelled
from guestmem.contract.results import EAGAIN, EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM, ENOTTY, Denied, Errno, Result
from guestmem.contract.syscalls.files import WHOLE_PAGES, aligned
from guestmem.contract.syscalls.mappings import Mappings
from guestmem.contract.syscalls.objects import Gmem, Mapping, Userfaultfd
from guestmem.contract.syscalls.task import NOT_ITS_IOCTL, Task
from guestmem.linux.uapi import GUEST_MEMFD_FLAG_INIT_SHARED
from guestmem.linux.userfaultfd import WP
from guestmem.machine.frame import Content
from guestmem.mm.exception import kernel_store

__all__ = ["Userfaults"]


class Userfaults:
    """Registering mappings, and resolving their faults."""

    def __init__(self, task: Task, mappings: Mappings) -> None:
        self.task = task
        self.mappings = mappings
        self.kernel = task.kernel

    def may_register(self, mapping: Mapping, offset: int, length: int, mode: int) -> None:
        """userfaultfd_register(), kvm_gmem_can_userfault()."""
        if not mode or not length or not aligned(offset, length):
            raise Denied(EINVAL, WHOLE_PAGES)
        shared = isinstance(mapping.file, Gmem) and mapping.file.flags & GUEST_MEMFD_FLAG_INIT_SHARED
        if mode & ~self.task.facts.userfaults or not shared:
            raise Denied(EINVAL, "a userfaultfd is told of memory that has operations for it")

    def userfaultfd_register(self, mapping: Result, offset: int, length: int, mode: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        self.may_register(there, offset, length, mode)
        there.whole = False
        return 0

    def userfaultfd(self, mapping: Result, offset: int, length: int, mode: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        self.may_register(there, offset, length, mode)
        if mode & WP:
            raise Unmodelled("write protection by a userfaultfd")
        if there.touched or there.trapped(offset // PAGE_SIZE):
            raise Unmodelled("a userfaultfd for a mapping that was used before")
        there.whole = False
        there.traps.set(offset, offset + length, mode)
        return self.task.opened(Userfaultfd(there))

    def resolve(self, fd: Result, mapping: Result, offset: int, length: int, one: Callable[[Mapping, Gmem, int], None]) -> int:
        """mfill_atomic(): page by page; what fails after the first is to be tried again."""
        there = self.task.mapping(mapping, offset, length)
        self.task.of_kind(fd, Userfaultfd, ENOTTY, NOT_ITS_IOCTL)
        if not length or not aligned(offset, length):
            raise Denied(EINVAL, WHOLE_PAGES)
        if not there.trapped(offset // PAGE_SIZE):
            raise Denied(ENOENT, "the mapping is registered")
        assert isinstance(there.file, Gmem)
        for at in range(offset, offset + length, PAGE_SIZE):
            try:
                one(there, there.file, at)
            except Denied as denied:
                raise Denied(EAGAIN if at > offset else denied.failure, denied.rule) from None
        return 0

    def enter(self, mapping: Mapping, gmem: Gmem, offset: int) -> None:
        """mfill_atomic_install_pte()."""
        pgoff = (mapping.offset + offset) // PAGE_SIZE
        if self.mappings.entered(mapping, gmem, pgoff, offset // PAGE_SIZE):
            raise Denied(EEXIST, "the page table does not have the page")
        entry = gmem.file.mapping.user[gmem.at(pgoff)]
        with self.kernel.running():
            if not entry.live and gmem.file.fault(self.kernel.cpu, gmem.at(pgoff)):
                raise Unmodelled("a userfault in memory that is not shared")
        assert entry.folio is not None
        mapping.has[offset // PAGE_SIZE] = entry.folio

    def go_on(self, mapping: Mapping, gmem: Gmem, offset: int) -> None:
        """mfill_atomic_pte_continue()."""
        pgoff = (mapping.offset + offset) // PAGE_SIZE
        if not gmem.resident(pgoff, pgoff + 1):
            raise Denied(EFAULT, "the file has the page")
        self.enter(mapping, gmem, offset)

    def fill(self, mapping: Mapping, gmem: Gmem, offset: int, value: int) -> None:
        """__mfill_atomic_pte(), kvm_gmem_folio_alloc(), kvm_gmem_filemap_add()."""
        pgoff = (mapping.offset + offset) // PAGE_SIZE
        if pgoff * PAGE_SIZE >= gmem.size:
            raise Denied(ENOMEM, "a page is allocated inside the file")
        if gmem.resident(pgoff, pgoff + 1):
            raise Denied(EEXIST, "the file does not have the page")
        with self.kernel.running():
            err = gmem.allocate(pgoff, pgoff + 1)
            folio = gmem.slots[gmem.at(pgoff)]
            if err or folio is None:
                raise Denied(Errno(-err), "the library allows it")
            kernel_store(self.kernel.mm, self.kernel.cpu, folio.frame, Content.SHARED)
        self.kernel.cells(folio.frame).update(dict.fromkeys(range(PAGE_SIZE), value & 0xFF))
        self.enter(mapping, gmem, offset)

    def uffdio_continue(self, fd: Result, mapping: Result, offset: int, length: int) -> Result:
        return self.resolve(fd, mapping, offset, length, self.go_on)

    def uffdio_copy(self, fd: Result, mapping: Result, offset: int, length: int, value: int) -> Result:
        return self.resolve(fd, mapping, offset, length, lambda there, gmem, at: self.fill(there, gmem, at, value))

    def uffdio_zeropage(self, fd: Result, mapping: Result, offset: int, length: int) -> Result:
        return self.resolve(fd, mapping, offset, length, lambda there, gmem, at: self.fill(there, gmem, at, 0))
