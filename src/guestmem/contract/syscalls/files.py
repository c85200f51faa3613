# SPDX-License-Identifier: Apache-2.0
"""Files of the simulated host: fs/open.c and kvm_gmem_fops, in front of the library."""

from __future__ import annotations

import os

from guestmem.contract.interface import PAGE_SIZE, U64, Unmodelled
from guestmem.contract.operations import FILE_OPERATIONS
from guestmem.contract.results import (
    EFBIG,
    EINVAL,
    ENODEV,
    ENOTTY,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
    ESPIPE,
    Denied,
    Errno,
    Failure,
    Result,
    Stat,
)
from guestmem.contract.syscalls.objects import Gmem, Open, Placed, Secret
from guestmem.contract.syscalls.task import NOT_ITS_IOCTL, Task
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
    KVM_MEMORY_ATTRIBUTE_PRIVATE,
)
from guestmem.machine.frame import Content
from guestmem.mm.exception import kernel_store

__all__ = ["INSIDE", "MAX_LFS_FILESIZE", "NO_SUCH_OPERATION", "WHOLE_PAGES", "Files", "aligned", "signed"]

MAX_LFS_FILESIZE = (1 << 63) - 1

FALLOC_NOT_KEEPING = {FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_WRITE_ZEROES}
FALLOC_MODES = FALLOC_NOT_KEEPING | {
    FALLOC_FL_ALLOCATE_RANGE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    FALLOC_FL_UNSHARE_RANGE,
}

NO_SUCH_OPERATION = "a file of guest memory does not have the operation"
MODES = "files of guest memory have fallocate modes KEEP_SIZE and PUNCH_HOLE|KEEP_SIZE"
WHOLE_PAGES = "offsets and lengths are whole pages"
INSIDE = "the range is inside the file"
PRESERVED = "nothing comes or goes in a file that the next kernel gets"


def signed(value: int) -> int:
    """A 64-bit number as the kernel's loff_t."""
    return (value & (U64 - 1)) - ((value & 1 << 63) << 1)


def aligned(*values: int, order: int = 0) -> bool:
    """Whether all are whole pages, or whole huge pages of 2^order pages."""
    return not any(value % (PAGE_SIZE << order) for value in values)


class Files:
    """System calls on files."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.kernel = task.kernel

    def memfd_create(self, size: int) -> Result:
        return self.task.opened(Open())

    def memfd_secret(self, flags: int) -> Result:
        if flags & ~0o2000000:
            raise Denied(EINVAL, "memfd_secret has no flag but O_CLOEXEC")
        self.task.room()
        file = next((file for file in self.kernel.world.secrets if not file.open), None)
        if file is None:
            raise Unmodelled("more open files than the simulated host has")
        err = file.create(len(file.mapping.slots))
        if err:
            raise Denied(Errno(-err), "the direct map can be changed page by page")
        return self.task.opened(Secret(file))

    def fstat(self, fd: Result) -> Result:
        file = self.task.file(fd)
        if isinstance(file, (Gmem, Secret)):
            return Stat(file.size, 0o100600, PAGE_SIZE << (file.order if isinstance(file, Gmem) else 0), 0)
        raise Unmodelled("fstat of what is no guest memory")

    def descriptor_flags(self, fd: Result) -> Result:
        if isinstance(self.task.file(fd), Gmem):
            return 0, self.task.facts.large_file | os.O_RDWR  # no FD_CLOEXEC
        raise Unmodelled("flags of what is no guest memory")

    def same_inode(self, one: Result, other: Result) -> Result:
        files = self.task.file(one), self.task.file(other)
        if not all(isinstance(file, Gmem) for file in files):
            raise Unmodelled("inodes of what is no guest memory")
        return int(files[0] is files[1])

    def fallocate(self, fd: Result, mode: int, offset: int, length: int) -> Result:
        return self.vfs_fallocate(self.task.file(fd), mode, signed(offset), signed(length))

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
        if isinstance(file, Gmem) and file.file.preserved:
            raise Denied(EPERM, PRESERVED)
        if not isinstance(file, Gmem) or not keep or what not in (0, FALLOC_FL_PUNCH_HOLE):
            raise Denied(EOPNOTSUPP, MODES)
        if not aligned(offset, length, order=file.order):
            raise Denied(EINVAL, WHOLE_PAGES)
        if what != FALLOC_FL_PUNCH_HOLE and offset + length > file.size:
            raise Denied(EINVAL, INSIDE)
        if (
            what != FALLOC_FL_PUNCH_HOLE
            and length // PAGE_SIZE > len(file.file.shared)
            and self.kernel.serial.signal_after is None
        ):
            raise Unmodelled("an allocation larger than the files of the simulated host")
        with self.kernel.running():
            change = file.punch_hole if what == FALLOC_FL_PUNCH_HOLE else file.allocate
            err = change(offset // PAGE_SIZE, (offset + length) // PAGE_SIZE)
        if err:
            raise Denied(Errno(-err), "the library allows it")
        file.changed = True
        return 0

    def set_memory_attributes(
        self, fd: Result, offset: int, size: int, attributes: int, flags: int, reserved: int | None = None
    ) -> Result:
        """kvm_gmem_set_attributes()."""
        gmem = self.task.of_kind(fd, Gmem, ENOTTY, NOT_ITS_IOCTL)
        if not self.task.facts.converts:
            raise Denied(ENOTTY, NOT_ITS_IOCTL)
        if not gmem.vm.protected:
            raise Denied(EINVAL, "the memory of the VM can be private")
        if flags or reserved is not None or attributes & ~KVM_MEMORY_ATTRIBUTE_PRIVATE:
            raise Denied(EINVAL, "there is one attribute, and no flag")
        if not size or not aligned(offset, size):
            raise Denied(EINVAL, WHOLE_PAGES)
        if offset + size > gmem.size:
            raise Denied(EINVAL, INSIDE)
        with self.kernel.running():
            err, at = gmem.convert(offset // PAGE_SIZE, (offset + size) // PAGE_SIZE, not attributes)
        if err:
            raise Denied(Errno(-err, at * PAGE_SIZE), "nobody else holds what is made private")
        return 0

    def write(self, fd: Result, length: int, value: int) -> Result:
        file = self.task.file(fd)
        if not isinstance(file, Gmem):
            raise Unmodelled("file operations on what is no guest memory")
        if not self.task.facts.writes:
            raise Denied(EINVAL, NO_SUCH_OPERATION)
        done = self.perform_write(file, file.position, length, value)
        file.position += done
        return done

    def pwrite(self, fd: Result, offset: int, length: int, value: int) -> Result:
        file = self.task.file(fd)
        if not isinstance(file, Gmem):
            raise Unmodelled("file operations on what is no guest memory")
        if signed(offset) < 0:
            raise Denied(EINVAL, NO_SUCH_OPERATION)
        if not self.task.facts.writes:
            raise Denied(ESPIPE, NO_SUCH_OPERATION)
        return self.perform_write(file, offset, length, value)

    def perform_write(self, gmem: Gmem, offset: int, length: int, value: int) -> int:
        """generic_perform_write(): what is written before an error counts, and is the result."""
        done = 0
        while True:
            part = min(PAGE_SIZE - (offset + done) % PAGE_SIZE, length - done)
            try:
                self.write_page(gmem, offset + done, part, value)
            except Denied:
                if done:
                    return done
                raise
            done += part
            if done >= length:
                return done

    def write_page(self, gmem: Gmem, offset: int, length: int, value: int) -> None:
        """kvm_gmem_write_begin(), kvm_gmem_write_end()."""
        if not gmem.flags & self.task.facts.writes:
            raise Denied(ENODEV, "only a file with GUEST_MEMFD_FLAG_WRITE can be written to")
        if offset + length > gmem.size:
            raise Denied(EINVAL, INSIDE)
        if not aligned(offset, length):
            raise Denied(EINVAL, WHOLE_PAGES)
        if not length:
            raise Unmodelled("writing nothing to a file that can be written to")
        if gmem.no_direct_map:
            raise Unmodelled("writing to memory that is not in the direct map")
        place = gmem.at(offset // PAGE_SIZE)
        if not gmem.file.shared[place] and (gmem.flags & GUEST_MEMFD_FLAG_INIT_SHARED or gmem.guest.entries[place].live):
            raise Unmodelled("writing to a page that was made private, or that a guest has as such")
        with self.kernel.running():
            err = gmem.allocate(offset // PAGE_SIZE, offset // PAGE_SIZE + 1)
            folio = gmem.slots[place]
            if err or folio is None:
                raise Denied(Errno(-err), "the library allows it")
            kernel_store(self.kernel.mm, self.kernel.cpu, folio.frame, Content.SHARED)
        cells = self.kernel.cells(folio.frame)
        cells.update(dict.fromkeys(range(PAGE_SIZE), value & 0xFF))

    def seek(self, gmem: Gmem, whence: str, offset: int) -> int:
        """default_llseek()."""
        start = {"cur": gmem.position, "end": gmem.size}.get(whence, 0)
        if whence in ("data", "hole") and not 0 <= offset < gmem.size:
            raise Denied(ENXIO, "data and holes are sought inside the file")
        there = gmem.size if whence == "hole" else start + offset
        if not 0 <= there <= MAX_LFS_FILESIZE:
            raise Denied(EINVAL, "a position is not negative")
        gmem.position = there
        return there

    def cachestat(self, fd: Result, offset: int, length: int) -> Result:
        file = self.task.file(fd)
        first = (offset & (U64 - 1)) // PAGE_SIZE
        last = ((offset + length - 1) & (U64 - 1)) // PAGE_SIZE if length else U64
        if isinstance(file, Placed):
            return file.resident(first, last + 1)
        raise Unmodelled("residency of what is no guest memory")

    def file_operation(self, fd: Result, operation: str, offset: int = 0) -> Result:
        file = self.task.file(fd)
        if not isinstance(file, (Gmem, Secret)):
            raise Unmodelled("file operations on what is no guest memory")
        if isinstance(file, Secret) and operation == "ftruncate":
            return self.truncate(file, signed(offset))
        if operation in ("pread", "pwrite") and signed(offset) < 0:
            raise Denied(EINVAL, NO_SUCH_OPERATION)
        if isinstance(file, Gmem) and self.task.facts.writes and FILE_OPERATIONS[operation].written is not None:
            call, _, how = operation.partition(" ")
            if call == "lseek":
                return self.seek(file, how, signed(offset))
            length = 0 if how else 16
            return self.pwrite(fd, offset, length, 0) if call == "pwrite" else self.write(fd, length, 0)
        facts = FILE_OPERATIONS[operation]
        result = facts.on_gmem(self.task.facts) if isinstance(file, Gmem) else facts.secret
        if isinstance(result, Failure):
            raise Denied(result, NO_SUCH_OPERATION)
        return result

    def truncate(self, file: Secret, size: int) -> int:
        """secretmem_setattr(): a size is given once."""
        if size < 0 or file.size:
            raise Denied(EINVAL, "the size of secret memory is set once")
        file.size = size
        return 0
