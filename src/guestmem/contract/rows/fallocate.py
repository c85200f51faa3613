# SPDX-License-Identifier: Apache-2.0
"""fallocate(2): KEEP_SIZE allocates, PUNCH_HOLE|KEEP_SIZE frees, nothing else exists."""

from __future__ import annotations

from guestmem.contract.interface import PAGE_SIZE, Host
from guestmem.contract.results import EBADF, EFBIG, EINVAL, EOPNOTSUPP, Result
from guestmem.contract.rows import (
    GMEM,
    INIT_SHARED,
    KEEP,
    MMAP,
    OBSERVED,
    PUNCH,
    RW,
    SELFTEST,
    SHARED,
    VFS,
    bindable,
    expect,
    gmem,
    ok,
    row,
    shared,
    table,
)

P = PAGE_SIZE
PAGES = 8
SIZE = PAGES * P
TOP = 1 << 63

MODES = {
    "0": 0x00,
    "punch without keep": 0x02,
    "no_hide_stale": 0x04,
    "no_hide_stale keep": 0x05,
    "no_hide_stale punch": 0x07,
    "collapse": 0x08,
    "collapse keep": 0x09,
    "zero": 0x10,
    "zero keep": 0x11,
    "insert": 0x20,
    "insert keep": 0x21,
    "unshare": 0x40,
    "unshare keep": 0x41,
    "write_zeroes": 0x80,
    "write_zeroes keep": 0x81,
    "0x100": 0x100,
    "0x100 keep": 0x101,
    "2^30": 1 << 30,
}


@table("files of guest memory have fallocate modes KEEP_SIZE and PUNCH_HOLE|KEEP_SIZE", f"{VFS}; {GMEM}", MODES)
def test_fallocate_modes(host: Host, mode: int) -> None:
    _, fd = gmem(host, PAGES)
    expect(host.fallocate(fd, mode, 0, P), EOPNOTSUPP)
    expect(host.fallocate(fd, mode, 1, P + 1), EOPNOTSUPP)
    expect(host.cachestat(fd, 0, 0), 0)


UNALIGNED = {
    "length": (0, P - 1),
    "offset": (1, P),
    "both": (P - 1, P + 1),
    "at the end": (SIZE, 1),
    "past the end": (SIZE + 1, P),
    **{f"offset 2^{bit}": (1 << bit, P) for bit in range(1, 12)},
    **{f"length 2^{bit}": (0, 1 << bit) for bit in range(12)},
}


@table("offsets and lengths are whole pages", f"{SELFTEST}, test_invalid_punch_hole(); {GMEM}, kvm_gmem_fallocate()", UNALIGNED)
def test_invalid_punch_hole(host: Host, offset: int, length: int) -> None:
    _, fd = gmem(host, PAGES)
    ok(host.fallocate(fd, KEEP, 0, SIZE))
    expect(host.fallocate(fd, PUNCH, offset, length), EINVAL)
    expect(host.cachestat(fd, 0, 0), PAGES)


@table("offsets and lengths are whole pages", f"{SELFTEST}, test_fallocate(); {GMEM}, kvm_gmem_fallocate()", UNALIGNED)
def test_fallocate_unaligned(host: Host, offset: int, length: int) -> None:
    _, fd = gmem(host, PAGES)
    expect(host.fallocate(fd, KEEP, offset, length), EINVAL)
    expect(host.cachestat(fd, 0, 0), 0)


ARGUMENTS = {
    "length 0": (0, 0, EINVAL),
    "negative offset": (-P, P, EINVAL),
    "negative length": (0, -P, EINVAL),
    "offset 2^63": (TOP, P, EINVAL),
    "end 2^63": (TOP - P, P, EFBIG),
    "end over 2^63": (TOP - P, TOP - P, EFBIG),
}


@table("the VFS checks that a range is one", VFS, ARGUMENTS)
def test_fallocate_range(host: Host, offset: int, length: int, expected: Result) -> None:
    _, fd = gmem(host, PAGES)
    expect(host.fallocate(fd, KEEP, offset, length), expected)
    expect(host.fallocate(fd, PUNCH, offset, length), expected)


OUTSIDE = {
    "at the end": (SIZE, P),
    "across the end": (SIZE - P, 2 * P),
    "past the end": (SIZE + 3 * P, P),
    "all but a page of 2^63": (0, TOP - P),
}


@table("pages are allocated inside the file or not at all", f"{SELFTEST}, test_fallocate(); {GMEM}", OUTSIDE)
def test_fallocate_past_end(host: Host, offset: int, length: int) -> None:
    _, fd = gmem(host, PAGES)
    expect(host.fallocate(fd, KEEP, offset, length), EINVAL)
    expect(host.cachestat(fd, 0, 0), 0)


@table("a hole may be anywhere, past the end as well", f"{SELFTEST}, test_fallocate(); {GMEM}", OUTSIDE)
def test_punch_hole_past_end(host: Host, offset: int, length: int) -> None:
    _, fd = gmem(host, PAGES)
    ok(host.fallocate(fd, KEEP, 0, SIZE))
    expect(host.fallocate(fd, PUNCH, offset, length), 0)
    expect(host.cachestat(fd, 0, 0), PAGES - max(0, min(SIZE, offset + length) - min(SIZE, offset)) // P)


@table(
    "allocating and punching is the same for all flags",
    f"{SELFTEST}, test_fallocate()",
    {"none": 0, "MMAP": MMAP, "INIT_SHARED": INIT_SHARED, "MMAP|INIT_SHARED": MMAP | INIT_SHARED},
)
def test_fallocate(host: Host, flags: int) -> None:
    _, fd = gmem(host, PAGES, flags)
    expect(host.fallocate(fd, KEEP, 0, SIZE), 0)
    expect(host.cachestat(fd, 0, 0), PAGES)
    expect(host.fallocate(fd, PUNCH, P, 2 * P), 0)
    expect(host.cachestat(fd, 0, 0), PAGES - 2)
    expect(host.fallocate(fd, PUNCH, 0, SIZE), 0)
    expect(host.fallocate(fd, PUNCH, 0, SIZE), 0)
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.fallocate(fd, KEEP, 3 * P, P), 0)
    expect(host.cachestat(fd, 3 * P, P), 1)
    expect(host.cachestat(fd, 0, 0), 1)


@row("allocating keeps the contents of pages that are there", OBSERVED)
def test_fallocate_keeps_contents(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, P, 7))
    expect(host.fallocate(fd, KEEP, 0, 2 * P), 0)
    expect(host.load(mapping, P), 7)


@row("a file larger than memory has pages where they are allocated", GMEM)
def test_fallocate_sparse(host: Host) -> None:
    _, fd = gmem(host, (TOP - P) // P)
    expect(host.fallocate(fd, KEEP, 1 << 62, P), 0)
    expect(host.fallocate(fd, KEEP, TOP - 2 * P, P), 0)
    expect(host.cachestat(fd, 0, 0), 2)
    expect(host.cachestat(fd, 1 << 62, P), 1)


@row("only an open file is allocated in", VFS)
def test_fallocate_closed(host: Host) -> None:
    _, fd = gmem(host, 1)
    ok(host.close(fd))
    expect(host.fallocate(fd, KEEP, 0, P), EBADF)


@row("a hole in the middle takes its pages from mappings, and from no others", GMEM)
def test_punch_hole_mapped(host: Host) -> None:
    _, fd, mapping = shared(host, 4)
    other = ok(host.mmap(fd, 4 * P, RW, SHARED, 0))
    for page in range(4):
        ok(host.store(mapping, page * P + 9, page + 1))
    expect(host.fallocate(fd, PUNCH, P, 2 * P), 0)
    expect([host.load(other, page * P + 9) for page in range(4)], [1, 0, 0, 4])


@table(
    "what a mode may be is looked at before the largest offset",
    VFS,
    {
        "PUNCH_HOLE": (2, EOPNOTSUPP),
        "COLLAPSE|KEEP": (9, EOPNOTSUPP),
        "INSERT|KEEP": (0x21, EOPNOTSUPP),
        "PUNCH|KEEP": (3, EFBIG),
    },
)
def test_mode_before_offset(host: Host, mode: int, expected: Result) -> None:
    _, fd = gmem(host, 1)
    expect(host.fallocate(fd, mode, (1 << 63) - PAGE_SIZE, PAGE_SIZE), expected)


TIMES = "virt/kvm/guest_memfd.c, kvm_gmem_fallocate(): file_modified()"


@table(
    "what allocates or punches gives the file new times",
    TIMES,
    {
        "allocate": ("fallocate", (KEEP, 0, P)),
        "allocate again": ("fallocate", (KEEP, 0, SIZE)),
        "punch": ("fallocate", (PUNCH, 0, P)),
        "punch past the end": ("fallocate", (PUNCH, SIZE, P)),
    },
)
def test_times_change(host: Host, operation: str, arguments: tuple[int, ...]) -> None:
    _, fd = gmem(host, PAGES)
    expect(host.times_changed(fd, operation, fd, *arguments), (1, 1))


@row("MADV_REMOVE gives the file new times, as it punches", f"mm/madvise.c, madvise_remove(); {TIMES}")
def test_times_of_madvise_remove(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    expect(host.times_changed(fd, "madvise", mapping, 0, P, 9), (1, 1))


@table(
    "what is refused leaves the file its times",
    TIMES,
    {
        "allocate past the end": ("fallocate", (KEEP, SIZE, P)),
        "allocate unaligned": ("fallocate", (KEEP, 1, P)),
        "punch unaligned": ("fallocate", (PUNCH, 0, 1)),
        "no mode": ("fallocate", (0, 0, P)),
        "fchmod": ("file_operation", ("fchmod",)),
        "futimens": ("file_operation", ("futimens",)),
        "ftruncate": ("file_operation", ("ftruncate", P)),
        "write": ("file_operation", ("write",)),
        "read": ("file_operation", ("read",)),
    },
)
def test_times_stay(host: Host, operation: str, arguments: tuple[int | str, ...]) -> None:
    _, fd = gmem(host, PAGES)
    expect(host.times_changed(fd, operation, fd, *arguments), (0, 0))


FAULTS = "mm/memory.c, fault_dirty_shared_page(): file_update_time() without page_mkwrite"


@table(
    "a fault for writing gives the file new times",
    FAULTS,
    {
        "store": ("store", (0, 5)),
        "write of another process": ("process_vm_writev", (0, b"abc")),
        "populate": ("madvise", (0, P, 23)),
    },
)
def test_times_of_write_fault(host: Host, operation: str, arguments: tuple[int | bytes, ...]) -> None:
    _, fd, mapping = shared(host, 2)
    expect(host.times_changed(fd, operation, mapping, *arguments), (1, 1))


@table(
    "another use of memory leaves the file its times",
    FAULTS,
    {
        "load": ("load", (0,)),
        "write to a page that is there": ("process_vm_writev", (P, b"abc")),
        "dontneed": ("madvise", (P, P, 4)),
        "populate for reading": ("madvise", (0, P, 22)),
        "munmap": ("munmap", ()),
    },
)
def test_times_of_memory(host: Host, operation: str, arguments: tuple[int | bytes, ...]) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.process_vm_writev(mapping, P, b"x"))
    expect(host.times_changed(fd, operation, mapping, *arguments), (0, 0))


@row("binding a file leaves it its times", TIMES)
def test_times_of_binding(host: Host) -> None:
    owner, fd = bindable(host, 2)
    expect(host.times_changed(fd, "set_user_memory_region2", owner, 0, 4, 0, 2 * P, None, fd, 0), (0, 0))
