# SPDX-License-Identifier: Apache-2.0
"""The simulated host: system calls and ioctls in front of the guest_memfd library.

What happens to pages is the library's and the KVM driver's doing.  Here is what the kernel puts around it: descriptors,
checks of arguments in the kernel's order, mappings, memory slots, and the bytes in the frames.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Iterator
from errno import (
    EACCES,
    EBADF,
    EBUSY,
    EEXIST,
    EFAULT,
    EFBIG,
    EINVAL,
    EIO,
    ENODEV,
    ENOMEM,
    ENOTTY,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
)
from typing import Any, TypeVar

from guestmem.contract.host import (
    GUEST_GPA,
    GUEST_SIZE,
    GUEST_SLOT,
    NO_MAPPING,
    PAGE_SIZE,
    U64,
    Advice,
    Denied,
    Host,
    Missing,
    Result,
    Signal,
    Stat,
    Unmodelled,
)
from guestmem.contract.simulated_files import (
    FLAG_INIT_SHARED,
    FLAG_MMAP,
    Gmem,
    Mapping,
    Open,
    Pinned,
    Secretmem,
    Serial,
    SimulatedMachine,
    Slot,
    Vcpu,
    Vm,
)
from guestmem.contract.simulated_race import race
from guestmem.machine.frame import Content, Frame
from guestmem.machine.guest import Gfn
from guestmem.machine.machine import Fault
from guestmem.mm.filemap import gup_fast, unmap_mapping_page, user_access
from guestmem.model.control import running

__all__ = ["SimulatedHost"]

Kind = TypeVar("Kind", bound=Open)
Part = tuple[dict[int, int], int, int]  # the bytes of a page, the first that is meant, how many

MAX_LFS_FILESIZE = (1 << 63) - 1
TASK_SIZE = (1 << 47) - PAGE_SIZE
MAX_GPA = 1 << 52  # of a KVM without two-dimensional paging (kvm_mmu_max_gfn)
REACH = 1 << 30  # of the guest's page tables
USER_MEM_SLOTS = 32764
MAX_SLOT_PAGES = (1 << 31) - 1
CAP_GUEST_MEMFD_FLAGS = 244
CAPABILITIES = {10: USER_MEM_SLOTS, 231: 1, 232: 1, 234: 1}

MODELLED_FLAGS = FLAG_MMAP | FLAG_INIT_SHARED

KEEP_SIZE, PUNCH_HOLE = 0x01, 0x02
FALLOC_MODES = {0x00, 0x02, 0x08, 0x10, 0x20, 0x40, 0x80}
FALLOC_MOVES = {0x08, 0x20, 0x80}  # collapse, insert, write zeroes: not with KEEP_SIZE

MEM_LOG_DIRTY, MEM_READONLY, MEM_GUEST_MEMFD = 1, 2, 4

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE, MAP_TYPE = 0x01, 0x02, 0x03, 0x0F
MAP_LOCKED, MAP_POPULATE, MAP_HUGETLB = 0x2000, 0x8000, 0x40000
LEGACY_MAP_MASK = 0x7FFFF
MS_ASYNC, MS_INVALIDATE, MS_SYNC = 1, 2, 4
LARGE_SLOT = 1 << 18
SMALL = 64 * PAGE_SIZE  # the longest range whose pages are touched one by one
ROOMY = 1 << 40  # mappings up to this size fit; how many larger ones do is not modelled

VM_IOCTLS = {
    "create_guest_memfd",
    "check_extension",
    "set_user_memory_region2",
    "set_user_memory_region",
    "create_vcpu",
    "pages_4k",
}
POLLIN, POLLOUT = 0x1, 0x4

GMEM_OPERATIONS: dict[str, int | str] = {
    **dict.fromkeys(("read", "write", "readv", "read 0", "write 0"), "EINVAL"),
    **dict.fromkeys(("pread", "pwrite"), "ESPIPE"),
    **dict.fromkeys(("lseek set", "lseek cur", "lseek end", "lseek data", "lseek hole", "sendfile from offset"), "ESPIPE"),
    **dict.fromkeys(("ftruncate", "fsync", "fdatasync", "readahead", "fchmod", "fchown", "futimens"), "EINVAL"),
    **dict.fromkeys(("get seals", "add seals", "splice from", "splice to", "sendfile from", "sendfile to"), "EINVAL"),
    **dict.fromkeys(("copy_file_range from", "copy_file_range to", "linkat"), "EXDEV"),
    **dict.fromkeys(("sync_file_range", "fadvise dontneed", "flock", "lockf", "flistxattr"), 0),
    "poll": POLLIN | POLLOUT,
    "fsetxattr": "EOPNOTSUPP",
    "epoll add": "EPERM",
    "ioctl": "ENOTTY",
    "fchdir": "ENOTDIR",
    "execveat": "EACCES",
    "reopen": "ENXIO",
}
SECRETMEM_OPERATIONS: dict[str, int | str] = {**GMEM_OPERATIONS, "fchmod": 0, "fchown": 0, "futimens": 0}

FLAGS_KNOWN = "only flags that the VM supports are legal"
SIZE_WHOLE_PAGES = "the size of a file is positive and whole pages"
NO_SUCH_OPERATION = "a file of guest memory does not have the operation"
NOT_OPEN = "the descriptor is not open"
NOT_ITS_IOCTL = "the descriptor does not have the ioctl"
MODES = "files of guest memory have fallocate modes KEEP_SIZE and PUNCH_HOLE|KEEP_SIZE"
WHOLE_PAGES = "offsets and lengths are whole pages"
INSIDE = "the range is inside the file"
END_BELOW = "the range of a slot ends below 2^63"
SLOT_ARGUMENTS = "a slot's flags, number, size and addresses are legal"
IMMUTABLE = "a slot with guest memory can only be deleted"
GPA_TAKEN = "guest-physical memory is in one slot"
RANGE_BOUND = "a range of a file has one slot"
OF_THIS_VM = "a slot takes a file of guest memory of its own VM"
MAPPABLE = "only a file with GUEST_MEMFD_FLAG_MMAP can be mapped"
ONLY_SHARED = "files of guest memory are mapped shared"
NO_EXEC = "files of guest memory are not executable"
OTHER_PROCESS = "a VM is used by the process that made it"
NOT_FAULTABLE = "the kernel cannot fault the page in either"


def signed(value: int) -> int:
    """A 64-bit number as the kernel's loff_t."""
    return (value & (U64 - 1)) - ((value & 1 << 63) << 1)


def aligned(*values: int) -> bool:
    """Whether all are whole pages."""
    return not any(value % PAGE_SIZE for value in values)


class SimulatedHost(Host):
    """The contract's user-space interface on the model.

    Attributes:
        flags: what KVM_CAP_GUEST_MEMFD_FLAGS says.
    """

    name = "model"
    flags = MODELLED_FLAGS

    def __init__(self, **sizes: int) -> None:
        self.world = SimulatedMachine(**sizes)
        self.kernel = self.world.kernel
        self.cpu = self.world.machine.cpus[0]
        self.serial = Serial(self.kernel.folios)
        self.bytes: dict[Frame, dict[int, int]] = {}
        self.fds: dict[int, Open] = {}
        self.maps: dict[int, Mapping] = {}
        self.next = 0

    def finish(self) -> None:
        with running(self.serial):
            for handle in list(self.maps):
                self.drop(self.maps.pop(handle).file)
            for handle in list(self.fds):
                self.drop(self.fds.pop(handle))
        self.next = 0

    # ---- handles

    def handle(self) -> int:
        """A new handle."""
        self.next += 1
        return self.next - 1

    def opened(self, file: Open) -> int:
        """A descriptor for a file."""
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

    def of_kind(self, fd: Result, kind: type[Kind], otherwise: int, rule: str) -> Kind:
        """What a descriptor refers to, which must be of a kind."""
        file = self.file(fd)
        if not isinstance(file, kind):
            raise Denied(otherwise, rule)
        return file

    def vm(self, fd: Result) -> Vm:
        """The VM of an ioctl."""
        return self.of_kind(fd, Vm, EINVAL if isinstance(self.file(fd), Vcpu) else ENOTTY, NOT_ITS_IOCTL)

    def drop(self, file: Open) -> None:
        """One user of a file less; the last one closes it (fput)."""
        file.uses -= 1
        if file.uses:
            return
        if isinstance(file, Gmem):
            file.file.release()
            for slot in file.slots():
                slot.file = None
            file.vm.files.remove(file)
            self.drop(file.vm)
        elif isinstance(file, Vcpu):
            self.drop(file.vm)
        elif isinstance(file, Pinned):
            file.unpin()

    def mapping(self, handle: Result, offset: int = 0, length: int = 0) -> Mapping:
        """A mapping that has a range."""
        mapping = self.maps.get(handle) if isinstance(handle, int) else None
        if mapping is None or offset < 0 or length < 0 or offset + length > mapping.length:
            raise Signal(NO_MAPPING)
        return mapping

    # ---- descriptors

    def create_vm(self, kind: int = 0) -> Result:
        if kind:
            raise Denied(EINVAL, "the machine has one type of VM")
        return self.opened(Vm())

    def create_guest_memfd(self, vm: Result, size: int, flags: int) -> Result:
        owner = self.vm(vm)
        if flags & (U64 - 1) & ~self.flags:
            raise Denied(EINVAL, FLAGS_KNOWN)
        if flags & ~MODELLED_FLAGS:
            raise Unmodelled("other flags of guest_memfd")
        if signed(size) <= 0 or not aligned(size):
            raise Denied(EINVAL, SIZE_WHOLE_PAGES)
        found = ((f, g) for f, g in zip(self.world.files, self.world.machine.guests, strict=True) if not f.open)
        file, guest = next(found, (None, None))
        if file is None or guest is None:
            raise Unmodelled("more open files than the simulated host has")
        err = file.create()
        if err:
            raise Denied(-err, "the protection can be had")
        gmem = Gmem(owner, file, guest, size, flags)
        owner.files.append(gmem)
        owner.uses += 1
        return self.opened(gmem)

    def memfd_create(self, size: int) -> Result:
        return self.opened(Open())

    def memfd_secret(self, flags: int) -> Result:
        if flags & ~0o2000000:
            raise Denied(EINVAL, "memfd_secret has no flag but O_CLOEXEC")
        return self.opened(Secretmem())

    def check_extension(self, fd: Result, capability: int) -> Result:
        self.vm(fd)
        return self.flags if capability == CAP_GUEST_MEMFD_FLAGS else CAPABILITIES.get(capability, 0)

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
        with running(self.serial):
            self.drop(file)
        return 0

    def in_child(self, operation: str, *arguments: Any) -> Result:
        if operation == "set_user_memory_region2":
            self.address(arguments[5], arguments[4])
        if operation in VM_IOCTLS and isinstance(self.file(arguments[0]), (Vm, Vcpu)):
            raise Denied(EIO, OTHER_PROCESS)
        if operation in ("guest_load", "guest_store", "race_punch"):
            raise Unmodelled("a child that runs its parent's guest")
        fds, maps, handles = dict(self.fds), dict(self.maps), self.next
        for file in itertools.chain(fds.values(), (mapping.file for mapping in maps.values())):
            file.uses += 1
        self.maps = {handle: mapping.copy() for handle, mapping in maps.items()}
        try:
            result: Result = getattr(self, operation)(*arguments)
        finally:
            rule = self.rule
            self.finish()
            self.fds, self.maps, self.next, self.rule = fds, maps, handles, rule
        return result

    # ---- the file

    def fstat(self, fd: Result) -> Result:
        file = self.file(fd)
        if isinstance(file, Gmem):
            return Stat(file.size, 0o100600, PAGE_SIZE, 0)
        if isinstance(file, Secretmem):
            return Stat(file.size, 0o100600, PAGE_SIZE, 0)
        raise Unmodelled("fstat of what is no guest memory")

    def descriptor_flags(self, fd: Result) -> Result:
        if isinstance(self.file(fd), Gmem):
            return 0, 0o100002  # no FD_CLOEXEC; O_RDWR | O_LARGEFILE
        raise Unmodelled("flags of what is no guest memory")

    def same_inode(self, one: Result, other: Result) -> Result:
        files = self.file(one), self.file(other)
        if not all(isinstance(file, Gmem) for file in files):
            raise Unmodelled("inodes of what is no guest memory")
        return int(files[0] is files[1])

    def fallocate(self, fd: Result, mode: int, offset: int, length: int) -> Result:
        return self.vfs_fallocate(self.file(fd), mode, signed(offset), signed(length))

    def vfs_fallocate(self, file: Open, mode: int, offset: int, length: int) -> int:
        """fs/open.c, and kvm_gmem_fallocate()."""
        keep, what = mode & KEEP_SIZE, mode & ~KEEP_SIZE
        if offset < 0 or length <= 0:
            raise Denied(EINVAL, "offset and length are positive")
        if what not in FALLOC_MODES or (what == PUNCH_HOLE and not keep) or (what in FALLOC_MOVES and keep):
            raise Denied(EOPNOTSUPP, MODES)
        if not isinstance(file, (Gmem, Secretmem)):
            raise Unmodelled("fallocate of what is no guest memory")
        if offset + length > MAX_LFS_FILESIZE:
            raise Denied(EFBIG, "offset + length is below 2^63")
        if not isinstance(file, Gmem) or not keep or what not in (0, PUNCH_HOLE):
            raise Denied(EOPNOTSUPP, MODES)
        if not aligned(offset, length):
            raise Denied(EINVAL, WHOLE_PAGES)
        if what != PUNCH_HOLE and offset + length > file.size:
            raise Denied(EINVAL, INSIDE)
        with running(self.serial):
            change = file.punch_hole if what == PUNCH_HOLE else file.allocate
            err = change(offset // PAGE_SIZE, (offset + length) // PAGE_SIZE)
        if err:
            raise Denied(-err, "the library allows it")
        return 0

    def fallocate_signalled(self, fd: Result, length: int) -> Result:
        raise Missing("signals: the library does not look for them")

    def cachestat(self, fd: Result, offset: int, length: int) -> Result:
        file = self.file(fd)
        first = (offset & (U64 - 1)) // PAGE_SIZE
        last = ((offset + length - 1) & (U64 - 1)) // PAGE_SIZE if length else U64
        if isinstance(file, Gmem):
            return file.resident(first, last + 1)
        if isinstance(file, Secretmem):
            return sum(first <= pgoff <= last for pgoff in file.pages)
        raise Unmodelled("residency of what is no guest memory")

    def file_operation(self, fd: Result, operation: str, offset: int = 0, length: int = 0) -> Result:
        file = self.file(fd)
        if isinstance(file, Secretmem):
            if operation == "ftruncate":
                return self.truncate(file, signed(offset))
            return SECRETMEM_OPERATIONS[operation]
        if not isinstance(file, Gmem):
            raise Unmodelled("file operations on what is no guest memory")
        self.rule = NO_SUCH_OPERATION
        if operation in ("pread", "pwrite") and signed(offset) < 0:
            return "EINVAL"
        return GMEM_OPERATIONS[operation]

    def truncate(self, file: Secretmem, size: int) -> int:
        """secretmem_setattr(): a size is given once."""
        if size < 0 or file.size:
            raise Denied(EINVAL, "the size of secret memory is set once")
        file.size = size
        return 0

    # ---- mappings

    def mmap(self, fd: Result, length: int, prot: int, flags: int, offset: int) -> Result:
        """ksys_mmap_pgoff(), do_mmap(), kvm_gmem_mmap()."""
        offset, kind = offset & (U64 - 1), flags & MAP_TYPE
        if not aligned(offset):
            raise Denied(EINVAL, WHOLE_PAGES)
        file = self.file(fd)
        if not isinstance(file, (Gmem, Secretmem)):
            raise Unmodelled("mappings of what is no guest memory")
        if flags & MAP_HUGETLB:
            raise Denied(EINVAL, "only files of hugetlbfs are mapped with MAP_HUGETLB")
        if length == 0:
            raise Denied(EINVAL, "a mapping is not empty")
        rounded = (length + PAGE_SIZE - 1) & (U64 - PAGE_SIZE)
        if not 0 < rounded <= TASK_SIZE:
            raise Denied(ENOMEM, "the address space has room")
        if rounded > ROOMY:
            raise Unmodelled("how many large mappings an address space has room for")
        if offset + rounded > MAX_LFS_FILESIZE:
            raise Denied(EOVERFLOW, "a mapping ends before the largest offset")
        if kind == MAP_SHARED_VALIDATE and flags & ~LEGACY_MAP_MASK:
            raise Denied(EOPNOTSUPP, "MAP_SHARED_VALIDATE takes flags that the file knows")
        if kind not in (MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE):
            raise Denied(EINVAL, "a mapping is shared or private")
        if prot & PROT_EXEC:
            raise Denied(EPERM, NO_EXEC)
        if isinstance(file, Gmem) and not file.flags & FLAG_MMAP:
            raise Denied(ENODEV, MAPPABLE)
        if kind == MAP_PRIVATE:
            raise Denied(EINVAL, ONLY_SHARED)
        if flags & (MAP_POPULATE | MAP_LOCKED) and rounded > SMALL:
            raise Unmodelled("populating many pages")
        handle = self.handle()
        file.uses += 1
        mapping = self.maps[handle] = Mapping(file, rounded, prot & 7, offset)
        if flags & (MAP_POPULATE | MAP_LOCKED) and isinstance(file, Gmem):
            if flags & MAP_LOCKED:
                mapping.locked.update(range(rounded // PAGE_SIZE))
            with contextlib.suppress(Denied):
                self.populate(mapping, 0, rounded, bool(prot & PROT_WRITE), EFAULT)
        return handle

    def munmap(self, mapping: Result) -> Result:
        gone = self.mapping(mapping)
        assert isinstance(mapping, int)
        del self.maps[mapping]
        with running(self.serial):
            self.drop(gone.file)
        return 0

    def mprotect(self, mapping: Result, offset: int, length: int, prot: int) -> Result:
        there = self.mapping(mapping, offset, length)
        if not aligned(offset):
            raise Denied(EINVAL, WHOLE_PAGES)
        if prot & PROT_EXEC and length:
            raise Denied(EACCES, NO_EXEC)
        there.protect(offset, -(-(offset + length) // PAGE_SIZE) * PAGE_SIZE, prot & 7)
        return 0

    def madvise(self, mapping: Result, offset: int, length: int, advice: int) -> Result:
        there = self.mapping(mapping, offset, length)
        if not aligned(offset):
            raise Denied(EINVAL, WHOLE_PAGES)
        if advice not in list(Advice):
            raise Unmodelled("other advice")
        end = -(-(offset + length) // PAGE_SIZE) * PAGE_SIZE
        if offset == end:
            return 0
        if isinstance(there.file, Secretmem):
            return self.madvise_secret(advice)
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
                    raise Denied(EINVAL, "locked memory stays")
                if advice == Advice.DONTNEED:
                    self.drop_entries(there, there.file, start, stop)
                elif advice == Advice.REMOVE:
                    self.vfs_fallocate(there.file, PUNCH_HOLE | KEEP_SIZE, there.offset + start, stop - start)
        elif advice == Advice.DONTFORK:
            raise Unmodelled("mappings that a child does not get")
        return 0

    def madvise_secret(self, advice: int) -> int:
        """Secret memory is locked, so most advice is not for it."""
        if advice in (Advice.NORMAL, Advice.HUGEPAGE, Advice.DONTFORK):
            return 0
        raise Denied(EINVAL, "locked memory stays")

    def drop_entries(self, mapping: Mapping, file: Gmem, start: int, end: int) -> None:
        """Empty a part of the page table (zap_page_range); the pages stay in the file."""
        first = (mapping.offset + start) // PAGE_SIZE
        with running(self.serial):
            for place in file.used(first, first + (end - start) // PAGE_SIZE):
                unmap_mapping_page(file.file.mapping, place)

    def mlock(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.mapping(mapping, offset, length)
        if isinstance(there.file, Secretmem):
            raise Denied(ENOMEM, "secret memory cannot be populated")
        if length > SMALL:
            raise Unmodelled("populating many pages")
        start, end = offset & -PAGE_SIZE, -(-(offset + length) // PAGE_SIZE) * PAGE_SIZE
        there.locked.update(range(start // PAGE_SIZE, end // PAGE_SIZE))
        try:
            self.populate(there, start, end, None, ENOMEM)
        except Denied:
            raise Denied(ENOMEM, NOT_FAULTABLE) from None
        return 0

    def munlock(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.mapping(mapping, offset, length)
        there.locked.difference_update(range(offset // PAGE_SIZE, -(-(offset + length) // PAGE_SIZE)))
        return 0

    def msync(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        there = self.mapping(mapping, offset, length)
        if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or not aligned(offset) or (flags & MS_ASYNC and flags & MS_SYNC):
            raise Denied(EINVAL, "flags and start are legal")
        end = -(-(offset + length) // PAGE_SIZE) * PAGE_SIZE
        if offset == end:
            return 0
        if flags & MS_INVALIDATE and (
            isinstance(there.file, Secretmem) or any(offset <= page * PAGE_SIZE < end for page in there.locked)
        ):
            raise Denied(EBUSY, "locked memory stays")
        if flags & MS_SYNC:
            raise Denied(EINVAL, NO_SUCH_OPERATION)
        return 0

    def populate(self, mapping: Mapping, start: int, end: int, write: bool | None, forbidden: int) -> None:
        """Fault pages in one by one; ``write`` None: as the mapping allows; ``forbidden`` is the errno if it does not."""
        with running(self.serial):
            for offset in range(start, end, PAGE_SIZE):
                prot = mapping.prot(offset)
                wanted = bool(prot & PROT_WRITE) if write is None else write
                if not prot & (PROT_WRITE if wanted else PROT_READ):
                    raise Denied(forbidden, NOT_FAULTABLE)
                if self.page(mapping, offset, wanted) is None:
                    raise Denied(EFAULT, NOT_FAULTABLE)

    def load(self, mapping: Result, offset: int) -> Result:
        there = self.mapping(mapping, offset, 1)
        return self.accessed(there, offset, None)

    def store(self, mapping: Result, offset: int, value: int) -> Result:
        there = self.mapping(mapping, offset, 1)
        self.accessed(there, offset, value)
        return 0

    def accessed(self, mapping: Mapping, offset: int, value: int | None) -> int:
        """A load, or a store of a value, of a byte."""
        prot = mapping.prot(offset)
        if not prot & (PROT_WRITE if value is not None else PROT_READ | PROT_WRITE):
            raise Signal(f"SIGSEGV +{offset:#x}")
        with running(self.serial):
            cells = self.page(mapping, offset, value is not None)
        if cells is None:
            raise Signal(f"SIGBUS +{offset:#x}")
        if value is not None:
            cells[offset % PAGE_SIZE] = value & 0xFF
        return cells.get(offset % PAGE_SIZE, 0)

    def page(self, mapping: Mapping, offset: int, write: bool) -> dict[int, int] | None:
        """The bytes of the page at an offset of a mapping, faulted in; None for a SIGBUS."""
        pgoff = (mapping.offset + offset) // PAGE_SIZE
        if isinstance(mapping.file, Secretmem):
            return mapping.file.pages.setdefault(pgoff, {}) if pgoff * PAGE_SIZE < mapping.file.size else None
        gmem = mapping.file
        assert isinstance(gmem, Gmem)
        if pgoff * PAGE_SIZE >= gmem.size:
            return None
        place = gmem.at(pgoff)
        while user_access(self.world.machine, gmem.file.mapping, place, False) is Fault.TRANSLATION:
            if gmem.file.fault(self.cpu, place):
                return None
        folio = gmem.file.mapping.user[place].folio
        assert folio is not None
        cells = self.cells(folio.frame)
        if write:
            user_access(self.world.machine, gmem.file.mapping, place, True)
        return cells

    def cells(self, frame: Frame) -> dict[int, int]:
        """The bytes of a frame; none but zeros where it is labelled so."""
        if frame.content is Content.ZERO or frame not in self.bytes:
            self.bytes[frame] = {}
        return self.bytes[frame]

    # ---- VMs

    def set_user_memory_region2(
        self, vm: Result, slot: int, flags: int, gpa: int, size: int, address: Result | None, fd: Result, offset: int
    ) -> Result:
        """kvm_set_memory_region()."""
        hva = self.address(address, size)
        owner = self.vm(vm)
        slot, flags = slot & 0xFFFFFFFF, flags & 0xFFFFFFFF
        gmem = bool(flags & MEM_GUEST_MEMFD)
        if flags & ~(MEM_GUEST_MEMFD if gmem else MEM_LOG_DIRTY | MEM_READONLY):
            raise Denied(EINVAL, SLOT_ARGUMENTS)
        if not aligned(size, gpa, hva) or hva + size > TASK_SIZE:
            raise Denied(EINVAL, SLOT_ARGUMENTS)
        if gmem and (not aligned(offset) or offset + size >= U64):
            raise Denied(EINVAL, WHOLE_PAGES)
        if slot >= USER_MEM_SLOTS or gpa + size >= U64 or size // PAGE_SIZE > MAX_SLOT_PAGES:
            raise Denied(EINVAL, SLOT_ARGUMENTS)
        old = owner.slots.get(slot)
        with running(self.serial):
            if size == 0:
                return self.delete_slot(owner, slot)
            new = Slot(flags, gpa, size // PAGE_SIZE, address)
            move = old is not None and old.gpa != gpa
            if old is not None:
                if gmem or old.flags & MEM_GUEST_MEMFD:
                    raise Denied(EINVAL, IMMUTABLE)
                if (old.address, old.pages, old.flags & MEM_READONLY) != (address, new.pages, flags & MEM_READONLY):
                    raise Denied(EINVAL, "an ordinary slot can only be moved")
            if (old is None or move) and any(o.overlaps(gpa, new.pages) for n, o in owner.slots.items() if n != slot):
                raise Denied(EEXIST, GPA_TAKEN)
            if gmem:
                self.gmem_bind(owner, new, fd, offset)
            if new.pages > LARGE_SLOT:
                raise Unmodelled("slots so large that KVM takes much memory for them")
            if gpa + size > MAX_GPA and (old is None or move):
                raise Denied(EINVAL, SLOT_ARGUMENTS)
            if new.file is not None:
                new.file.bind(new)
            if move:
                self.zap_all(owner)
            owner.slots[slot] = new
        return 0

    def address(self, address: Result | None, size: int) -> int:
        """userspace_addr as a number, where it matters which it is."""
        if address is None:
            return 0
        if isinstance(address, str) and address.startswith("0x"):
            return int(address, 16)
        mapping = self.mapping(address)
        if size > mapping.length:
            raise Unmodelled("a slot larger than its mapping")
        return 0

    def gmem_bind(self, vm: Vm, slot: Slot, fd: Result, offset: int) -> None:
        """kvm_gmem_bind(): the checks."""
        gmem = self.of_kind(fd, Gmem, EINVAL, OF_THIS_VM)
        if gmem.vm is not vm:
            raise Denied(EINVAL, OF_THIS_VM)
        if 0 <= signed(offset) <= MAX_LFS_FILESIZE < offset + slot.pages * PAGE_SIZE:
            raise Denied(EINVAL, END_BELOW)
        if signed(offset) < 0 or offset + slot.pages * PAGE_SIZE > gmem.size:
            raise Denied(EINVAL, INSIDE)
        pgoff = offset // PAGE_SIZE
        err = gmem.may_bind(pgoff, pgoff + slot.pages)
        if err:
            raise Denied(-err, RANGE_BOUND)
        slot.file, slot.pgoff, slot.gmem_only = gmem, pgoff, bool(gmem.flags & FLAG_MMAP)

    def delete_slot(self, vm: Vm, number: int) -> int:
        """KVM_MR_DELETE: everything goes from the VM's stage 2 (KVM_X86_QUIRK_SLOT_ZAP_ALL)."""
        slot = vm.slots.get(number)
        if slot is None:
            raise Denied(EINVAL, "only a slot that is there can be deleted")
        del vm.slots[number]
        self.zap_all(vm)
        if slot.file is not None:
            slot.file.unbind(slot)
        return 0

    def zap_all(self, vm: Vm) -> None:
        """Empty the VM's stage 2."""
        for gmem in vm.files:
            gmem.zap()

    def set_user_memory_region(self, vm: Result, slot: int, flags: int, gpa: int, size: int) -> Result:
        self.vm(vm)
        if flags & ~(MEM_LOG_DIRTY | MEM_READONLY):
            raise Denied(EINVAL, "KVM_SET_USER_MEMORY_REGION knows nothing of guest_memfd")
        result: Result = self.set_user_memory_region2(vm, slot, flags, gpa, size, None, -1, 0)
        if isinstance(result, str):
            raise Denied(getattr(errno, result), self.rule)
        return result

    def create_vcpu(self, vm: Result) -> Result:
        owner = self.vm(vm)
        if owner.has_vcpu:
            raise Denied(EEXIST, "a vCPU number is used once")
        taken = any(slot.overlaps(GUEST_GPA, GUEST_SIZE // PAGE_SIZE) for slot in owner.slots.values())
        if taken or GUEST_SLOT in owner.slots:
            raise Unmodelled("a VM without room for the guest's program")
        owner.slots[GUEST_SLOT] = Slot(0, GUEST_GPA, GUEST_SIZE // PAGE_SIZE, "program")
        owner.has_vcpu = True
        owner.uses += 1
        return self.opened(Vcpu(owner))

    def guest_load(self, vcpu: Result, gpa: int) -> Result:
        return self.guest_access(vcpu, gpa, None)

    def guest_store(self, vcpu: Result, gpa: int, value: int) -> Result:
        self.guest_access(vcpu, gpa, value)
        return 0

    def guest_access(self, fd: Result, gpa: int, value: int | None) -> int:
        """The guest's stage 2 has the page, or the host provides it (kvm_gmem_get_pfn)."""
        vcpu = self.of_kind(fd, Vcpu, ENOTTY, NOT_ITS_IOCTL)
        if not 0 <= gpa < REACH:
            raise Unmodelled("guest memory that the guest's page tables do not reach")
        slot = next((slot for slot in vcpu.vm.slots.values() if slot.overlaps(gpa & -PAGE_SIZE, 1)), None)
        if slot is None:
            raise Signal("MMIO")
        gmem = slot.file
        if not slot.gmem_only:
            raise Unmodelled("guest memory that is in the mapping of the slot")
        if gmem is None:
            raise Denied(EFAULT, "a slot whose file was closed has no memory")
        place = gmem.at(slot.pgoff + (gpa - slot.gpa) // PAGE_SIZE)
        gfn = Gfn(place)
        with running(self.serial):
            entry = gmem.guest.entries[gfn]
            if not entry.live:
                err = gmem.file.guest_fault(self.cpu, gmem.guest, gfn)
                if err:
                    raise Denied(-err, "a bound page can be faulted in")
            assert entry.frame is not None
            cells = self.cells(entry.frame)
            if value is not None:
                gmem.guest.touch(gfn)
                cells[gpa % PAGE_SIZE] = value & 0xFF
        return cells.get(gpa % PAGE_SIZE, 0)

    def pages_4k(self, vm: Result) -> Result:
        if isinstance(self.file(vm), Vcpu):
            raise Unmodelled("the statistics of a vCPU")
        if any(isinstance(slot.address, int) for slot in self.vm(vm).slots.values()):
            raise Unmodelled("entries that MMU notifiers of userspace_addr take away as well")
        return sum(gmem.live() for gmem in self.vm(vm).files)

    # ---- users through GUP, and copies of the kernel

    def gup(self, mapping: Mapping, offset: int, length: int, write: bool, fast: bool = True) -> Iterator[Part]:
        """The pages of a range as the kernel gets them; stops where it cannot.

        ``fast``: GUP-fast looks at the page table alone before the slow way looks at the mapping.
        """
        end = offset + length
        if fast and not write and any(s < end and e > offset and prot & 3 == PROT_WRITE for s, e, prot in mapping.spans):
            raise Unmodelled("whether a page that may only be written to is in the page table, where GUP-fast reads it")
        while offset < end:
            part = min(end - offset, PAGE_SIZE - offset % PAGE_SIZE)
            prot = mapping.prot(offset)
            if isinstance(mapping.file, Secretmem) or not prot & (PROT_WRITE if write else PROT_READ):
                return
            cells = self.page(mapping, offset, write)
            if cells is None:
                return
            yield cells, offset % PAGE_SIZE, part
            offset += part

    def taken(self, parts: Iterator[Part]) -> bytes:
        """The bytes of pages."""
        return b"".join(bytes(cells.get(first + i, 0) for i in range(count)) for cells, first, count in parts)

    def process_vm_readv(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.mapping(mapping, offset, length)
        with running(self.serial):
            data = self.taken(self.gup(there, offset, length, False, fast=False))
        return self.some(data, length, EFAULT)

    def some(self, data: bytes, length: int, code: int) -> bytes:
        """What was read, unless that is nothing."""
        if length and not data:
            raise Denied(code, NOT_FAULTABLE)
        return data

    def process_vm_writev(self, mapping: Result, offset: int, data: bytes) -> Result:
        there = self.mapping(mapping, offset, len(data))
        done = 0
        with running(self.serial):
            for cells, first, count in self.gup(there, offset, len(data), True):
                cells.update(enumerate(data[done : done + count], first))
                done += count
        return len(self.some(data[:done], len(data), EFAULT))

    def proc_mem_read(self, mapping: Result, offset: int, length: int) -> Result:
        # FOLL_FORCE: what may become readable is readable.
        there = self.mapping(mapping, offset, length)
        forced = there.copy()
        forced.protect(0, there.length, PROT_READ)
        with running(self.serial):
            data = self.taken(self.gup(forced, offset, length, False))
        return self.some(data, length, EIO)

    def copied(self, mapping: Mapping, offset: int, length: int, write: bool) -> Iterator[Part]:
        """The pages of a range as loads and stores of the kernel reach them; raises EFAULT where they do not."""
        for start in range(offset - offset % PAGE_SIZE, offset + length if length else 0, PAGE_SIZE):
            first = max(start, offset)
            prot = mapping.prot(first)
            cells = None
            if prot & (PROT_WRITE if write else PROT_READ | PROT_WRITE):
                cells = self.page(mapping, first, write)
            if cells is None:
                raise Denied(EFAULT, NOT_FAULTABLE)
            yield cells, first % PAGE_SIZE, min(start + PAGE_SIZE, offset + length) - first

    def write_pipe(self, mapping: Result, offset: int, length: int) -> Result:
        if length > PAGE_SIZE:
            raise Unmodelled("more than a page at a time through a pipe")
        there = self.mapping(mapping, offset, length)
        with running(self.serial):
            return self.taken(self.copied(there, offset, length, False))

    def read_pipe(self, mapping: Result, offset: int, data: bytes) -> Result:
        there = self.mapping(mapping, offset, len(data))
        done = 0
        with running(self.serial):
            for cells, first, count in self.copied(there, offset, len(data), True):
                cells.update(enumerate(data[done : done + count], first))
                done += count
        return done

    def direct_write(self, mapping: Result, offset: int) -> Result:
        there = self.mapping(mapping, offset, PAGE_SIZE)
        if not aligned(offset):
            raise Unmodelled("direct I/O of parts of pages")
        with running(self.serial):
            data = self.taken(self.gup(there, offset, PAGE_SIZE, False))
        return self.some(data, PAGE_SIZE, EFAULT)[:8]

    def direct_read(self, mapping: Result, offset: int, value: int) -> Result:
        there = self.mapping(mapping, offset, PAGE_SIZE)
        if not aligned(offset):
            raise Unmodelled("direct I/O of parts of pages")
        with running(self.serial):
            for cells, _, count in self.gup(there, offset, PAGE_SIZE, True):
                cells.update(dict.fromkeys(range(PAGE_SIZE), value))
                return count
        raise Denied(EFAULT, NOT_FAULTABLE)

    def pin(self, mapping: Mapping, offset: int, length: int, write: bool) -> Pinned:
        """References to the pages of a range, as far as they can be had."""
        pinned = Pinned(self.kernel)
        with running(self.serial):
            for _, first, count in self.gup(mapping, offset, length, write):
                assert isinstance(mapping.file, Gmem)
                folio = gup_fast(mapping.file.file.mapping, mapping.file.at((mapping.offset + offset) // PAGE_SIZE))
                assert folio is not None
                pinned.parts.append((folio, first, count))
                offset += count
        return pinned

    def vmsplice(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.mapping(mapping, offset, length)
        if not 0 < length <= 8 * PAGE_SIZE:
            raise Unmodelled("pipes with many pages")
        pinned = self.pin(there, offset, length, False)
        if not pinned.parts:
            raise Denied(EFAULT, NOT_FAULTABLE)
        pinned.is_pipe = True
        return self.opened(pinned)

    def read_spliced(self, pipe: Result, length: int) -> Result:
        pinned = self.of_kind(pipe, Pinned, EBADF, NOT_OPEN)
        if not pinned.is_pipe:
            raise Denied(EBADF, NOT_OPEN)
        data = b""
        with running(self.serial):
            for folio, first, count in pinned.take(length):
                cells = self.bytes.get(folio.frame, {}) if folio.frame.content is not Content.ZERO else {}
                data += bytes(cells.get(first + i, 0) for i in range(count))
        return data

    def io_uring_register(self, mapping: Result, offset: int, length: int) -> Result:
        there = self.mapping(mapping, offset, length)
        if not 0 < length <= 8 * PAGE_SIZE:
            raise Unmodelled("buffers with many pages")
        pinned = self.pin(there, offset, length, True)
        if sum(count for _, _, count in pinned.parts) < length:
            with running(self.serial):
                pinned.unpin()
            raise Denied(EFAULT, NOT_FAULTABLE)
        return self.opened(pinned)

    def futex_wake(self, mapping: Result, offset: int) -> Result:
        there = self.mapping(mapping, offset, 4)
        if offset % 4:
            raise Denied(EINVAL, "a futex is aligned")
        with running(self.serial):
            # Writing is tried before reading.
            if not list(self.gup(there, offset, 4, bool(there.prot(offset) & PROT_WRITE))):
                raise Denied(EFAULT, NOT_FAULTABLE)
        return 0

    # ---- limits and concurrency

    def allocate_limited(self, limit: int, length: int) -> Result:
        raise Missing("memory cgroups: the simulated host has none")

    def race_punch(self, vcpu: Result, fd: Result, mapping: Result, pages: int) -> Result:
        self.mapping(mapping, 0, pages * PAGE_SIZE)
        gmem = self.of_kind(fd, Gmem, EINVAL, NO_SUCH_OPERATION)
        places = [gmem.at(pgoff) for pgoff in range(pages)]
        wrong = race(self.world, self.serial, gmem, places, isinstance(vcpu, int))
        self.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, pages * PAGE_SIZE)
        left = self.cachestat(fd, 0, pages * PAGE_SIZE)
        assert isinstance(left, int)
        return wrong, left
