# SPDX-License-Identifier: Apache-2.0
"""mmap(2) of guest memory, faults and their signals, and what can be done to a mapping."""

from __future__ import annotations

from collections.abc import Callable

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Advice, Host, Missing
from guestmem.contract.results import (
    EACCES,
    EBADF,
    EBUSY,
    EFAULT,
    EINVAL,
    ENODEV,
    ENOMEM,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    Errno,
    Result,
)
from guestmem.contract.rows import (
    GMEM,
    INIT_SHARED,
    KEEP,
    MM,
    MMAP,
    OBSERVED,
    PRIVATE,
    PUNCH,
    RW,
    SELFTEST,
    SHARED,
    expect,
    gmem,
    ok,
    row,
    shared,
    sigbus,
    sigsegv,
    table,
)

P = PAGE_SIZE
NONE, READ, WRITE, EXEC = 0, 1, 2, 4
VALIDATE, LOCKED, NORESERVE, POPULATE, HUGETLB, SYNC = 0x03, 0x2000, 0x4000, 0x8000, 0x40000, 0x80000
BOTH = MMAP | INIT_SHARED


@table(
    "only a file with GUEST_MEMFD_FLAG_MMAP can be mapped",
    f"{SELFTEST}, test_mmap_not_supported(); {GMEM}, kvm_gmem_mmap(); {citations.MMAP}",
    {
        f"{name} {how}": (flags, sharing)
        for name, flags in (("none", 0), ("INIT_SHARED", INIT_SHARED))
        for how, sharing in (("shared", SHARED), ("private", PRIVATE))
    },
)
def test_mmap_not_supported(host: Host, flags: int, sharing: int) -> None:
    _, fd = gmem(host, 1, flags)
    expect(host.mmap(fd, P, RW, sharing, 0), ENODEV)


@table(
    "files of guest memory are mapped shared",
    f"{SELFTEST}, test_mmap_cow(); {GMEM}, kvm_gmem_mmap()",
    {
        f"{name} {how}": (flags, prot)
        for name, flags in (("MMAP", MMAP), ("MMAP|INIT_SHARED", BOTH))
        for how, prot in (("read", READ), ("read write", RW))
    },
)
def test_mmap_cow(host: Host, flags: int, prot: int) -> None:
    _, fd = gmem(host, 1, flags)
    expect(host.mmap(fd, P, prot, PRIVATE, 0), EINVAL)


@table(
    "a mapping may have any protection but execution, and begin and end past the end of the file",
    f"{SELFTEST}, test_mmap_supported(); {OBSERVED}",
    {
        "read": (2 * P, READ, SHARED, 0),
        "write": (2 * P, WRITE, SHARED, 0),
        "read write": (2 * P, RW, SHARED, 0),
        "none": (2 * P, NONE, SHARED, 0),
        "validate": (2 * P, RW, VALIDATE, 0),
        "noreserve": (2 * P, RW, SHARED | NORESERVE, 0),
        "one byte": (1, RW, SHARED, 0),
        "beyond the end": (8 * P, RW, SHARED, 0),
        "after the end": (P, RW, SHARED, 16 * P),
        "far after the end": (P, RW, SHARED, 1 << 62),
    },
)
def test_mmap_supported(host: Host, length: int, prot: int, flags: int, offset: int) -> None:
    _, fd = gmem(host, 2, BOTH)
    ok(host.mmap(fd, length, prot, flags, offset))
    expect(host.cachestat(fd, 0, 0), 0)


@table(
    "mmap checks its arguments before it asks the file",
    MM,
    {
        "length 0": (0, RW, SHARED, 0, EINVAL),
        **{f"offset 2^{bit}": (P, RW, SHARED, 1 << bit, EINVAL) for bit in range(12)},
        "negative offset": (P, RW, SHARED, -P, EOVERFLOW),
        "offset 2^63-page": (P, RW, SHARED, (1 << 63) - P, EOVERFLOW),
        "length 2^64-1": (P * ((1 << 52) - 1) + 1, RW, SHARED, 0, ENOMEM),
        "length 2^63": (1 << 63, RW, SHARED, 0, ENOMEM),
        "no type": (P, RW, 0, 0, EINVAL),
        "hugetlb": (P, RW, SHARED | HUGETLB, 0, EINVAL),
        "sync": (P, RW, VALIDATE | SYNC, 0, EOPNOTSUPP),
        "execute": (P, READ | EXEC, SHARED, 0, EPERM),
        "execute private": (P, READ | EXEC, PRIVATE, 0, EPERM),
    },
)
def test_mmap_arguments(host: Host, length: int, prot: int, flags: int, offset: int, expected: Result) -> None:
    _, fd = gmem(host, 2, BOTH)
    expect(host.mmap(fd, length, prot, flags, offset), expected)


@row("a mapping is smaller than the part of the address space that the kernel places mappings in", MM)
def test_mmap_too_large(host: Host) -> None:
    if not host.facts.roomy:
        raise Missing("the whole address space: ulimit -v unlimited")
    _, fd = gmem(host, 2, BOTH)
    expect(host.mmap(fd, 1 << host.facts.room_bits, RW, SHARED, 0), ENOMEM)


@row("only an open file is mapped", MM)
def test_mmap_closed(host: Host) -> None:
    _, fd = gmem(host, 1, BOTH)
    ok(host.close(fd))
    expect(host.mmap(fd, P, RW, SHARED, 0), EBADF)


@table(
    "populating allocates what the mapping can have, and is silent about the rest",
    OBSERVED,
    {
        "populate": (4 * P, SHARED | POPULATE, 4),
        "locked": (4 * P, SHARED | LOCKED, 4),
        "populate beyond the end": (8 * P, SHARED | POPULATE, 4),
    },
)
def test_mmap_populate(host: Host, length: int, flags: int, pages: int) -> None:
    _, fd = gmem(host, 4, BOTH)
    ok(host.mmap(fd, length, RW, flags, 0))
    expect(host.cachestat(fd, 0, 0), pages)


@row("populating private memory does nothing", OBSERVED)
def test_mmap_populate_private(host: Host) -> None:
    _, fd = gmem(host, 2, MMAP)
    ok(host.mmap(fd, 2 * P, RW, SHARED | POPULATE, 0))
    expect(host.cachestat(fd, 0, 0), 0)


# ---- faults


@row("shared memory is loaded and stored like any other", f"{SELFTEST}, test_mmap_supported()")
def test_fault(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    expect(host.load(mapping, 0), 0)
    expect(host.store(mapping, 2 * P - 1, 0xAA), 0)
    expect(host.load(mapping, 2 * P - 1), 0xAA)
    expect(host.cachestat(fd, 0, 0), 2)


@table(
    "a fault past the end of the file is a SIGBUS at the very byte",
    f"{SELFTEST}, test_fault_overflow(); {GMEM}, kvm_gmem_fault_user_mapping()",
    {"first byte": 2 * P, "inside": 2 * P + 0x123, "far": 7 * P + 1, "last byte": 8 * P - 1},
)
def test_fault_overflow(host: Host, offset: int) -> None:
    _, fd = gmem(host, 2, BOTH)
    mapping = ok(host.mmap(fd, 8 * P, RW, SHARED, 0))
    expect(host.load(mapping, offset), sigbus(offset))
    expect(host.store(mapping, offset, 1), sigbus(offset))
    expect(host.store(mapping, 2 * P - 1, 1), 0)
    expect(host.cachestat(fd, 0, 0), 1)


@row("a mapping that starts past the end has no memory", GMEM)
def test_fault_after_end(host: Host) -> None:
    _, fd = gmem(host, 2, BOTH)
    mapping = ok(host.mmap(fd, P, RW, SHARED, 2 * P))
    expect(host.load(mapping, 5), sigbus(5))


@row(
    "memory that is not shared with the host is a SIGBUS, allocated or not",
    f"{SELFTEST}, test_fault_private(); {citations.INIT_SHARED}",
)
def test_fault_private(host: Host) -> None:
    _, fd = gmem(host, 2, MMAP)
    mapping = ok(host.mmap(fd, 2 * P, RW, SHARED, 0))
    expect(host.load(mapping, 1), sigbus(1))
    expect(host.store(mapping, P, 1), sigbus(0x1000))
    ok(host.fallocate(fd, KEEP, 0, 2 * P))
    expect(host.load(mapping, 1), sigbus(1))
    expect(host.cachestat(fd, 0, 0), 2)


@table(
    "a mapping's protection is kept, by a SIGSEGV",
    "mm/memory.c",
    {
        "load none": (NONE, "load", sigsegv(7)),
        "store none": (NONE, "store", sigsegv(7)),
        "load read": (READ, "load", 0),
        "store read": (READ, "store", sigsegv(7)),
        "load write": (WRITE, "load", 0),
        "store write": (WRITE, "store", 0),
    },
)
def test_fault_protection(host: Host, prot: int, access: str, expected: Result) -> None:
    _, fd = gmem(host, 1, BOTH)
    mapping = ok(host.mmap(fd, P, prot, SHARED, 0))
    expect(host.load(mapping, 7) if access == "load" else host.store(mapping, 7, 1), expected)


@row("a protection beats the end of the file", "mm/memory.c")
def test_fault_protection_past_end(host: Host) -> None:
    _, fd = gmem(host, 1, BOTH)
    mapping = ok(host.mmap(fd, 2 * P, READ, SHARED, 0))
    expect(host.store(mapping, P, 1), sigsegv(0x1000))
    expect(host.load(mapping, P), sigbus(0x1000))


@row("two mappings of a file are one memory", "shared mappings")
def test_mappings_coherent(host: Host) -> None:
    _, fd, one = shared(host, 4)
    other = ok(host.mmap(fd, 2 * P, RW, SHARED, 2 * P))
    ok(host.store(one, 3 * P, 5))
    expect(host.load(other, P), 5)
    ok(host.store(other, 0, 6))
    expect(host.load(one, 2 * P), 6)
    ok(host.fallocate(fd, PUNCH, 2 * P, 2 * P))
    expect(host.load(one, 3 * P), 0)
    expect(host.load(other, 0), 0)


# ---- what can be done to a mapping


@table(
    "mprotect gives any protection but execution",
    OBSERVED,
    {"none": (NONE, 0), "read": (READ, 0), "read write": (RW, 0), "execute": (READ | EXEC, EACCES)},
)
def test_mprotect(host: Host, prot: int, expected: Result) -> None:
    _, _, mapping = shared(host, 2)
    expect(host.mprotect(mapping, 0, 2 * P, prot), expected)


@table(
    "mprotect reaches to the end of a page, and nowhere for nothing",
    "mm/mprotect.c",
    {"P-1": (P - 1, sigsegv(0)), "0": (0, 0)},
)
def test_mprotect_length(host: Host, length: int, expected: Result) -> None:
    _, _, mapping = shared(host, 2)
    expect(host.mprotect(mapping, 0, length, NONE if length else EXEC), 0)
    expect(host.load(mapping, 0), expected)
    expect(host.load(mapping, P), 0)


@row("mprotect of a part changes that part", "mm/mprotect.c")
def test_mprotect_part(host: Host) -> None:
    _, _, mapping = shared(host, 3)
    expect(host.mprotect(mapping, P, P, NONE), 0)
    expect(host.store(mapping, 0, 1), 0)
    expect(host.store(mapping, P, 1), sigsegv(0x1000))
    expect(host.store(mapping, 2 * P, 1), 0)


@table(
    "advice drops mappings and never memory, except to remove it",
    OBSERVED,
    {
        "normal": (Advice.NORMAL, 0, 7),
        "dontneed": (Advice.DONTNEED, 0, 7),
        "cold": (Advice.COLD, 0, 7),
        "pageout": (Advice.PAGEOUT, 0, 7),
        "hugepage": (Advice.HUGEPAGE, 0, 7),
        "populate_read": (Advice.POPULATE_READ, 0, 7),
        "populate_write": (Advice.POPULATE_WRITE, 0, 7),
        "free": (Advice.FREE, EINVAL, 7),
        "wipeonfork": (Advice.WIPEONFORK, EINVAL, 7),
        "collapse": (Advice.COLLAPSE, EINVAL, 7),
        "remove": (Advice.REMOVE, 0, 0),
    },
)
def test_madvise(host: Host, advice: int, expected: Result, value: int) -> None:
    _, _, mapping = shared(host, 2)
    ok(host.store(mapping, P, 7))
    expect(host.madvise(mapping, 0, 2 * P, advice), expected)
    expect(host.load(mapping, P), value)


@table("what is locked stays", "mm/madvise.c", {"dontneed": Advice.DONTNEED, "cold": Advice.COLD, "pageout": Advice.PAGEOUT})
def test_madvise_locked(host: Host, advice: int) -> None:
    _, _, mapping = shared(host, 1)
    ok(host.mlock(mapping, 0, P))
    expect(host.madvise(mapping, 0, P, advice), EINVAL)


@row("memory is removed through a mapping that could be made writable, as through one that is", "mm/madvise.c, madvise_remove()")
def test_madvise_remove_read_only(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 1))
    ok(host.store(mapping, P, 2))
    reader = ok(host.mmap(fd, P, READ, SHARED, 0))
    expect(host.madvise(reader, 0, P, Advice.REMOVE), 0)
    expect(host.load(mapping, 0), 0)
    expect(host.load(mapping, P), 2)


@row("what is locked is not removed through a mapping", "mm/madvise.c, madvise_remove()")
def test_madvise_remove_locked(host: Host) -> None:
    _, _, mapping = shared(host, 1)
    ok(host.mlock(mapping, 0, P))
    ok(host.store(mapping, 0, 1))
    expect(host.madvise(mapping, 0, P, Advice.REMOVE), EINVAL)
    expect(host.load(mapping, 0), 1)


@table(
    "populating is for what the mapping allows",
    "mm/madvise.c, madvise_populate()",
    {"read": (WRITE, Advice.POPULATE_READ), "write": (READ, Advice.POPULATE_WRITE)},
)
def test_madvise_populate_protection(host: Host, prot: int, advice: int) -> None:
    _, fd, _ = shared(host, 1)
    expect(host.madvise(ok(host.mmap(fd, P, prot, SHARED, 0)), 0, P, advice), EINVAL)


@table(
    "what is done to a part of a mapping begins at a page",
    OBSERVED,
    {
        "mprotect": lambda host, mapping: host.mprotect(mapping, 8, P, READ),
        "madvise": lambda host, mapping: host.madvise(mapping, 8, P, Advice.NORMAL),
        "msync": lambda host, mapping: host.msync(mapping, 8, P, 1),
    },
)
def test_unaligned(host: Host, operation: Callable[[Host, Result], Result]) -> None:
    _, _, mapping = shared(host, 2)
    expect(operation(host, mapping), EINVAL)


@table(
    "populating what cannot be faulted in is an error",
    f"{OBSERVED}",
    {
        "past the end read": (BOTH, 4 * P, Advice.POPULATE_READ),
        "past the end write": (BOTH, 4 * P, Advice.POPULATE_WRITE),
        "private read": (MMAP, 2 * P, Advice.POPULATE_READ),
        "private write": (MMAP, 2 * P, Advice.POPULATE_WRITE),
    },
)
def test_madvise_populate_refused(host: Host, flags: int, length: int, advice: int) -> None:
    _, fd = gmem(host, 2, flags)
    mapping = ok(host.mmap(fd, length, RW, SHARED, 0))
    expect(host.madvise(mapping, 0, length, advice), EFAULT)


@row("what is touched is in the page table, and no page beside it; advice and holes take it out", OBSERVED)
def test_page_table(host: Host) -> None:
    _, fd, mapping = shared(host, 4)
    ok(host.fallocate(fd, KEEP, 0, 4 * P))
    for page in (0, 1, 3):
        ok(host.load(mapping, page * P))
    expect([host.in_page_table(mapping, page * P) for page in range(4)], [1, 1, 0, 1])
    ok(host.madvise(mapping, 0, P, Advice.DONTNEED))
    ok(host.fallocate(fd, PUNCH, P, P))
    expect([host.in_page_table(mapping, page * P) for page in range(4)], [0, 0, 0, 1])


@row("mlock brings the pages in", OBSERVED)
def test_mlock(host: Host) -> None:
    _, fd, mapping = shared(host, 3)
    expect(host.mlock(mapping, 0, 2 * P), 0)
    expect(host.cachestat(fd, 0, 0), 2)
    expect(host.munlock(mapping, 0, 2 * P), 0)


@row("mlock of private memory fails", OBSERVED)
def test_mlock_private(host: Host) -> None:
    _, fd = gmem(host, 1, MMAP)
    expect(host.mlock(ok(host.mmap(fd, P, RW, SHARED, 0)), 0, P), ENOMEM)


@row("a hole is punched under mlock all the same", OBSERVED)
def test_mlock_punch(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 1))
    ok(host.mlock(mapping, 0, 2 * P))
    expect(host.fallocate(fd, PUNCH, 0, 2 * P), 0)
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.load(mapping, 0), 0)


@table(
    "there is nothing to synchronise with",
    OBSERVED,
    {"async": (1, 0), "invalidate": (2, 0), "sync": (4, EINVAL), "sync async": (5, EINVAL), "none": (0, 0)},
)
def test_msync(host: Host, flags: int, expected: Result) -> None:
    _, _, mapping = shared(host, 1)
    expect(host.msync(mapping, 0, P, flags), expected)


@row("what is locked is not invalidated", OBSERVED)
def test_msync_invalidate_locked(host: Host) -> None:
    _, _, mapping = shared(host, 1)
    ok(host.mlock(mapping, 0, P))
    expect(host.msync(mapping, 0, P, 2), EBUSY)
    ok(host.munlock(mapping, 0, P))
    expect(host.msync(mapping, 0, P, 2), 0)


@row("MAP_LOCKED locks, and a child inherits no lock", f"{OBSERVED}; mlock(2)")
def test_map_locked(host: Host) -> None:
    _, fd, _ = shared(host, 1)
    mapping = ok(host.mmap(fd, P, RW, SHARED | LOCKED, 0))
    expect(host.msync(mapping, 0, P, 2), EBUSY)
    expect(host.in_child("msync", mapping, 0, P, 2), 0)


@row("a part of a mapping goes, and neither the rest nor the pages", OBSERVED)
def test_munmap_part(host: Host) -> None:
    _, fd, mapping = shared(host, 3)
    for page in range(3):
        ok(host.store(mapping, page * P, page + 1))
    expect(host.munmap(mapping, P, P), 0)
    expect(host.cachestat(fd, 0, 0), 3)
    expect(host.load(mapping, 0), 1)
    expect(host.load(mapping, 2 * P), 3)
    again = ok(host.mmap(fd, P, RW, SHARED, P))
    expect(host.load(again, 0), 2)


@table(
    "what is unmapped is whole pages, and not nothing",
    OBSERVED,
    {"unaligned": (1, P), "empty": (0, 0)},
)
def test_munmap_arguments(host: Host, offset: int, length: int) -> None:
    _, _, mapping = shared(host, 2)
    expect(host.munmap(mapping, offset, length), EINVAL)


@row("what is locked stays locked beside a part that goes", OBSERVED)
def test_munmap_beside_locked(host: Host) -> None:
    _, _, mapping = shared(host, 3)
    ok(host.mlock(mapping, 0, 3 * P))
    ok(host.munmap(mapping, P, P))
    expect(host.msync(mapping, 0, P, 2), EBUSY)
    expect(host.msync(mapping, 2 * P, P, 2), EBUSY)


@row("a mapping grows over the pages behind it in the file, and past its end", OBSERVED)
def test_mremap_grow(host: Host) -> None:
    _, fd, whole = shared(host, 3)
    mapping = ok(host.mmap(fd, P, RW, SHARED, P))
    ok(host.store(whole, 2 * P, 9))
    expect(host.mremap(mapping, 3 * P), 0)
    expect(host.load(mapping, P), 9)
    expect(host.load(mapping, 2 * P), sigbus(2 * P))


@row("a mapping shrinks, and its pages stay", OBSERVED)
def test_mremap_shrink(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 1))
    ok(host.store(mapping, P, 2))
    expect(host.mremap(mapping, P), 0)
    expect(host.load(mapping, 0), 1)
    expect(host.cachestat(fd, 0, 0), 2)
    expect(host.mremap(mapping, 0), EINVAL)


MREMAP = "mm/mremap.c, do_mremap()"
MAYMOVE, FIXED, DONTUNMAP = 1, 2, 4


@table("of length 0, a mapping is mapped a second time", MREMAP, {"as long": 2, "shorter": 1, "past the end": 3})
def test_mremap_second(host: Host, pages: int) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 1))
    second = ok(host.mremap_from(mapping, 0, pages * P, MAYMOVE))
    expect(host.load(second, 0), 1)
    ok(host.store(second, 1, 2))
    expect(host.load(mapping, 1), 2)
    if pages == 3:
        expect(host.load(second, 2 * P), sigbus(2 * P))
    ok(host.munmap(mapping))
    expect(host.load(second, 0), 1)
    expect(host.cachestat(fd, 0, 0), 1)


@table("moved, a mapping has its pages; a place that it leaves has them too", MREMAP, {"moved": 0, "left": DONTUNMAP})
def test_mremap_fixed(host: Host, leave: int) -> None:
    _, fd, mapping = shared(host, 2)
    _, under, place = shared(host, 2)
    ok(host.store(mapping, P, 7))
    ok(host.store(place, P, 9))
    moved = ok(host.mremap_from(mapping, 2 * P, 2 * P, MAYMOVE | FIXED | leave, place))
    expect([host.load(moved, page * P) for page in range(2)], [0, 7])
    expect(host.cachestat(under, 0, 0), 1)
    if leave:
        expect([host.load(mapping, page * P) for page in range(2)], [0, 7])
        ok(host.store(mapping, 0, 3))
        expect(host.load(moved, 0), 3)
    expect(host.cachestat(fd, 0, 0), 2)


@row("a mapping that is moved away leaves its place as it was made, with the pages", MREMAP)
def test_mremap_left(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 5))
    moved = ok(host.mremap_from(mapping, 2 * P, 2 * P, MAYMOVE | DONTUNMAP))
    ok(host.fallocate(fd, PUNCH, 0, P))
    expect([host.load(mapping, 0), host.load(moved, 0)], [0, 0])
    ok(host.munmap(moved))
    expect(host.load(mapping, P), 0)


@table(
    "mremap of what cannot be is refused, and the mapping stays",
    MREMAP,
    {
        "no such flag": (2, 2, 8, EINVAL),
        "a place and not moved": (2, 2, FIXED, EINVAL),
        "left and not moved": (2, 2, DONTUNMAP, EINVAL),
        "left and longer": (2, 3, MAYMOVE | DONTUNMAP, EINVAL),
        "left, of length 0": (0, 2, MAYMOVE | DONTUNMAP, EINVAL),
        "to nothing": (2, 0, MAYMOVE, EINVAL),
        "more than is mapped": (3, 4, MAYMOVE, EFAULT),
        "a second one in place": (0, 2, 0, ENOMEM),
    },
)
def test_mremap_illegal(host: Host, old: int, new: int, flags: int, error: Errno) -> None:
    _, fd = gmem(host, 2, BOTH)
    mapping = ok(host.mmap(fd, 2 * P, RW, SHARED, 0))
    place = ok(host.mmap(fd, 2 * P, RW, SHARED, 0)) if flags & FIXED else None
    ok(host.store(mapping, 0, 1))
    expect(host.mremap_from(mapping, old * P, new * P, flags, place), error)
    expect(host.load(mapping, 0), 1)


@row("a mapping does not move over itself", MREMAP)
def test_mremap_over_itself(host: Host) -> None:
    _, _, mapping = shared(host, 2)
    ok(host.store(mapping, P, 1))
    expect(host.mremap_from(mapping, 2 * P, 2 * P, MAYMOVE | FIXED, mapping), EINVAL)
    expect(host.load(mapping, P), 1)


@row("smaps counts what the page table has, not what the file has", "fs/proc/task_mmu.c, smaps_account()")
def test_smaps(host: Host) -> None:
    _, fd, mapping = shared(host, 4)
    expect(host.smaps(mapping), (0, 0, 0))
    ok(host.store(mapping, P, 1))
    ok(host.load(mapping, 3 * P))
    ok(host.fallocate(fd, KEEP, 0, P))
    expect(host.smaps(mapping), (2 * P, 2 * P, 0))
    ok(host.madvise(mapping, 0, 4 * P, Advice.DONTNEED))
    expect(host.smaps(mapping), (0, 0, 0))
    expect(host.cachestat(fd, 0, 0), 3)


@row("what is locked is counted as locked, and what a hole took is not", "fs/proc/task_mmu.c, smaps_account()")
def test_smaps_locked(host: Host) -> None:
    _, fd, mapping = shared(host, 3)
    ok(host.mlock(mapping, 0, 2 * P))
    ok(host.load(mapping, 2 * P))
    expect(host.smaps(mapping), (3 * P, 3 * P, 2 * P))
    ok(host.fallocate(fd, PUNCH, 0, P))
    expect(host.smaps(mapping), (2 * P, 2 * P, P))


@row("a fault past the end of a file is a SIGBUS, however far past it", f"{GMEM}, kvm_gmem_fault_user_mapping()")
def test_mremap_past_largest_offset(host: Host) -> None:
    _, fd, _ = shared(host, 1)
    mapping = ok(host.mmap(fd, P, RW, SHARED, (1 << 63) - 2 * P))
    expect(host.mremap(mapping, 3 * P), 0)
    expect(host.load(mapping, P), sigbus(0x1000))
    expect(host.load(mapping, 2 * P), sigbus(0x2000))


@table(
    "files of guest memory have no userfaultfd, but for a series that is not merged",
    f"{OBSERVED}; {citations.USERFAULTFD}",
    {"missing": 1, "write protection": 2, "minor": 4},
)
def test_userfaultfd_register(host: Host, mode: int) -> None:
    _, _, mapping = shared(host, 1)
    expect(host.userfaultfd_register(mapping, 0, P, mode), 0 if mode & host.facts.userfaults else EINVAL)


@row(
    "pages of a file are not collapsed, in a range with room for a huge page as well",
    f"mm/khugepaged.c, madvise_collapse(); {OBSERVED}",
)
def test_collapse(host: Host) -> None:
    _, fd = gmem(host, 1024, BOTH)
    mapping = ok(host.mmap(fd, 1024 * P, RW, SHARED, 0))
    expect(host.madvise(mapping, 0, 1024 * P, Advice.COLLAPSE), EINVAL)
