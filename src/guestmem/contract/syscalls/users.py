# SPDX-License-Identifier: Apache-2.0
"""Users of mappings on the simulated host: GUP, and loads and stores of the kernel."""

from __future__ import annotations

from collections.abc import Iterator

from guestmem.contract.interface import PAGE_SIZE, Unmodelled
from guestmem.contract.results import EBADF, EFAULT, EINVAL, EIO, Denied, Errno, Result
from guestmem.contract.syscalls.files import aligned
from guestmem.contract.syscalls.mappings import NOT_FAULTABLE, Mappings
from guestmem.contract.syscalls.objects import Gmem, Mapping, Pinned, Placed
from guestmem.contract.syscalls.task import NOT_OPEN, Task
from guestmem.linux.uapi import PROT_READ, PROT_WRITE
from guestmem.machine.frame import Content
from guestmem.mm.filemap import Pin

__all__ = ["Users"]

Part = tuple[dict[int, int], int, int]  # the bytes of a page, the first that is meant, how many


class Users:
    """Who gets at pages through a mapping, other than by loads and stores."""

    def __init__(self, task: Task, mappings: Mappings) -> None:
        self.task = task
        self.mappings = mappings
        self.kernel = task.kernel

    def gup(self, mapping: Mapping, offset: int, length: int, write: bool, fast: bool = True) -> Iterator[Part]:
        """The pages of a range as the kernel gets them; stops where it cannot.

        ``fast``: GUP-fast looks at the page table alone before the slow way looks at the mapping.
        """
        end = offset + length
        if fast and not write and any(s < end and e > offset and prot & 3 == PROT_WRITE for s, e, prot in mapping.spans):
            raise Unmodelled("whether a page that may only be written to is in the page table, where GUP-fast reads it")
        while offset < end:
            part = min(end - offset, PAGE_SIZE - offset % PAGE_SIZE)
            prot = mapping.spans.at(offset)
            assert isinstance(mapping.file, Placed)
            if mapping.file.no_direct_map or not prot & (PROT_WRITE if write else PROT_READ):
                return
            cells = self.mappings.page(mapping, offset, write)
            if cells is None:
                return
            yield cells, offset % PAGE_SIZE, part
            offset += part

    def taken(self, parts: Iterator[Part]) -> bytes:
        """The bytes of pages."""
        return b"".join(bytes(cells.get(first + i, 0) for i in range(count)) for cells, first, count in parts)

    def put(self, parts: Iterator[Part], data: bytes) -> int:
        """Store bytes into pages, as far as these go; how many."""
        done = 0
        for cells, first, count in parts:
            cells.update(enumerate(data[done : done + count], first))
            done += count
        return done

    def process_vm_readv(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        with self.kernel.running():
            data = self.taken(self.gup(there, offset, length, False, fast=False))
        return self.unless_nothing(data, length, EFAULT)

    def read_child(self, mapping: Result, offset: int, length: int) -> Result:
        """The child's page tables have what its parent's could have: the mapping is shared."""
        return self.process_vm_readv(mapping, offset, length)

    def peek(self, mapping: Result, offset: int) -> Result:
        """ptrace_access_vm(): as /proc/PID/mem, and always with FOLL_FORCE."""
        there = self.task.mapping(mapping, offset, 8).copy()
        there.spans.set(offset, offset + 8, PROT_READ)
        with self.kernel.running():
            data = self.taken(self.gup(there, offset, 8, False))
        if len(data) < 8:
            raise Denied(EIO, NOT_FAULTABLE)
        return data

    def unless_nothing(self, data: bytes, length: int, code: Errno) -> bytes:
        """What was read, unless that is nothing."""
        if length and not data:
            raise Denied(code, NOT_FAULTABLE)
        return data

    def process_vm_writev(self, mapping: Result, offset: int, data: bytes) -> Result:
        there = self.task.mapping(mapping, offset, len(data))
        with self.kernel.running():
            done = self.put(self.gup(there, offset, len(data), True), data)
        return len(self.unless_nothing(data[:done], len(data), EFAULT))

    def proc_mem_read(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        if self.task.facts.forced:  # FOLL_FORCE: what may become readable is readable
            there = there.copy()
            there.spans.set(offset, offset + length, PROT_READ)
        with self.kernel.running():
            data = self.taken(self.gup(there, offset, length, False))
        return self.unless_nothing(data, length, EIO)

    def copied(self, mapping: Mapping, offset: int, length: int, write: bool) -> Iterator[Part]:
        """The pages of a range as loads and stores of the kernel reach them; raises EFAULT where they do not."""
        for start in range(offset - offset % PAGE_SIZE, offset + length if length else 0, PAGE_SIZE):
            first = max(start, offset)
            prot = mapping.spans.at(first)
            cells = None
            if prot & (PROT_WRITE if write else PROT_READ | PROT_WRITE):
                cells = self.mappings.page(mapping, first, write)
            if cells is None:
                raise Denied(EFAULT, NOT_FAULTABLE)
            yield cells, first % PAGE_SIZE, min(start + PAGE_SIZE, offset + length) - first

    def write_pipe(self, mapping: Result, offset: int, length: int) -> Result:
        if length > PAGE_SIZE:
            raise Unmodelled("more than a page at a time through a pipe")
        there = self.task.mapping(mapping, offset, length)
        with self.kernel.running():
            return self.taken(self.copied(there, offset, length, False))

    def read_pipe(self, mapping: Result, offset: int, data: bytes) -> Result:
        there = self.task.mapping(mapping, offset, len(data))
        with self.kernel.running():
            return self.put(self.copied(there, offset, len(data), True), data)

    def direct_write(self, mapping: Result, offset: int) -> Result:
        there = self.task.mapping(mapping, offset, PAGE_SIZE)
        if not aligned(offset):
            raise Unmodelled("direct I/O of parts of pages")
        with self.kernel.running():
            data = self.taken(self.gup(there, offset, PAGE_SIZE, False))
        return self.unless_nothing(data, PAGE_SIZE, EFAULT)[:8]

    def direct_read(self, mapping: Result, offset: int, value: int) -> Result:
        there = self.task.mapping(mapping, offset, PAGE_SIZE)
        if not aligned(offset):
            raise Unmodelled("direct I/O of parts of pages")
        with self.kernel.running():
            for cells, _, count in self.gup(there, offset, PAGE_SIZE, True):
                cells.update(dict.fromkeys(range(PAGE_SIZE), value))
                return count
        raise Denied(EFAULT, NOT_FAULTABLE)

    def pin(self, mapping: Mapping, offset: int, length: int, write: bool) -> Pinned:
        """References to the pages of a range, as far as they can be had."""
        pinned = Pinned(self.kernel.mm)
        with self.kernel.running():
            for _, first, count in self.gup(mapping, offset, length, write):
                assert isinstance(mapping.file, Gmem)
                pin = Pin()
                pgoff = mapping.file.at((mapping.offset + offset) // PAGE_SIZE)
                pin.gup_fast(self.kernel.mm, mapping.file.file.mapping, pgoff)
                assert pin.folio is not None
                pinned.parts.append((pin.folio, first, count))
                offset += count
        return pinned

    def vmsplice(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        if not 0 < length <= 8 * PAGE_SIZE:
            raise Unmodelled("pipes with many pages")
        pinned = self.pin(there, offset, length, False)
        if not pinned.parts:
            raise Denied(EFAULT, NOT_FAULTABLE)
        pinned.is_pipe = True
        return self.task.opened(pinned)

    def read_spliced(self, pipe: Result, length: int) -> Result:
        pinned = self.task.of_kind(pipe, Pinned, EBADF, NOT_OPEN)
        if not pinned.is_pipe:
            raise Denied(EBADF, NOT_OPEN)
        data = b""
        with self.kernel.running():
            for folio, first, count in pinned.take(length):
                cells = self.kernel.bytes.get(folio.frame, {}) if folio.frame.content is not Content.ZERO else {}
                data += bytes(cells.get(first + i, 0) for i in range(count))
        return data

    def io_uring_register(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        if not 0 < length <= 8 * PAGE_SIZE:
            raise Unmodelled("buffers with many pages")
        pinned = self.pin(there, offset, length, True)
        if sum(count for _, _, count in pinned.parts) < length:
            with self.kernel.running():
                pinned.unpin()
            raise Denied(EFAULT, NOT_FAULTABLE)
        return self.task.opened(pinned)

    def futex_wake(self, mapping: Result, offset: int) -> Result:
        there = self.task.mapping(mapping, offset, 4)
        if offset % 4:
            raise Denied(EINVAL, "a futex is aligned")
        with self.kernel.running():
            # Writing is tried before reading.
            if not list(self.gup(there, offset, 4, bool(there.spans.at(offset) & PROT_WRITE))):
                raise Denied(EFAULT, NOT_FAULTABLE)
        return 0
