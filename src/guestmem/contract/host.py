# SPDX-License-Identifier: Apache-2.0
"""The user-space interface that the contract is about, as both hosts offer it: one simulated, one a real kernel.

An operation returns a value, and a failure is a value as well: the name of the errno (``"EINVAL"``), or the signal with
the place it is about (``"SIGBUS +0x1000"``, relative to the mapping).  So two hosts are compared by ``==``.

Descriptors and mappings are handles: small numbers that both hosts give out in the same order.  A handle that is no
number, as the result of an operation that failed, stands for a descriptor that is not open.
"""

from __future__ import annotations

import errno
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from guestmem.model.errors import Verdict

__all__ = [
    "BROKEN",
    "FILE_OPERATIONS",
    "GUEST_GPA",
    "GUEST_SIZE",
    "GUEST_SLOT",
    "NO_MAPPING",
    "PAGE_SIZE",
    "Advice",
    "Denied",
    "Exhausted",
    "Host",
    "Missing",
    "Result",
    "Signal",
    "Spans",
    "Stat",
    "Unmodelled",
    "brief",
    "errno_name",
    "failed",
    "page_end",
]

PAGE_SIZE = 4096
U64 = 1 << 64

# The slot and the guest-physical range that create_vcpu() takes for the program of the guest and its page tables.
GUEST_SLOT = 32000
GUEST_GPA = 1 << 35
GUEST_SIZE = 16 * PAGE_SIZE

BROKEN = "the model breaks a rule"
NO_MAPPING = "no mapping"  # an operation on a mapping that is gone, or outside it: no host performs it


# What file_operation() performs: name -> what it is.  "from" and "to" say which way bytes would go.
FILE_OPERATIONS = {
    "read": "read(2)",
    "write": "write(2)",
    "readv": "readv(2)",
    "read 0": "read(2) of no bytes",
    "write 0": "write(2) of no bytes",
    "pread": "pread(2) at the offset",
    "pwrite": "pwrite(2) at the offset",
    "lseek set": "lseek(2), SEEK_SET",
    "lseek cur": "lseek(2), SEEK_CUR",
    "lseek end": "lseek(2), SEEK_END",
    "lseek data": "lseek(2), SEEK_DATA",
    "lseek hole": "lseek(2), SEEK_HOLE",
    "ftruncate": "ftruncate(2) to the offset",
    "fsync": "fsync(2)",
    "fdatasync": "fdatasync(2)",
    "readahead": "readahead(2)",
    "sync_file_range": "sync_file_range(2)",
    "fadvise dontneed": "posix_fadvise(2), POSIX_FADV_DONTNEED",
    "flock": "flock(2)",
    "lockf": "fcntl(2), F_SETLK",
    "fchmod": "fchmod(2)",
    "fchown": "fchown(2)",
    "futimens": "futimens(3)",
    "get seals": "fcntl(2), F_GET_SEALS",
    "add seals": "fcntl(2), F_ADD_SEALS",
    "fsetxattr": "fsetxattr(2) of user.x",
    "flistxattr": "flistxattr(2)",
    "copy_file_range from": "copy_file_range(2) to a memfd",
    "copy_file_range to": "copy_file_range(2) from a memfd",
    "splice from": "splice(2) into a pipe",
    "splice to": "splice(2) out of a pipe",
    "sendfile from": "sendfile(2) to a memfd",
    "sendfile from offset": "sendfile(2) to a memfd, from an offset",
    "sendfile to": "sendfile(2) from a memfd",
    "poll": "poll(2); the events",
    "epoll add": "epoll_ctl(2), EPOLL_CTL_ADD",
    "ioctl": "ioctl(2) FIONREAD",
    "fchdir": "fchdir(2)",
    "execveat": "execveat(2) with AT_EMPTY_PATH",
    "reopen": "open(2) of /proc/self/fd/N for reading and writing",
    "linkat": "linkat(2) from /proc/self/fd/N",
}


class Stat(NamedTuple):
    """What fstat says that does not depend on the machine: bytes, st_mode, bytes per block, blocks."""

    size: int
    mode: int
    blksize: int
    blocks: int


Result = int | str | bytes | tuple[int, ...]


def page_end(offset: int) -> int:
    """The end of the page that an offset is in, or at the end of."""
    return -(-offset // PAGE_SIZE) * PAGE_SIZE


def brief(result: Result) -> str:
    """A result as a message shows it: long bytes only in part."""
    if isinstance(result, bytes) and len(result) > 24:
        return f"{result[:16]!r}... ({len(result)} bytes)"
    return repr(result)


def failed(result: Result) -> bool:
    """Whether an operation ended in an error or a signal."""
    return isinstance(result, str)


class Denied(OSError):
    """An operation failed; ``rule`` says in a sentence why."""

    def __init__(self, code: int, rule: str) -> None:
        super().__init__(code, rule)
        self.rule = rule


class Spans:
    """Ranges of a mapping in order, each with a value; between them nothing is mapped."""

    def __init__(self, length: int, value: int) -> None:
        self.parts = [(0, length, value)]

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return iter(self.parts)

    def copy(self) -> Spans:
        """The same, on its own."""
        other = Spans(0, 0)
        other.parts = list(self.parts)
        return other

    def end(self) -> int:
        """Where the last one ends."""
        return self.parts[-1][1]

    def cover(self, start: int, end: int) -> bool:
        """Whether all of a range is mapped; of an empty one, whether it is inside."""
        mapped = sum(max(0, min(last, end) - max(first, start)) for first, last, _ in self.parts)
        return mapped == end - start and 0 <= start <= end <= self.end()

    def at(self, offset: int) -> int:
        """The value at an offset."""
        return next(value for start, end, value in self.parts if start <= offset < end)

    def remove(self, start: int, end: int) -> None:
        """Unmap a range."""
        if start < end:
            before = [(first, min(last, start), value) for first, last, value in self.parts if first < start]
            after = [(max(first, end), last, value) for first, last, value in self.parts if last > end]
            self.parts = [*before, *after]

    def set(self, start: int, end: int, value: int) -> None:
        """Give a range a value."""
        if start < end:
            self.remove(start, end)
            self.parts = sorted([*self.parts, (start, end, value)])


class Signal(Exception):
    """An access was answered by a signal; the text is the result."""


class Missing(Exception):
    """The machine lacks something that an operation needs; the text says what."""


class Unmodelled(Exception):
    """The simulated host does not know what a kernel would do; programs for both hosts leave the operation out."""


class Exhausted(Unmodelled):
    """The simulated host is too small to go on; what it did of the operation stays."""


class Advice(IntEnum):
    """madvise(2), include/uapi/asm-generic/mman-common.h."""

    NORMAL = 0
    DONTNEED = 4
    FREE = 8
    REMOVE = 9
    DONTFORK = 10
    HUGEPAGE = 14
    WIPEONFORK = 18
    COLD = 20
    PAGEOUT = 21
    POPULATE_READ = 22
    POPULATE_WRITE = 23
    COLLAPSE = 25


def errno_name(code: int) -> str:
    """The kernel's name of an errno."""
    return "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode[code]


def _as_result(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def operation(self: Host, *arguments: Any) -> Any:
        self.rule = ""
        try:
            return function(self, *arguments)
        except OSError as error:
            self.rule = getattr(error, "rule", "")
            return errno_name(error.errno or 0)
        except Signal as signal:
            return str(signal)
        except Verdict as verdict:
            return f"{BROKEN}: {verdict}"

    return operation


class Host(ABC):
    """The operations.  Sizes, lengths and offsets are bytes; numbers are passed as they are, modulo 2^64.

    Attributes:
        rule: after an operation, why it failed, where the host knows.
    """

    name = "host"
    rule = ""

    def __init_subclass__(cls) -> None:
        for name in Host.__abstractmethods__:
            if name in cls.__dict__:
                setattr(cls, name, _as_result(cls.__dict__[name]))

    # ---- descriptors

    @abstractmethod
    def create_vm(self, kind: int = 0) -> Result:
        """KVM_CREATE_VM; a descriptor."""

    @abstractmethod
    def create_guest_memfd(self, vm: Result, size: int, flags: int) -> Result:
        """KVM_CREATE_GUEST_MEMFD; a descriptor."""

    @abstractmethod
    def memfd_create(self, size: int) -> Result:
        """An ordinary memfd of a size; a descriptor."""

    @abstractmethod
    def memfd_secret(self, flags: int) -> Result:
        """memfd_secret(2); a descriptor."""

    @abstractmethod
    def check_extension(self, fd: Result, capability: int) -> Result:
        """KVM_CHECK_EXTENSION on a VM."""

    @abstractmethod
    def guest_physical_bits(self, vm: Result) -> Result:
        """How many bits a guest-physical address may have."""

    @abstractmethod
    def dup(self, fd: Result) -> Result:
        """dup(2)."""

    @abstractmethod
    def pass_descriptor(self, fd: Result) -> Result:
        """Send a descriptor through a socket (SCM_RIGHTS) and receive it as another."""

    @abstractmethod
    def close(self, fd: Result) -> Result:
        """close(2)."""

    @abstractmethod
    def in_child(self, operation: str, *arguments: Any) -> Result:
        """fork(2), perform an operation in the child, and wait until the child is gone."""

    # ---- the file

    @abstractmethod
    def fstat(self, fd: Result) -> Result:
        """fstat(2); a :class:`Stat`."""

    @abstractmethod
    def descriptor_flags(self, fd: Result) -> Result:
        """fcntl F_GETFD and F_GETFL."""

    @abstractmethod
    def same_inode(self, one: Result, other: Result) -> Result:
        """Whether two descriptors are of one file: 0 or 1."""

    @abstractmethod
    def fallocate(self, fd: Result, mode: int, offset: int, length: int) -> Result:
        """fallocate(2)."""

    @abstractmethod
    def set_memory_attributes(self, fd: Result, offset: int, size: int, attributes: int, flags: int) -> Result:
        """KVM_SET_MEMORY_ATTRIBUTES2 on a file of guest memory; "EAGAIN +0x..." with the offset that stood in the way."""

    @abstractmethod
    def fallocate_signalled(self, fd: Result, length: int) -> Result:
        """Allocate from the start of a file, and let a signal arrive when it has begun; (errno, some pages are there)."""

    @abstractmethod
    def cachestat(self, fd: Result, offset: int, length: int) -> Result:
        """cachestat(2): how many pages of a range (length 0: to the end) are in the page cache."""

    @abstractmethod
    def file_operation(self, fd: Result, operation: str, offset: int = 0) -> Result:
        """An operation of a file that is rarely meant for guest memory: see FILE_OPERATIONS."""

    # ---- mappings

    @abstractmethod
    def mmap(self, fd: Result, length: int, prot: int, flags: int, offset: int) -> Result:
        """mmap(2) where the kernel likes; a mapping."""

    @abstractmethod
    def munmap(self, mapping: Result, offset: int = 0, length: int | None = None) -> Result:
        """munmap(2) of a part of a mapping, or of all.  What no part is left of is no mapping any more."""

    @abstractmethod
    def mremap(self, mapping: Result, length: int) -> Result:
        """mremap(2) of a whole mapping to another length, wherever there is room; 0."""

    @abstractmethod
    def mprotect(self, mapping: Result, offset: int, length: int, prot: int) -> Result:
        """mprotect(2)."""

    @abstractmethod
    def madvise(self, mapping: Result, offset: int, length: int, advice: int) -> Result:
        """madvise(2)."""

    @abstractmethod
    def mlock(self, mapping: Result, offset: int, length: int) -> Result:
        """mlock(2)."""

    @abstractmethod
    def munlock(self, mapping: Result, offset: int, length: int) -> Result:
        """munlock(2)."""

    @abstractmethod
    def msync(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        """msync(2)."""

    @abstractmethod
    def userfaultfd_register(self, mapping: Result, offset: int, length: int, mode: int) -> Result:
        """UFFDIO_REGISTER; ``mode``: UFFDIO_REGISTER_MODE_MISSING 1, WP 2, MINOR 4."""

    @abstractmethod
    def load(self, mapping: Result, offset: int) -> Result:
        """Load a byte; SIGBUS or SIGSEGV with the address."""

    @abstractmethod
    def store(self, mapping: Result, offset: int, value: int) -> Result:
        """Store a byte; 0, or SIGBUS or SIGSEGV with the address."""

    # ---- VMs

    @abstractmethod
    def set_user_memory_region2(
        self, vm: Result, slot: int, flags: int, gpa: int, size: int, address: Result | None, fd: Result, offset: int
    ) -> Result:
        """KVM_SET_USER_MEMORY_REGION2.

        ``address``: a mapping, or None for some anonymous memory of the host's, or ``"0x..."`` for that very address.
        """

    @abstractmethod
    def set_user_memory_region(self, vm: Result, slot: int, flags: int, gpa: int, size: int) -> Result:
        """KVM_SET_USER_MEMORY_REGION with anonymous memory."""

    @abstractmethod
    def create_vcpu(self, vm: Result) -> Result:
        """KVM_CREATE_VCPU number 0 with a small guest that loads and stores; takes GUEST_SLOT.  A descriptor."""

    @abstractmethod
    def guest_load(self, vcpu: Result, gpa: int) -> Result:
        """The guest loads a byte (gpa < 1 GiB); "EFAULT" when KVM_RUN exits with KVM_EXIT_MEMORY_FAULT."""

    @abstractmethod
    def guest_store(self, vcpu: Result, gpa: int, value: int) -> Result:
        """The guest stores a byte (gpa < 1 GiB); 0, or "EFAULT"."""

    @abstractmethod
    def pages_4k(self, vm: Result) -> Result:
        """Live stage-2 entries for the pages of the VM's guest memory files (KVM_GET_STATS_FD, pages_4k)."""

    # ---- users through GUP, and copies of the kernel

    @abstractmethod
    def process_vm_readv(self, mapping: Result, offset: int, length: int) -> Result:
        """Read through the page tables as another process would; the bytes."""

    @abstractmethod
    def process_vm_writev(self, mapping: Result, offset: int, data: bytes) -> Result:
        """Write through the page tables as another process would; how many bytes."""

    @abstractmethod
    def proc_mem_read(self, mapping: Result, offset: int, length: int) -> Result:
        """pread(2) of /proc/self/mem; the bytes."""

    @abstractmethod
    def write_pipe(self, mapping: Result, offset: int, length: int) -> Result:
        """write(2) from the mapping into a pipe (copy_from_user); the bytes."""

    @abstractmethod
    def read_pipe(self, mapping: Result, offset: int, data: bytes) -> Result:
        """read(2) of bytes from a pipe into the mapping (copy_to_user); how many."""

    @abstractmethod
    def direct_write(self, mapping: Result, offset: int) -> Result:
        """Write one page of the mapping to a disk with O_DIRECT; its first eight bytes as they arrive there."""

    @abstractmethod
    def direct_read(self, mapping: Result, offset: int, value: int) -> Result:
        """Read one page full of a byte from a disk with O_DIRECT into the mapping; how many bytes."""

    @abstractmethod
    def vmsplice(self, mapping: Result, offset: int, length: int) -> Result:
        """Pin bytes of the mapping in a pipe; a descriptor of it."""

    @abstractmethod
    def read_spliced(self, pipe: Result, length: int) -> Result:
        """Read from a pipe of vmsplice(); the bytes."""

    @abstractmethod
    def io_uring_register(self, mapping: Result, offset: int, length: int) -> Result:
        """Pin bytes of the mapping as a buffer of an io_uring; a descriptor of it."""

    @abstractmethod
    def futex_wake(self, mapping: Result, offset: int) -> Result:
        """FUTEX_WAKE, not private, on a word of the mapping: nobody waits, 0."""

    # ---- limits and concurrency

    @abstractmethod
    def allocate_limited(self, limit: int, length: int) -> Result:
        """In a memory cgroup with a limit, a child creates a file and allocates; "SIGKILL" when it dies of it."""

    @abstractmethod
    def race_punch(self, vcpu: Result, fd: Result, mapping: Result, pages: int) -> Result:
        """Punch the first pages of a file (mapped from its start) again and again while others store and load in them.

        The others are threads of the host with ``mapping`` and, if there is a ``vcpu``, its guest, with the file at gpa 0.
        ``(values seen that nobody stored, pages left after a last punch)``.
        """

    @abstractmethod
    def finish(self) -> Result:
        """Close everything; 0."""
