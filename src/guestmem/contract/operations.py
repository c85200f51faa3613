# SPDX-License-Identifier: Apache-2.0
"""The operations of the contract as data: what random programs, rows and both hosts have to know of each.

What they mean is said in ``interface``.
"""

from __future__ import annotations

import select
from typing import NamedTuple

from guestmem.contract.results import (
    EACCES,
    EINVAL,
    ENODEV,
    ENOTDIR,
    ENOTTY,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
    ESPIPE,
    EXDEV,
    Failure,
)
from guestmem.linux.calls import PAGE_SIZE
from guestmem.linux.facts import Facts

__all__ = ["FILE_OPERATIONS", "IN_CHILD", "OPERATIONS", "FileOperation", "Operation"]


class Operation(NamedTuple):
    """An operation.

    Attributes:
        weight: how often a random program has it, among the others; 0: never.
        opens: its result is a handle of this, "descriptor" or "mapping".
        of_vm: it is an ioctl of a VM, which only the process that made the VM may use.
    """

    weight: int = 0
    opens: str = ""
    of_vm: bool = False


OPERATIONS = {
    "create_vm": Operation(2, opens="descriptor"),
    "create_guest_memfd": Operation(7, opens="descriptor", of_vm=True),
    "memfd_create": Operation(1, opens="descriptor"),
    "memfd_secret": Operation(opens="descriptor"),
    "open_kvm": Operation(opens="descriptor"),
    "create_guest_memfd_reserved": Operation(opens="descriptor", of_vm=True),
    "unmapped_argument": Operation(of_vm=True),
    "check_extension": Operation(1, of_vm=True),
    "dup": Operation(2, opens="descriptor"),
    "pass_descriptor": Operation(1, opens="descriptor"),
    "close": Operation(4),
    "in_child": Operation(1),
    "in_memlock": Operation(),
    "in_full_table": Operation(),
    "fstat": Operation(2),
    "times_changed": Operation(),
    "descriptor_flags": Operation(1),
    "same_inode": Operation(1),
    "fallocate": Operation(20),
    "set_memory_attributes": Operation(),
    "vm_memory_attributes": Operation(2, of_vm=True),
    "fallocate_signalled": Operation(),
    "write": Operation(),
    "pwrite": Operation(),
    "cachestat": Operation(8),
    "file_operation": Operation(6),
    "mmap": Operation(9, opens="mapping"),
    "munmap": Operation(3),
    "mremap": Operation(2),
    "mremap_from": Operation(opens="mapping"),
    "userfaultfd_register": Operation(1),
    "userfaultfd": Operation(opens="descriptor"),
    "uffdio_continue": Operation(),
    "uffdio_copy": Operation(),
    "uffdio_zeropage": Operation(),
    "mprotect": Operation(3),
    "madvise": Operation(6),
    "mlock": Operation(1),
    "mlock2": Operation(),
    "sealed": Operation(),
    "guard": Operation(),
    "munlock": Operation(1),
    "msync": Operation(2),
    "in_page_table": Operation(),
    "smaps": Operation(),
    "mbind": Operation(),
    "get_mempolicy": Operation(),
    "node": Operation(),
    "load": Operation(12),
    "store": Operation(12),
    "set_user_memory_region2": Operation(14, of_vm=True),
    "set_user_memory_region": Operation(2, of_vm=True),
    "create_vcpu": Operation(2, opens="descriptor", of_vm=True),
    "run_bare": Operation(of_vm=True),
    "guest_load": Operation(8),
    "guest_store": Operation(8),
    "memory_fault": Operation(1),
    "pre_fault": Operation(1),
    "pages_4k": Operation(4, of_vm=True),
    "process_vm_readv": Operation(4),
    "read_child": Operation(),
    "peek": Operation(),
    "process_vm_writev": Operation(4),
    "proc_mem_read": Operation(2),
    "write_pipe": Operation(3),
    "read_pipe": Operation(3),
    "direct_write": Operation(1),
    "direct_read": Operation(1),
    "vmsplice": Operation(2, opens="descriptor"),
    "read_spliced": Operation(2),
    "io_uring_register": Operation(1, opens="descriptor"),
    "futex_wake": Operation(1),
    "allocate_limited": Operation(),
    "charge": Operation(),
    "race_punch": Operation(),
    "race_slot": Operation(),
    "pages_huge": Operation(of_vm=True),
    "liveupdate_session": Operation(opens="descriptor"),
    "preserve": Operation(),
    "finish": Operation(),
}
"""By name.  A seed's programs depend on the order."""

IN_CHILD = (
    "fallocate",
    "load",
    "store",
    "close",
    "munmap",
    "mremap",
    "mmap",
    "madvise",
    "cachestat",
    "fstat",
    "mprotect",
    "dup",
    "create_guest_memfd",
    "set_user_memory_region2",
    "check_extension",
    "process_vm_readv",
    "write_pipe",
)
"""What random programs perform in a child.  A seed's programs depend on the order."""


class FileOperation(NamedTuple):
    """An operation of any file.

    Attributes:
        what: what it is; "from" and "to" in its name say which way bytes would go.
        gmem, secret: what it gives on a file of guest memory, and of secret memory.
        fuzzed: random programs have it.
        as_data: what it gives on a file of guest memory that the VFS takes for one with data.
        written: what it gives at 0 on a file of one page where other files can be written to, so that all have a position.
    """

    what: str
    gmem: int | Failure
    secret: int | Failure
    fuzzed: bool = True
    as_data: int | Failure | None = None
    written: int | Failure | None = None

    def on_gmem(self, facts: Facts) -> int | Failure:
        """What it gives on a file of guest memory of a machine."""
        if self.written is not None and facts.writes:
            return self.written
        return self.gmem if self.as_data is None or facts.anonymous else self.as_data


def _both(what: str, result: int | Failure, fuzzed: bool = True) -> FileOperation:
    """An operation that gives the same on both."""
    return FileOperation(what, result, result, fuzzed)


FILE_OPERATIONS = {
    "read": _both("read(2)", EINVAL),
    "write": _both("write(2)", EINVAL)._replace(written=ENODEV),
    "readv": _both("readv(2)", EINVAL),
    "read 0": _both("read(2) of no bytes", EINVAL),
    "write 0": _both("write(2) of no bytes", EINVAL)._replace(written=ENODEV),
    "pread": _both("pread(2) at the offset", ESPIPE),
    "pwrite": _both("pwrite(2) at the offset", ESPIPE)._replace(written=ENODEV),
    "lseek set": _both("lseek(2), SEEK_SET", ESPIPE)._replace(written=0),
    "lseek cur": _both("lseek(2), SEEK_CUR", ESPIPE)._replace(written=0),
    "lseek end": _both("lseek(2), SEEK_END", ESPIPE)._replace(written=PAGE_SIZE),
    "lseek data": _both("lseek(2), SEEK_DATA", ESPIPE)._replace(written=0),
    "lseek hole": _both("lseek(2), SEEK_HOLE", ESPIPE)._replace(written=PAGE_SIZE),
    "ftruncate": FileOperation("ftruncate(2) to the offset", EINVAL, 0),  # of secret memory, once
    "fsync": _both("fsync(2)", EINVAL),
    "fdatasync": _both("fdatasync(2)", EINVAL),
    "readahead": _both("readahead(2)", EINVAL)._replace(as_data=0),
    "sync_file_range": _both("sync_file_range(2)", 0),
    "fadvise dontneed": _both("posix_fadvise(2), POSIX_FADV_DONTNEED", 0),
    "flock": _both("flock(2)", 0),
    "lockf": _both("fcntl(2), F_SETLK", 0),
    "fchmod": FileOperation("fchmod(2)", EINVAL, 0),
    "fchown": FileOperation("fchown(2)", EINVAL, 0),
    "futimens": FileOperation("futimens(3)", EINVAL, 0),
    "get seals": _both("fcntl(2), F_GET_SEALS", EINVAL),
    "add seals": _both("fcntl(2), F_ADD_SEALS", EINVAL),
    "fsetxattr": _both("fsetxattr(2) of user.x", EOPNOTSUPP),
    "flistxattr": _both("flistxattr(2)", 0),
    "copy_file_range from": _both("copy_file_range(2) to a memfd", EXDEV),
    "copy_file_range to": _both("copy_file_range(2) from a memfd", EXDEV),
    "splice from": _both("splice(2) into a pipe", EINVAL),
    "splice to": _both("splice(2) out of a pipe", EINVAL),
    "sendfile from": _both("sendfile(2) to a memfd", EINVAL),
    "sendfile from offset": _both("sendfile(2) to a memfd, from an offset", ESPIPE),
    "sendfile to": _both("sendfile(2) from a memfd", EINVAL),
    "poll": _both("poll(2); the events", select.POLLIN | select.POLLOUT),
    "epoll add": _both("epoll_ctl(2), EPOLL_CTL_ADD", EPERM),
    "ioctl": _both("ioctl(2) FIONREAD", ENOTTY)._replace(as_data=0),
    "fchdir": _both("fchdir(2)", ENOTDIR),
    "execveat": _both("execveat(2) with AT_EMPTY_PATH", EACCES, fuzzed=False),
    "reopen": _both("open(2) of /proc/self/fd/N for reading and writing", ENXIO),
    "linkat": _both("linkat(2) from /proc/self/fd/N", EXDEV, fuzzed=False),
}
"""What file_operation() performs, by name."""
