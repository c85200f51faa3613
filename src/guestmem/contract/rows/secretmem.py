# SPDX-License-Identifier: Apache-2.0
"""memfd_secret(2): memory outside the kernel's direct map.

Every page splits a block of the direct map of the real kernel for good, so only test_secret_memory touches any: three,
and test_secret_direct_io one where direct I/O is buffered in its place.
"""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Advice, Host
from guestmem.contract.operations import FILE_OPERATIONS
from guestmem.contract.results import EAGAIN, EBUSY, EFAULT, EINVAL, EIO, EMFILE, ENOMEM, EOPNOTSUPP, EPERM, Result
from guestmem.contract.rows import OBSERVED, PRIVATE, RW, SHARED, expect, ok, row, sigbus, table, vm

P = PAGE_SIZE
SOURCE = f"mm/secretmem.c; {citations.SECRETMEM}; {OBSERVED}"
READ, EXEC = 1, 4


@table("memfd_secret has no flag but O_CLOEXEC", SOURCE, {"none": (0, True), "cloexec": (0o2000000, True), "1": (1, False)})
def test_memfd_secret_flags(host: Host, flags: int, legal: bool) -> None:
    made = host.memfd_secret(flags)
    if legal:
        expect(host.fstat(ok(made)), (0, 0o100600, P, 0))
    else:
        expect(made, EINVAL)


@row("a new file needs a free descriptor", f"{SOURCE}; fs/file.c, get_unused_fd_flags()")
def test_no_descriptor_free(host: Host) -> None:
    ok(host.memfd_secret(0))
    expect(host.in_full_table("memfd_secret", 0), EMFILE)
    expect(host.in_full_table("memfd_secret", 1), EINVAL)


REFUSED = (
    "read",
    "write",
    "fsync",
    "pread",
    "pwrite",
    "lseek set",
    "splice from",
    "sendfile to",
    "copy_file_range from",
    "add seals",
    "reopen",
)


@table("secret memory is no data of a file", SOURCE, {name.replace(" ", "_"): name for name in REFUSED})
def test_secret_file_operation_refused(host: Host, operation: str) -> None:
    expect(host.file_operation(ok(host.memfd_secret(0)), operation), FILE_OPERATIONS[operation].secret)


@table("its owner and mode can be changed, unlike those of guest memory", SOURCE, {"fchmod": "fchmod", "fchown": "fchown"})
def test_secret_attributes(host: Host, operation: str) -> None:
    expect(host.file_operation(ok(host.memfd_secret(0)), operation), 0)


@row("the size of secret memory is set once", SOURCE)
def test_secret_size(host: Host) -> None:
    fd = ok(host.memfd_secret(0))
    expect(host.file_operation(fd, "ftruncate", (1 << 64) - P), EINVAL)
    expect(host.file_operation(fd, "ftruncate", 0), 0)
    expect(host.file_operation(fd, "ftruncate", 2 * P), 0)
    expect(host.fstat(fd), (2 * P, 0o100600, P, 0))
    for size in (0, P, 2 * P, 3 * P):
        expect(host.file_operation(fd, "ftruncate", size), EINVAL)


@table("secret memory has no holes", SOURCE, {"keep": 1, "punch": 3, "0": 0})
def test_secret_fallocate(host: Host, mode: int) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", P))
    expect(host.fallocate(fd, mode, 0, P), EOPNOTSUPP)


@table(
    "secret memory is mapped shared and not executable",
    SOURCE,
    {
        "private": (RW, PRIVATE, EINVAL),
        "execute": (READ | EXEC, SHARED, EPERM),
        "sync": (RW, 0x80003, EOPNOTSUPP),
    },
)
def test_secret_mmap_refused(host: Host, prot: int, flags: int, expected: Result) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", P))
    expect(host.mmap(fd, P, prot, flags, 0), expected)


@row("past its end there is a SIGBUS", SOURCE)
def test_secret_fault_past_end(host: Host) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", P))
    mapping = ok(host.mmap(fd, 2 * P, RW, SHARED, 0))
    expect(host.load(mapping, P + 3), sigbus(0x1003))


@row("nothing is populated ahead", SOURCE)
def test_secret_populate(host: Host) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", P))
    mapping = ok(host.mmap(fd, P, RW, SHARED | 0x8000, 0))
    expect(host.madvise(mapping, 0, P, Advice.POPULATE_WRITE), EINVAL)
    expect(host.mlock(mapping, 0, P), ENOMEM)
    expect(host.cachestat(fd, 0, 0), 0)


@table(
    "advice that would unmap locked memory is refused, where the mapping is locked; holes there are never",
    SOURCE,
    {"dontneed": (4, 0), "remove": (9, EOPNOTSUPP), "cold": (20, 0), "pageout": (21, 0), "free": (8, EINVAL)},
)
def test_secret_madvise(host: Host, advice: int, unlocked: Result) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", P))
    expect(host.madvise(ok(host.mmap(fd, P, RW, SHARED, 0)), 0, P, advice), EINVAL if host.facts.secret_locked else unlocked)


@row("secret memory is not invalidated where the mapping is locked", SOURCE)
def test_secret_msync(host: Host) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", P))
    expect(host.msync(ok(host.mmap(fd, P, RW, SHARED, 0)), 0, P, 2), EBUSY if host.facts.secret_locked else 0)


@row("secret memory is no guest memory", "virt/kvm/guest_memfd.c, kvm_gmem_bind()")
def test_secret_bind(host: Host) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", P))
    expect(host.set_user_memory_region2(vm(host), 0, 4, 0, P, None, fd, 0), EINVAL)


@row("secret memory is there for its owner and for copies by address; what takes pages by GUP is refused", SOURCE)
def test_secret_memory(host: Host) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", 3 * P))
    mapping = ok(host.mmap(fd, 3 * P, RW, SHARED, 0))
    results: list[Result] = [host.load(mapping, page * P) for page in range(3)]
    expect(results, [0, 0, 0])
    expect(host.store(mapping, P, 7), 0)
    expect(host.cachestat(fd, 0, 0), 3)
    expect(host.in_child("load", mapping, P), 7)
    expect(host.write_pipe(mapping, P, 2), b"\x07\0")
    expect(host.process_vm_readv(mapping, 0, 4), EFAULT)
    expect(host.process_vm_writev(mapping, 0, b"abcd"), EFAULT)
    expect(host.proc_mem_read(mapping, 0, 4), EIO)
    expect(host.vmsplice(mapping, 0, 4), EFAULT)
    expect(host.io_uring_register(mapping, 0, P), EFAULT)
    expect(host.futex_wake(mapping, 0), EFAULT)
    expect(host.load(mapping, P), 7)


@row("direct I/O does not get at secret memory", SOURCE)
def test_secret_direct_io(host: Host) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", P))
    mapping = ok(host.mmap(fd, P, RW, SHARED, 0))
    expect(host.direct_write(mapping, 0), EFAULT)
    expect(host.direct_read(mapping, 0, 1), EFAULT)
    expect(host.cachestat(fd, 0, 0), 0)


@row("a page that nobody has touched is refused to vmsplice, and not made", f"{SOURCE}; mm/gup.c, check_vma_flags()")
def test_secret_vmsplice_fresh(host: Host) -> None:
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", P))
    mapping = ok(host.mmap(fd, P, RW, SHARED, 0))
    expect(host.vmsplice(mapping, 0, P), EFAULT)
    expect(host.cachestat(fd, 0, 0), 0)


def untouched(host: Host, pages: int) -> tuple[Result, Result]:
    """A file of secret memory and a mapping of it, of whose pages none is there."""
    fd = ok(host.memfd_secret(0))
    ok(host.file_operation(fd, "ftruncate", pages * P))
    return fd, ok(host.mmap(fd, pages * P, RW, SHARED, 0))


@table(
    "where a mapping of secret memory is locked, who may lock less gets none",
    f"{SOURCE}, secretmem_mmap(); mm/mmap.c, mlock_future_ok()",
    {"none": (0, P), "a page less": (2 * P, 3 * P), "a part of a page": (2 * P + 1, 2 * P + 1), "much less": (P, 16 * P)},
)
def test_secret_memlock(host: Host, limit: int, length: int) -> None:
    fd, _ = untouched(host, 2)
    mapped = host.in_memlock(limit, "mmap", fd, length, RW, SHARED, 0)
    if host.facts.secret_locked:
        expect(mapped, EAGAIN)
    else:
        ok(mapped)
    ok(host.in_memlock((length + P - 1) & -P, "mmap", fd, length, RW, SHARED, 0))
    expect(host.in_memlock(limit, "mmap", fd, length, RW, PRIVATE, 0), EINVAL)
    expect(host.cachestat(fd, 0, 0), 0)


@row("another process gets at no page of secret memory, and makes none", f"{SOURCE}; mm/process_vm_access.c; mm/gup.c")
def test_secret_another_process(host: Host) -> None:
    fd, mapping = untouched(host, 2)
    expect(host.read_child(mapping, 0, 4), EFAULT)
    expect(host.read_child(mapping, P - 2, 4), EFAULT)
    expect(host.cachestat(fd, 0, 0), 0)


@row("a tracer gets at no page of secret memory, and makes none", f"{SOURCE}; kernel/ptrace.c, generic_ptrace_peekdata()")
def test_secret_tracer(host: Host) -> None:
    fd, mapping = untouched(host, 2)
    expect(host.peek(mapping, 0), EIO)
    expect(host.peek(mapping, P + 8), EIO)
    expect(host.cachestat(fd, 0, 0), 0)
