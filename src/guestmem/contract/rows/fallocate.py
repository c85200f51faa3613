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
