# SPDX-License-Identifier: Apache-2.0
"""The user-space interface that the contract is about, as both hosts offer it: one simulated, one a real kernel.

An operation returns a value, and a failure is a value as well: see ``results``.  Descriptors and mappings are handles:
small numbers that both hosts give out in the same order.  A handle that was not given out, as the result of an
operation that failed, stands for a descriptor that is not open.
"""

# mypy: disable-error-code="empty-body"
# A declaration says what an operation means; a part of the host performs it.

from __future__ import annotations

import functools
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar, cast

from guestmem.contract.operations import OPERATIONS
from guestmem.contract.results import Denied, Errno, Other, Result
from guestmem.linux import guest
from guestmem.linux.facts import Facts
from guestmem.model.errors import Verdict

__all__ = [
    "BROKEN",
    "GUEST_GPA",
    "GUEST_SIZE",
    "GUEST_SLOT",
    "NO_MAPPING",
    "PAGE_SIZE",
    "U64",
    "Advice",
    "Exhausted",
    "Host",
    "Missing",
    "Unmodelled",
]

Declared = TypeVar("Declared", bound=Callable[..., Result])

PAGE_SIZE = 4096
U64 = 1 << 64

# The slot and the guest-physical range that create_vcpu() takes for the program of the guest and its page tables.
GUEST_SLOT, GUEST_GPA, GUEST_SIZE = guest.SYSTEM_SLOT, guest.SYSTEM_GPA, guest.SYSTEM_SIZE

BROKEN = "the model breaks a rule"
NO_MAPPING = Other("no mapping")
"""An operation on a mapping that is gone, or outside it: no host performs it."""


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


def operation(declared: Declared) -> Declared:
    """Make a declaration an operation."""
    name = declared.__name__

    @functools.wraps(declared)
    def call(host: Host, *arguments: Any) -> Result:
        return host.perform(name, *arguments)

    return cast(Declared, call)


class Host:
    """The operations.  Sizes, lengths and offsets are bytes; numbers are passed as they are, modulo 2^64.

    A host consists of parts that have each other; the part that has a method of an operation's name performs it.

    Attributes:
        rule: after an operation that failed, why, where the host knows.
        facts: what the machine has that another does not.
    """

    name = "host"
    rule = ""
    facts: Facts

    def consist(self, *parts: object) -> None:
        """Have the operations performed by these.  Raises TypeError unless each has one that performs it."""
        self._performers: dict[str, Callable[..., Result]] = {}
        for name in OPERATIONS:
            performers = [getattr(part, name) for part in parts if hasattr(part, name)]
            if len(performers) != 1:
                raise TypeError(f"{name} is performed by {len(performers)} parts of the host: let one have it")
            self._performers[name] = performers[0]

    def perform(self, name: str, *arguments: Any) -> Result:
        """Perform an operation by name."""
        self.rule = ""
        try:
            return self._performers[name](*arguments)
        except Denied as denied:
            self.rule = denied.rule
            return denied.failure
        except OSError as error:
            return Errno(error.errno or 0)
        except Verdict as verdict:
            return Other(f"{BROKEN}: {verdict}")

    def raising(self, name: str, *arguments: Any) -> Result:
        """The same, but what makes it fail is raised."""
        return self._performers[name](*arguments)

    # ---- descriptors

    @operation
    def create_vm(self, kind: int = 0) -> Result:
        """KVM_CREATE_VM; a descriptor."""

    @operation
    def create_guest_memfd(self, vm: Result, size: int, flags: int) -> Result:
        """KVM_CREATE_GUEST_MEMFD; a descriptor."""

    @operation
    def memfd_create(self, size: int) -> Result:
        """An ordinary memfd of a size; a descriptor."""

    @operation
    def memfd_secret(self, flags: int) -> Result:
        """memfd_secret(2); a descriptor."""

    @operation
    def open_kvm(self) -> Result:
        """open(2) of /dev/kvm; a descriptor."""

    @operation
    def create_guest_memfd_reserved(self, vm: Result, size: int, flags: int, word: int) -> Result:
        """KVM_CREATE_GUEST_MEMFD with a word in ``reserved``; a descriptor."""

    @operation
    def unmapped_argument(self, vm: Result, ioctl: str) -> Result:
        """An ioctl of a VM whose argument is where nothing is mapped; "KVM_CREATE_GUEST_MEMFD" or another of a VM."""

    @operation
    def check_extension(self, fd: Result, capability: int) -> Result:
        """KVM_CHECK_EXTENSION on a VM."""

    @operation
    def dup(self, fd: Result) -> Result:
        """dup(2)."""

    @operation
    def pass_descriptor(self, fd: Result) -> Result:
        """Send a descriptor through a socket (SCM_RIGHTS) and receive it as another."""

    @operation
    def close(self, fd: Result) -> Result:
        """close(2)."""

    @operation
    def in_child(self, operation: str, *arguments: Any) -> Result:
        """fork(2), perform an operation in the child, and wait until the child is gone."""

    @operation
    def in_memlock(self, limit: int, operation: str, *arguments: Any) -> Result:
        """Perform an operation in a child that has no CAP_IPC_LOCK and may lock so many bytes (RLIMIT_MEMLOCK)."""

    @operation
    def in_full_table(self, operation: str, *arguments: Any) -> Result:
        """Perform an operation while no descriptor is free."""

    # ---- the file

    @operation
    def fstat(self, fd: Result) -> Result:
        """fstat(2); a :class:`Stat`."""

    @operation
    def times_changed(self, fd: Result, operation: str, *arguments: Any) -> Result:
        """Perform an operation that may fail, and whether mtime and ctime of a file are others then: 0 or 1 each."""

    @operation
    def descriptor_flags(self, fd: Result) -> Result:
        """fcntl F_GETFD and F_GETFL."""

    @operation
    def same_inode(self, one: Result, other: Result) -> Result:
        """Whether two descriptors are of one file: 0 or 1."""

    @operation
    def fallocate(self, fd: Result, mode: int, offset: int, length: int) -> Result:
        """fallocate(2)."""

    @operation
    def set_memory_attributes(
        self, fd: Result, offset: int, size: int, attributes: int, flags: int, reserved: int | None = None
    ) -> Result:
        """KVM_SET_MEMORY_ATTRIBUTES2 on a file of guest memory; a failure comes with error_offset if the kernel has set it.

        ``reserved``: which of the reserved words is 1.
        """

    @operation
    def vm_memory_attributes(self, vm: Result, gpa: int, size: int, attributes: int, flags: int) -> Result:
        """KVM_SET_MEMORY_ATTRIBUTES: guest memory that is private, or is not."""

    @operation
    def fallocate_signalled(self, fd: Result, length: int) -> Result:
        """Allocate from the start of a file, and let a signal arrive when it has begun; (errno, whether some pages are there)."""

    @operation
    def write(self, fd: Result, length: int, value: int) -> Result:
        """write(2) at the file's position, of bytes of a value; how many."""

    @operation
    def pwrite(self, fd: Result, offset: int, length: int, value: int) -> Result:
        """pwrite(2) of bytes of a value; how many."""

    @operation
    def cachestat(self, fd: Result, offset: int, length: int) -> Result:
        """cachestat(2): how many pages of a range (length 0: to the end) are in the page cache."""

    @operation
    def file_operation(self, fd: Result, operation: str, offset: int = 0) -> Result:
        """An operation of a file that is rarely meant for guest memory: see FILE_OPERATIONS."""

    # ---- mappings

    @operation
    def mmap(self, fd: Result, length: int, prot: int, flags: int, offset: int) -> Result:
        """mmap(2) where the kernel likes; a mapping."""

    @operation
    def munmap(self, mapping: Result, offset: int = 0, length: int | None = None) -> Result:
        """munmap(2) of a part of a mapping, or of all.  What no part is left of is no mapping any more."""

    @operation
    def mremap(self, mapping: Result, length: int) -> Result:
        """mremap(2) of a whole mapping to another length, wherever there is room; 0."""

    @operation
    def mremap_from(self, mapping: Result, old: int, length: int, flags: int, place: Result | None = None) -> Result:
        """mremap(2) of the first ``old`` bytes; with MREMAP_FIXED over another mapping, which has that length.  A new mapping.

        What was given is a mapping afterwards only if ``old`` is 0 or flags have MREMAP_DONTUNMAP.
        """

    @operation
    def mprotect(self, mapping: Result, offset: int, length: int, prot: int) -> Result:
        """mprotect(2)."""

    @operation
    def madvise(self, mapping: Result, offset: int, length: int, advice: int) -> Result:
        """madvise(2)."""

    @operation
    def mlock(self, mapping: Result, offset: int, length: int) -> Result:
        """mlock(2)."""

    @operation
    def mlock2(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        """mlock2(2); MLOCK_ONFAULT 1."""

    @operation
    def sealed(self, mapping: Result, operation: str, *arguments: Any) -> Result:
        """In a child, mseal(2) of a whole mapping, and then an operation."""

    @operation
    def guard(self, mapping: Result, offset: int, length: int, install: int) -> Result:
        """madvise(2), MADV_GUARD_INSTALL or, with 0, MADV_GUARD_REMOVE."""

    @operation
    def munlock(self, mapping: Result, offset: int, length: int) -> Result:
        """munlock(2)."""

    @operation
    def msync(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        """msync(2)."""

    @operation
    def userfaultfd_register(self, mapping: Result, offset: int, length: int, mode: int) -> Result:
        """UFFDIO_REGISTER, and close the userfaultfd; ``mode``: UFFDIO_REGISTER_MODE_MISSING 1, WP 2, MINOR 4."""

    @operation
    def userfaultfd(self, mapping: Result, offset: int, length: int, mode: int) -> Result:
        """The same, and a descriptor of it: with UFFD_FEATURE_SIGBUS, so that a fault that it would tell is a SIGBUS."""

    @operation
    def uffdio_continue(self, fd: Result, mapping: Result, offset: int, length: int) -> Result:
        """UFFDIO_CONTINUE: enter pages that the file has into the page table; 0."""

    @operation
    def uffdio_copy(self, fd: Result, mapping: Result, offset: int, length: int, value: int) -> Result:
        """UFFDIO_COPY: fill holes with a byte; 0."""

    @operation
    def uffdio_zeropage(self, fd: Result, mapping: Result, offset: int, length: int) -> Result:
        """UFFDIO_ZEROPAGE: fill holes with zeros; 0."""

    @operation
    def in_page_table(self, mapping: Result, offset: int) -> Result:
        """Whether the page table has the page at an offset (/proc/self/pagemap): 0 or 1."""

    @operation
    def smaps(self, mapping: Result) -> Result:
        """``(Rss, Pss, Locked)`` of a mapping as /proc/self/smaps counts them, in bytes."""

    @operation
    def mbind(self, mapping: Result, offset: int, length: int, mode: int, nodes: int, flags: int = 0) -> Result:
        """mbind(2); ``nodes`` has a bit for each node.  0."""

    @operation
    def get_mempolicy(self, mapping: Result, offset: int) -> Result:
        """The policy of a byte: ``(mode, nodes)`` (MPOL_F_ADDR)."""

    @operation
    def node(self, mapping: Result, offset: int) -> Result:
        """The NUMA node of the page of a byte, which is faulted in for that (MPOL_F_NODE | MPOL_F_ADDR)."""

    @operation
    def load(self, mapping: Result, offset: int) -> Result:
        """Load a byte; SIGBUS or SIGSEGV with the address."""

    @operation
    def store(self, mapping: Result, offset: int, value: int) -> Result:
        """Store a byte; 0, or SIGBUS or SIGSEGV with the address."""

    # ---- VMs

    @operation
    def set_user_memory_region2(
        self, vm: Result, slot: int, flags: int, gpa: int, size: int, address: Result | str | None, fd: Result, offset: int
    ) -> Result:
        """KVM_SET_USER_MEMORY_REGION2.

        ``address``: a mapping, or None for some anonymous memory of the host's, or ``"0x..."`` for that very address.
        """

    @operation
    def set_user_memory_region(self, vm: Result, slot: int, flags: int, gpa: int, size: int) -> Result:
        """KVM_SET_USER_MEMORY_REGION with anonymous memory."""

    @operation
    def create_vcpu(self, vm: Result) -> Result:
        """KVM_CREATE_VCPU number 0 with a small guest that loads and stores; takes GUEST_SLOT.  A descriptor."""

    @operation
    def run_bare(self, vm: Result) -> Result:
        """KVM_CREATE_VCPU number 0, KVM_RUN of it as it is after power on, and close it; why it came back (KVM_EXIT_*)."""

    @operation
    def guest_load(self, vcpu: Result, gpa: int) -> Result:
        """The guest loads a byte (gpa < 1 GiB, or from 3 to 5 GiB); EFAULT when KVM_RUN exits with KVM_EXIT_MEMORY_FAULT."""

    @operation
    def guest_store(self, vcpu: Result, gpa: int, value: int) -> Result:
        """The guest stores a byte (gpa as for a load); 0, or EFAULT."""

    @operation
    def memory_fault(self, vcpu: Result) -> Result:
        """What the last KVM_RUN said that ended with EFAULT and KVM_EXIT_MEMORY_FAULT: (gpa, size, flags)."""

    @operation
    def pre_fault(self, vcpu: Result, gpa: int, size: int, flags: int) -> Result:
        """KVM_PRE_FAULT_MEMORY; how many bytes are left at the end of the range."""

    @operation
    def pages_4k(self, vm: Result) -> Result:
        """Live stage-2 entries for the pages of the VM's guest memory files (KVM_GET_STATS_FD, pages_4k)."""

    @operation
    def pages_huge(self, vm: Result) -> Result:
        """The same for entries of more than a page (pages_2m, pages_1g)."""

    # ---- live update

    @operation
    def liveupdate_session(self) -> Result:
        """LIVEUPDATE_IOCTL_CREATE_SESSION with a new name; a descriptor.  What the session preserves is not when it closes."""

    @operation
    def preserve(self, session: Result, fd: Result, token: int) -> Result:
        """LIVEUPDATE_SESSION_PRESERVE_FD: have the next kernel get a file; 0."""

    # ---- users through GUP, and copies of the kernel

    @operation
    def process_vm_readv(self, mapping: Result, offset: int, length: int) -> Result:
        """Read through the page tables as another process would; the bytes."""

    @operation
    def read_child(self, mapping: Result, offset: int, length: int) -> Result:
        """fork(2), and process_vm_readv(2) of the child's copy of the mapping; the bytes."""

    @operation
    def peek(self, mapping: Result, offset: int) -> Result:
        """fork(2), and PTRACE_PEEKDATA of the child's copy of the mapping; eight bytes."""

    @operation
    def process_vm_writev(self, mapping: Result, offset: int, data: bytes) -> Result:
        """Write through the page tables as another process would; how many bytes."""

    @operation
    def proc_mem_read(self, mapping: Result, offset: int, length: int) -> Result:
        """pread(2) of /proc/self/mem; the bytes."""

    @operation
    def write_pipe(self, mapping: Result, offset: int, length: int) -> Result:
        """write(2) from the mapping into a pipe (copy_from_user); the bytes."""

    @operation
    def read_pipe(self, mapping: Result, offset: int, data: bytes) -> Result:
        """read(2) of bytes from a pipe into the mapping (copy_to_user); how many."""

    @operation
    def direct_write(self, mapping: Result, offset: int) -> Result:
        """Write one page of the mapping to a disk with O_DIRECT; its first eight bytes as they arrive there."""

    @operation
    def direct_read(self, mapping: Result, offset: int, value: int) -> Result:
        """Read one page full of a byte from a disk with O_DIRECT into the mapping; how many bytes."""

    @operation
    def vmsplice(self, mapping: Result, offset: int, length: int) -> Result:
        """Pin bytes of the mapping in a pipe; a descriptor of it."""

    @operation
    def read_spliced(self, pipe: Result, length: int) -> Result:
        """Read from a pipe of vmsplice(); the bytes."""

    @operation
    def io_uring_register(self, mapping: Result, offset: int, length: int) -> Result:
        """Pin bytes of the mapping as a buffer of an io_uring; a descriptor of it."""

    @operation
    def futex_wake(self, mapping: Result, offset: int) -> Result:
        """FUTEX_WAKE, not private, on a word of the mapping: nobody waits, 0."""

    # ---- limits and concurrency

    @operation
    def allocate_limited(self, limit: int, length: int) -> Result:
        """In a memory cgroup with a limit, a child creates a file and allocates; SIGKILL when it dies of it."""

    @operation
    def charge(self, length: int) -> Result:
        """In a memory cgroup, a child creates a file, allocates, and punches all.

        ``(after that, after this)``: by how many pages the cgroup's counter of page cache is higher than before.
        """

    @operation
    def race_punch(self, vcpu: Result | None, fd: Result, mapping: Result, pages: int) -> Result:
        """Punch the first pages of a file (mapped from its start) again and again while others store and load in them.

        The others are threads of the host with ``mapping`` and, if there is a ``vcpu``, its guest, with the file at gpa 0.
        ``(values seen that nobody stored, pages left after a last punch)``.
        """

    @operation
    def race_slot(self, vm: Result, vcpu: Result, way: str, memory: Result, pages: int) -> Result:
        """Take slot 0 from a running guest and make it again, again and again, while the guest stores and loads there.

        ``way``: "delete": the slot has the file ``memory``, at gpa 0.  "close": the file of the slot is closed before that, and
        the next slot has a new one, with flags ``memory``.  "move": an ordinary slot goes from gpa 0 to the end of the slot and
        back; the mapping ``memory`` is at its userspace_addr.  0, or what nobody should see; the slot is deleted at the end.
        """

    @operation
    def finish(self) -> Result:
        """Close everything; 0."""
