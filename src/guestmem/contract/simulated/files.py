# SPDX-License-Identifier: Apache-2.0
"""Descriptors and files of the simulated host."""

from __future__ import annotations

import select
from errno import EAGAIN, EBADF, EFBIG, EINVAL, ENOTTY, EOPNOTSUPP
from typing import TypeVar

from guestmem.contract.host import NO_MAPPING, PAGE_SIZE, U64, Denied, Host, Result, Signal, Stat, Unmodelled
from guestmem.contract.simulated.machine import Serial, SimulatedMachine
from guestmem.contract.simulated.objects import (
    Gmem,
    Mapping,
    Open,
    Pinned,
    Placed,
    Secret,
    Vcpu,
    Vm,
)
from guestmem.linux.kvm import KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES
from guestmem.linux.uapi import (
    FALLOC_FL_ALLOCATE_RANGE,
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_INSERT_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_UNSHARE_RANGE,
    FALLOC_FL_WRITE_ZEROES,
    FALLOC_FL_ZERO_RANGE,
    GUEST_MEMFD_FLAG_INIT_SHARED,
    GUEST_MEMFD_FLAG_MMAP,
    KVM_CAP_GUEST_MEMFD,
    KVM_CAP_GUEST_MEMFD_FLAGS,
    KVM_CAP_MEMORY_FAULT_INFO,
    KVM_CAP_NR_MEMSLOTS,
    KVM_CAP_USER_MEMORY2,
    KVM_MEMORY_ATTRIBUTE_PRIVATE,
)
from guestmem.machine.frame import Frame
from guestmem.model.control import running

__all__ = [
    "INSIDE",
    "MAX_LFS_FILESIZE",
    "NOT_ITS_IOCTL",
    "NOT_OPEN",
    "NO_SUCH_OPERATION",
    "USER_MEM_SLOTS",
    "WHOLE_PAGES",
    "Files",
    "aligned",
    "signed",
]

Kind = TypeVar("Kind", bound=Open)

MAX_LFS_FILESIZE = (1 << 63) - 1
USER_MEM_SLOTS = 32764
CAPABILITIES = {
    KVM_CAP_NR_MEMSLOTS: USER_MEM_SLOTS,
    KVM_CAP_USER_MEMORY2: 1,
    KVM_CAP_MEMORY_FAULT_INFO: 1,
    KVM_CAP_GUEST_MEMFD: 1,
    KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES: KVM_MEMORY_ATTRIBUTE_PRIVATE,
}

MODELLED_FLAGS = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED

FALLOC_NOT_KEEPING = {FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_WRITE_ZEROES}
FALLOC_MODES = FALLOC_NOT_KEEPING | {
    FALLOC_FL_ALLOCATE_RANGE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    FALLOC_FL_UNSHARE_RANGE,
}

GMEM_OPERATIONS: dict[str, int | str] = {
    **dict.fromkeys(("read", "write", "readv", "read 0", "write 0"), "EINVAL"),
    **dict.fromkeys(("pread", "pwrite"), "ESPIPE"),
    **dict.fromkeys(("lseek set", "lseek cur", "lseek end", "lseek data", "lseek hole", "sendfile from offset"), "ESPIPE"),
    **dict.fromkeys(("ftruncate", "fsync", "fdatasync", "readahead", "fchmod", "fchown", "futimens"), "EINVAL"),
    **dict.fromkeys(("get seals", "add seals", "splice from", "splice to", "sendfile from", "sendfile to"), "EINVAL"),
    **dict.fromkeys(("copy_file_range from", "copy_file_range to", "linkat"), "EXDEV"),
    **dict.fromkeys(("sync_file_range", "fadvise dontneed", "flock", "lockf", "flistxattr"), 0),
    "poll": select.POLLIN | select.POLLOUT,
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


def signed(value: int) -> int:
    """A 64-bit number as the kernel's loff_t."""
    return (value & (U64 - 1)) - ((value & 1 << 63) << 1)


def aligned(*values: int) -> bool:
    """Whether all are whole pages."""
    return not any(value % PAGE_SIZE for value in values)


class Files(Host):
    """Descriptors, files, and how they end.

    Attributes:
        flags: what KVM_CAP_GUEST_MEMFD_FLAGS says.
    """

    name = "model"
    flags = MODELLED_FLAGS

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.boot()

    def boot(self) -> None:
        """A new machine, with nothing open."""
        self.world = SimulatedMachine(**self.sizes)
        self.kernel = self.world.kernel
        self.cpu = self.world.machine.cpus[0]
        self.serial = Serial(self.kernel.folios)
        self.bytes: dict[Frame, dict[int, int]] = {}
        self.fds: dict[int, Open] = {}
        self.maps: dict[int, Mapping] = {}
        self.next = 0

    def finish(self) -> Result:
        try:
            with running(self.serial):
                for handle in list(self.maps):
                    self.drop(self.maps.pop(handle).file)
                for handle in list(self.fds):
                    self.drop(self.fds.pop(handle))
        except BaseException:
            self.boot()
            raise
        self.next = 0
        return 0

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
            for slot in file.bindings():
                slot.file = None
            file.vm.files.remove(file)
            self.drop(file.vm)
        elif isinstance(file, Secret):
            file.file.release(self.cpu)
        elif isinstance(file, Vcpu):
            self.drop(file.vm)
        elif isinstance(file, Pinned):
            file.unpin()

    def mapping(self, handle: Result, offset: int = 0, length: int = 0) -> Mapping:
        """A mapping that has a range."""
        mapping = self.maps.get(handle) if isinstance(handle, int) else None
        if mapping is None or offset < 0 or length < 0 or not mapping.spans.cover(offset, offset + length):
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
        file = next((file for file in self.world.secrets if not file.open), None)
        if file is None:
            raise Unmodelled("more open files than the simulated host has")
        err = file.create()
        if err:
            raise Denied(-err, "the direct map can be changed page by page")
        return self.opened(Secret(file))

    def check_extension(self, fd: Result, capability: int) -> Result:
        self.vm(fd)
        return self.flags if capability == KVM_CAP_GUEST_MEMFD_FLAGS else CAPABILITIES.get(capability, 0)

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

    # ---- the file

    def fstat(self, fd: Result) -> Result:
        file = self.file(fd)
        if isinstance(file, (Gmem, Secret)):
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
        keep, what = mode & FALLOC_FL_KEEP_SIZE, mode & ~FALLOC_FL_KEEP_SIZE
        if offset < 0 or length <= 0:
            raise Denied(EINVAL, "offset and length are positive")
        if what not in FALLOC_MODES or (what == FALLOC_FL_PUNCH_HOLE and not keep) or (what in FALLOC_NOT_KEEPING and keep):
            raise Denied(EOPNOTSUPP, MODES)
        if not isinstance(file, (Gmem, Secret)):
            raise Unmodelled("fallocate of what is no guest memory")
        if offset + length > MAX_LFS_FILESIZE:
            raise Denied(EFBIG, "offset + length is below 2^63")
        if not isinstance(file, Gmem) or not keep or what not in (0, FALLOC_FL_PUNCH_HOLE):
            raise Denied(EOPNOTSUPP, MODES)
        if not aligned(offset, length):
            raise Denied(EINVAL, WHOLE_PAGES)
        if what != FALLOC_FL_PUNCH_HOLE and offset + length > file.size:
            raise Denied(EINVAL, INSIDE)
        if what != FALLOC_FL_PUNCH_HOLE and length // PAGE_SIZE > len(file.file.shared) and self.serial.signal_after is None:
            raise Unmodelled("an allocation larger than the files of the simulated host")
        with running(self.serial):
            change = file.punch_hole if what == FALLOC_FL_PUNCH_HOLE else file.allocate
            err = change(offset // PAGE_SIZE, (offset + length) // PAGE_SIZE)
        if err:
            raise Denied(-err, "the library allows it")
        return 0

    def set_memory_attributes(self, fd: Result, offset: int, size: int, attributes: int, flags: int) -> Result:
        gmem = self.of_kind(fd, Gmem, ENOTTY, NOT_ITS_IOCTL)
        if flags or attributes & ~KVM_MEMORY_ATTRIBUTE_PRIVATE:
            raise Denied(EINVAL, "there is one attribute, and no flag")
        if not size or not aligned(offset, size):
            raise Denied(EINVAL, WHOLE_PAGES)
        if offset + size > gmem.size:
            raise Denied(EINVAL, INSIDE)
        with running(self.serial):
            err, at = gmem.convert(offset // PAGE_SIZE, (offset + size) // PAGE_SIZE, not attributes)
        if err == -EAGAIN:
            raise Signal(f"EAGAIN +{at * PAGE_SIZE:#x}")
        if err:
            raise Denied(-err, "the library allows it")
        return 0

    def cachestat(self, fd: Result, offset: int, length: int) -> Result:
        file = self.file(fd)
        first = (offset & (U64 - 1)) // PAGE_SIZE
        last = ((offset + length - 1) & (U64 - 1)) // PAGE_SIZE if length else U64
        if isinstance(file, Placed):
            return file.resident(first, last + 1)
        raise Unmodelled("residency of what is no guest memory")

    def file_operation(self, fd: Result, operation: str, offset: int = 0) -> Result:
        file = self.file(fd)
        if isinstance(file, Secret):
            if operation == "ftruncate":
                return self.truncate(file, signed(offset))
            return SECRETMEM_OPERATIONS[operation]
        if not isinstance(file, Gmem):
            raise Unmodelled("file operations on what is no guest memory")
        self.rule = NO_SUCH_OPERATION
        if operation in ("pread", "pwrite") and signed(offset) < 0:
            return "EINVAL"
        return GMEM_OPERATIONS[operation]

    def truncate(self, file: Secret, size: int) -> int:
        """secretmem_setattr(): a size is given once."""
        if size < 0 or file.size:
            raise Denied(EINVAL, "the size of secret memory is set once")
        file.size = size
        return 0
