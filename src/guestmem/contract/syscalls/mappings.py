# SPDX-License-Identifier: Apache-2.0
"""Mappings of the simulated host: mmap(2) and relatives, loads and stores."""

from __future__ import annotations

import contextlib

from guestmem.contract.interface import PAGE_SIZE, U64, Advice, Unmodelled
from guestmem.contract.results import (
    EACCES,
    EAGAIN,
    EBUSY,
    EFAULT,
    EINVAL,
    ENODEV,
    ENOMEM,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    Denied,
    Errno,
    Result,
    Signal,
)
from guestmem.contract.spans import page_end
from guestmem.contract.syscalls.files import MAX_LFS_FILESIZE, NO_SUCH_OPERATION, WHOLE_PAGES, Files, aligned
from guestmem.contract.syscalls.objects import Gmem, Mapping, Secret
from guestmem.contract.syscalls.task import Task
from guestmem.linux.uapi import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    GUEST_MEMFD_FLAG_MMAP,
    MAP_HUGETLB,
    MAP_LOCKED,
    MAP_NORESERVE,
    MAP_POPULATE,
    MAP_PRIVATE,
    MAP_SHARED,
    MAP_SHARED_VALIDATE,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    MS_ASYNC,
    MS_INVALIDATE,
    MS_SYNC,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from guestmem.linux.userfaultfd import MINOR, MISSING
from guestmem.mm.filemap import unmap_mapping_page, user_access

__all__ = ["NOT_FAULTABLE", "Mappings"]

MLOCK_ONFAULT = 1  # include/uapi/asm-generic/mman.h
MAP_TYPE = 0x0F  # include/uapi/linux/mman.h
LEGACY_MAP_MASK = 0x7FFFF
SMALL = 64 * PAGE_SIZE  # the longest range whose pages are touched one by one
ROOMY = 1 << 40  # mappings up to this size fit; how many larger ones do is not modelled

MAPPABLE = "only a file with GUEST_MEMFD_FLAG_MMAP can be mapped"
ONLY_SHARED = "files of guest memory are mapped shared"
LOCKED = "locked memory stays"
NO_EXEC = "files of guest memory are not executable"
NOT_FAULTABLE = "the kernel cannot fault the page in either"


class Mappings:
    """System calls on mappings, and the bytes behind them."""

    def __init__(self, task: Task, files: Files) -> None:
        self.task = task
        self.files = files
        self.kernel = task.kernel

    def mmap(self, fd: Result, length: int, prot: int, flags: int, offset: int) -> Result:
        """ksys_mmap_pgoff(), do_mmap(), kvm_gmem_mmap()."""
        offset, kind = offset & (U64 - 1), flags & MAP_TYPE
        if not aligned(offset):
            raise Denied(EINVAL, WHOLE_PAGES)
        file = self.task.file(fd)
        if not isinstance(file, (Gmem, Secret)):
            raise Unmodelled("mappings of what is no guest memory")
        if flags & MAP_HUGETLB:
            raise Denied(EINVAL, "only files of hugetlbfs are mapped with MAP_HUGETLB")
        if length == 0:
            raise Denied(EINVAL, "a mapping is not empty")
        rounded = (length + PAGE_SIZE - 1) & (U64 - PAGE_SIZE)
        facts = self.task.facts
        if not rounded or rounded >> (facts.room_bits if facts.roomy else facts.user_bits):
            raise Denied(ENOMEM, "the address space has room")
        if rounded > self.large():
            raise Unmodelled("how many large mappings an address space has room for")
        if offset + rounded > MAX_LFS_FILESIZE:
            raise Denied(EOVERFLOW, "a mapping ends before the largest offset")
        if kind == MAP_SHARED_VALIDATE and flags & ~LEGACY_MAP_MASK:
            raise Denied(EOPNOTSUPP, "MAP_SHARED_VALIDATE takes flags that the file knows")
        if kind not in (MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE):
            raise Denied(EINVAL, "a mapping is shared or private")
        if prot & PROT_EXEC and (self.task.facts.no_exec or isinstance(file, Secret)):
            raise Denied(EPERM, NO_EXEC)
        none_can = not any(flags & GUEST_MEMFD_FLAG_MMAP for flags in self.task.facts.files)
        if kind == MAP_PRIVATE and not (isinstance(file, Gmem) and none_can):
            self.may_commit(rounded, prot, flags)
        if isinstance(file, Gmem) and not file.flags & GUEST_MEMFD_FLAG_MMAP:
            raise Denied(ENODEV, MAPPABLE)
        if kind == MAP_PRIVATE:
            raise Denied(EINVAL, ONLY_SHARED)
        locked = facts.secret_locked and isinstance(file, Secret)
        if locked and self.task.lockable is not None and rounded > self.task.lockable:
            raise Denied(EAGAIN, "secret memory counts as locked memory")
        if flags & (MAP_POPULATE | MAP_LOCKED) and rounded > SMALL:
            raise Unmodelled("populating many pages")
        handle = self.task.handle()
        file.uses += 1
        mapping = self.task.maps[handle] = Mapping(file, rounded, prot & 7, offset)
        if flags & (MAP_POPULATE | MAP_LOCKED) and isinstance(file, Gmem):
            if flags & MAP_LOCKED:
                mapping.whole = False
                mapping.locked.update(range(rounded // PAGE_SIZE))
            with contextlib.suppress(Denied):
                self.populate(mapping, 0, rounded, bool(prot & PROT_WRITE), EFAULT)
        return handle

    def large(self) -> int:
        """Of mappings larger than this it is not modelled how many there is room for."""
        return min(ROOMY, 1 << self.task.facts.room_bits - 5)

    def may_commit(self, size: int, prot: int, flags: int) -> None:
        """__vm_enough_memory(): whether there may be so much private memory that can be written to."""
        if prot & PROT_WRITE and not flags & MAP_NORESERVE:
            if not self.task.facts.commit:
                raise Unmodelled("how much memory others may still commit")
            if size > self.task.facts.commit:
                raise Denied(ENOMEM, "a private mapping is no larger than memory")

    def munmap(self, mapping: Result, offset: int = 0, length: int | None = None) -> Result:
        there = self.task.mapping(mapping, offset, length or 0)
        assert isinstance(mapping, int)
        length = there.spans.end() - offset if length is None else length
        if not aligned(offset) or not length:
            raise Denied(EINVAL, "what is unmapped is whole pages")
        there.whole = False
        there.spans.remove(offset, page_end(offset + length))
        there.locked = {page for page in there.locked if there.spans.cover(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)}
        if not there.spans.parts:
            del self.task.maps[mapping]
            with self.kernel.running():
                self.task.drop(there.file)
        return 0

    def mremap(self, mapping: Result, length: int) -> Result:
        """do_mremap(), of a mapping that is one VMA."""
        there = self.task.mapping(mapping)
        self.movable(there, mapping)
        if not length:
            raise Denied(EINVAL, "a mapping is not empty")
        if page_end(length) > self.large():
            raise Unmodelled("how many large mappings an address space has room for")
        there.resize(page_end(length))
        return 0

    def movable(self, there: Mapping, *places: Result | None) -> None:
        """Raises Unmodelled for a mapping whose move, from or to ``places``, is more than that of one VMA."""
        if not there.whole or isinstance(there.file, Secret):
            raise Unmodelled("moving what may be several VMAs, or is locked")
        if any(slot.address in places for vm in self.task.vms() for slot in vm.slots.values()):
            raise Unmodelled("moving the userspace_addr of a slot")

    def mremap_from(self, mapping: Result, old: int, length: int, flags: int, place: Result | None = None) -> Result:
        """do_mremap(), of the whole of a mapping that is one VMA, or of nothing, which is a second mapping."""
        there, new = self.task.mapping(mapping), page_end(length)
        assert isinstance(mapping, int)
        if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) or not new:
            raise Denied(EINVAL, "mremap knows its flags, and a mapping is not empty")
        if flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) and not flags & MREMAP_MAYMOVE:
            raise Denied(EINVAL, "what has a place, or leaves one, may move")
        if flags & MREMAP_DONTUNMAP and page_end(old) != new:
            raise Denied(EINVAL, "what leaves its place keeps its length")
        if flags & MREMAP_FIXED and place == mapping:
            raise Denied(EINVAL, "a mapping does not move over itself")
        self.movable(there, mapping, place)
        if there.touchy():
            raise Unmodelled("moving what has guards or a userfaultfd")
        if page_end(old) > there.spans.end():
            raise Denied(EFAULT, "what moves is mapped")
        if (old and page_end(old) != there.spans.end()) or new > self.large():
            raise Unmodelled("moving a part, or how many large mappings an address space has room for")
        if not flags & MREMAP_MAYMOVE and new > page_end(old):
            if not old:
                raise Denied(ENOMEM, "a second mapping is elsewhere")
            raise Unmodelled("whether there is room behind a mapping")
        if flags & MREMAP_FIXED:
            if place is None or [(first, last) for first, last, _ in self.task.mapping(place).spans] != [(0, new)]:
                raise Unmodelled("moving over a part of a mapping, or where none is")
            self.munmap(place)
        if old and not flags & MREMAP_DONTUNMAP:
            del self.task.maps[mapping]
            moved = there
        else:
            there.file.uses += 1
            moved = there.copy()
        moved.resize(new)
        handle = self.task.handle()
        self.task.maps[handle] = moved
        return handle

    def mprotect(self, mapping: Result, offset: int, length: int, prot: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        if not aligned(offset):
            raise Denied(EINVAL, WHOLE_PAGES)
        if prot & PROT_EXEC and length:
            raise Denied(EACCES, NO_EXEC)
        there.whole = False
        there.spans.set(offset, page_end(offset + length), prot & 7)
        return 0

    def madvise(self, mapping: Result, offset: int, length: int, advice: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        if not aligned(offset):
            raise Denied(EINVAL, WHOLE_PAGES)
        if advice not in list(Advice):
            raise Unmodelled("other advice")
        end = page_end(offset + length)
        if offset == end:
            return 0
        there.whole = False
        if isinstance(there.file, Secret):
            return self.madvise_secret(there, advice, offset, end)
        assert isinstance(there.file, Gmem)
        if advice in (Advice.FREE, Advice.WIPEONFORK, Advice.COLLAPSE):
            raise Denied(EINVAL, "the advice is for anonymous memory")
        if advice in (Advice.POPULATE_READ, Advice.POPULATE_WRITE):
            if end - offset > SMALL:
                raise Unmodelled("populating many pages")
            self.populate(there, offset, end, advice == Advice.POPULATE_WRITE, EINVAL)
        elif advice in (Advice.DONTNEED, Advice.REMOVE, Advice.COLD, Advice.PAGEOUT):
            for start, stop, locked in there.areas(offset, end):
                if locked:
                    raise Denied(EINVAL, LOCKED)
                if advice == Advice.DONTNEED:
                    self.drop_entries(there, start, stop)
                elif advice == Advice.REMOVE:
                    self.files.vfs_fallocate(
                        there.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, there.offset + start, stop - start
                    )
        elif advice == Advice.DONTFORK:
            raise Unmodelled("mappings that a child does not get")
        return 0

    def madvise_secret(self, mapping: Mapping, advice: int, start: int, end: int) -> int:
        """Secret memory has no holes, and where its mappings are locked its pages stay."""
        if advice in (Advice.NORMAL, Advice.HUGEPAGE, Advice.DONTFORK):
            return 0
        if advice not in (Advice.DONTNEED, Advice.REMOVE, Advice.COLD, Advice.PAGEOUT):
            raise Denied(EINVAL, "the advice is for memory that can be populated, or is anonymous")
        if self.task.facts.secret_locked:
            raise Denied(EINVAL, LOCKED)
        if advice == Advice.REMOVE:
            raise Denied(EOPNOTSUPP, "secret memory has no holes")
        if advice == Advice.DONTNEED:
            self.drop_entries(mapping, start, end)
        return 0

    def drop_entries(self, mapping: Mapping, start: int, end: int) -> None:
        """Empty a part of the page table (zap_page_range); the pages stay in the file."""
        first, file = (mapping.offset + start) // PAGE_SIZE, mapping.file
        assert isinstance(file, (Gmem, Secret))
        with self.kernel.running():
            for place in file.used(first, first + (end - start) // PAGE_SIZE):
                unmap_mapping_page(file.file.mapping, place)

    def mlock(self, mapping: Result, offset: int, length: int) -> Result:
        return self.mlock2(mapping, offset, length, 0)

    def mlock2(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        if flags & ~MLOCK_ONFAULT:
            raise Denied(EINVAL, "mlock2 knows MLOCK_ONFAULT alone")
        there = self.task.mapping(mapping, offset, length)
        if not flags and isinstance(there.file, Secret):
            raise Denied(ENOMEM, "secret memory cannot be populated")
        if not flags and length > SMALL:
            raise Unmodelled("populating many pages")
        there.whole = False
        start, end = offset & -PAGE_SIZE, page_end(offset + length)
        there.locked.update(range(start // PAGE_SIZE, end // PAGE_SIZE))
        if flags:
            return 0
        try:
            self.populate(there, start, end, None, ENOMEM)
        except Denied:
            raise Denied(ENOMEM, NOT_FAULTABLE) from None
        return 0

    def guard(self, mapping: Result, offset: int, length: int, install: int) -> Result:
        """madvise_guard_install(), which takes pages from the page table and none from the file."""
        there = self.task.mapping(mapping, offset, length)
        if not self.task.facts.guards or not aligned(offset):
            raise Denied(EINVAL, "a mapping of a file can have guards")
        pages = range(offset // PAGE_SIZE, page_end(offset + length) // PAGE_SIZE)
        if not install:
            there.guarded.difference_update(pages)
            return 0
        if there.locked.intersection(pages):
            raise Denied(EINVAL, LOCKED)
        there.whole = False
        self.drop_entries(there, offset, page_end(offset + length))
        there.guarded.update(pages)
        return 0

    def munlock(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        there.whole = False
        there.locked.difference_update(range(offset // PAGE_SIZE, page_end(offset + length) // PAGE_SIZE))
        return 0

    def msync(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        there = self.task.mapping(mapping, offset, length)
        if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or not aligned(offset) or (flags & MS_ASYNC and flags & MS_SYNC):
            raise Denied(EINVAL, "flags and start are legal")
        end = page_end(offset + length)
        if offset == end:
            return 0
        if flags & MS_INVALIDATE and (
            (isinstance(there.file, Secret) and self.task.facts.secret_locked)
            or any(offset <= page * PAGE_SIZE < end for page in there.locked)
        ):
            raise Denied(EBUSY, LOCKED)
        if flags & MS_SYNC:
            raise Denied(EINVAL, NO_SUCH_OPERATION)
        return 0

    def populate(self, mapping: Mapping, start: int, end: int, write: bool | None, forbidden: Errno) -> None:
        """Fault pages in one by one; ``write`` None: as the mapping allows; ``forbidden`` is the errno if it does not.

        Populating is a use of GUP.
        """
        assert isinstance(mapping.file, (Gmem, Secret))
        if mapping.file.no_direct_map:
            raise Denied(forbidden, NOT_FAULTABLE)
        with self.kernel.running():
            for offset in range(start, end, PAGE_SIZE):
                prot = mapping.spans.at(offset)
                wanted = bool(prot & PROT_WRITE) if write is None else write
                if not prot & (PROT_WRITE if wanted else PROT_READ):
                    raise Denied(forbidden, NOT_FAULTABLE)
                if self.page(mapping, offset, wanted) is None:
                    raise Denied(EFAULT, NOT_FAULTABLE)

    def in_page_table(self, mapping: Result, offset: int) -> Result:
        there = self.task.mapping(mapping, offset, 1)
        file, pgoff = there.file, (there.offset + offset) // PAGE_SIZE
        assert isinstance(file, (Gmem, Secret))
        return int(pgoff in file.place and self.entered(there, file, pgoff, offset // PAGE_SIZE))

    def smaps(self, mapping: Result) -> Result:
        """smaps_account(), of the only mapping of a file."""
        there = self.task.mapping(mapping)
        file = there.file
        assert isinstance(file, (Gmem, Secret))
        if any(other is not there and other.file is file for other in self.task.maps.values()):
            raise Unmodelled("in which of its mappings' page tables a page is")
        pages = [pgoff - there.offset // PAGE_SIZE for pgoff in file.place]
        pages = [page for page in pages if there.spans.cover(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)]
        here = [page for page in pages if self.entered(there, file, page + there.offset // PAGE_SIZE, page)]
        rss = len(here) * PAGE_SIZE
        return rss, rss, len(there.locked.intersection(here)) * PAGE_SIZE

    def load(self, mapping: Result, offset: int) -> Result:
        there = self.task.mapping(mapping, offset, 1)
        return self.accessed(there, offset, None)

    def store(self, mapping: Result, offset: int, value: int) -> Result:
        there = self.task.mapping(mapping, offset, 1)
        self.accessed(there, offset, value)
        return 0

    def accessed(self, mapping: Mapping, offset: int, value: int | None) -> int:
        """A load, or a store of a value, of a byte."""
        prot = mapping.spans.at(offset)
        guarded = offset // PAGE_SIZE in mapping.guarded
        if guarded or not prot & (PROT_WRITE if value is not None else PROT_READ | PROT_WRITE):
            raise Denied(Signal("SIGSEGV", offset))
        with self.kernel.running():
            cells = self.page(mapping, offset, value is not None)
        if cells is None:
            raise Denied(Signal("SIGBUS", offset))
        if value is not None:
            cells[offset % PAGE_SIZE] = value & 0xFF
        return cells.get(offset % PAGE_SIZE, 0)

    def entered(self, mapping: Mapping, file: Gmem | Secret, pgoff: int, page: int) -> bool:
        """Whether the page table has a page: that of the file, and of one with a userfaultfd what came since."""
        entry = file.file.mapping.user[file.at(pgoff)]
        return entry.live and (not mapping.trapped(page) or mapping.has.get(page) is entry.folio)

    def page(self, mapping: Mapping, offset: int, write: bool) -> dict[int, int] | None:
        """The bytes of the page at an offset of a mapping, faulted in; None for a SIGBUS."""
        pgoff = (mapping.offset + offset) // PAGE_SIZE
        file = mapping.file
        assert isinstance(file, (Gmem, Secret))
        if pgoff * PAGE_SIZE >= file.size:
            return None
        place = file.at(pgoff)
        entry = file.file.mapping.user[place]
        mode, mapping.touched = mapping.trapped(offset // PAGE_SIZE), True
        if mode and not self.entered(mapping, file, pgoff, offset // PAGE_SIZE):
            if mode & (MISSING if file.slots[place] is None else MINOR):
                return None
        if not entry.live:
            if file.file.fault(self.kernel.cpu, place):
                return None
            if write and isinstance(file, Gmem):
                file.changed = True  # fault_dirty_shared_page()
        assert entry.folio is not None
        if mode:
            mapping.has[offset // PAGE_SIZE] = entry.folio
        cells = self.kernel.cells(entry.folio.frame)
        if isinstance(file, Gmem):
            user_access(self.kernel.world.machine, file.file.mapping, place, write)
        elif write:
            file.file.write(place)
        return cells
