# SPDX-License-Identifier: Apache-2.0
"""Filling a file by write(2), as a series has it that is not merged: whole pages, of files with a flag for it.

Earlier versions of the series refused to write to a page for a second time (ENOSPC); the newest does not.
"""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Host, Missing
from guestmem.contract.results import EINVAL, ENODEV, ENXIO, ESPIPE, Result
from guestmem.contract.rows import INIT_SHARED, KEEP, MMAP, PUNCH, RW, SHARED, bind, expect, gmem, ok, row, table

P = PAGE_SIZE
SERIES = f"{citations.WRITE}; its selftest test_write_supported()"
VFS = f"{citations.WRITE}; mm/filemap.c, generic_perform_write()"
PAGES = 4
SHARED_FILE = MMAP | INIT_SHARED


def writable(host: Host, flags: int = SHARED_FILE) -> tuple[Result, Result]:
    """A VM, and a file of four pages that can be written to."""
    if not host.facts.writes:
        raise Missing("guest_memfd with a flag for write(2)")
    owner, _ = gmem(host, 1)
    return owner, ok(host.create_guest_memfd(owner, PAGES * P, flags | host.facts.writes))


def mapped(host: Host, fd: Result) -> Result:
    """A mapping of all of a file."""
    return ok(host.mmap(fd, PAGES * P, RW, SHARED, 0))


def holds(host: Host, mapping: Result, *values: int) -> None:
    """The first and the last byte of each page."""
    found: list[Result] = [host.load(mapping, page * P + at) for page in range(PAGES) for at in (0, P - 1)]
    expect(found, [value for value in values for _ in range(2)])


@table("whole pages are written", SERIES, {"first": (0, 1), "last": (3, 1), "middle": (1, 2), "all": (0, 4)})
def test_write_supported(host: Host, first: int, pages: int) -> None:
    _, fd = writable(host)
    expect(host.pwrite(fd, first * P, pages * P, 7), pages * P)
    expect(host.cachestat(fd, 0, 0), pages)
    holds(host, mapped(host, fd), *(7 if first <= page < first + pages else 0 for page in range(PAGES)))


@table(
    "what is no whole page inside the file is not written",
    f"{SERIES}; fs/read_write.c",
    {
        "one byte": (0, 1),
        "a page but one byte": (0, P - 1),
        "offset 1": (1, P),
        "to the end of a page": (P - 8, 8),
        "at the end": (PAGES * P, P),
        "far past the end": (1 << 62, P),
        "negative": (-P, P),
    },
)
def test_write_refused(host: Host, offset: int, length: int) -> None:
    _, fd = writable(host)
    expect(host.pwrite(fd, offset, length, 7), EINVAL)
    expect(host.cachestat(fd, 0, 0), 0)


@table(
    "what comes before is written, and counts",
    VFS,
    {"the end": (2, 3 * P, 2), "a part of a page": (0, 2 * P + 8, 2), "almost a page": (1, 2 * P - 1, 1)},
)
def test_write_partly(host: Host, first: int, length: int, pages: int) -> None:
    _, fd = writable(host)
    expect(host.pwrite(fd, first * P, length, 7), pages * P)
    expect(host.cachestat(fd, 0, 0), pages)
    holds(host, mapped(host, fd), *(7 if first <= page < first + pages else 0 for page in range(PAGES)))


@table(
    "a page that is there is written to like any other",
    citations.WRITE,
    {
        "written": lambda host, fd, mapping: host.pwrite(fd, P, P, 3),
        "allocated": lambda host, fd, mapping: host.fallocate(fd, KEEP, P, P),
        "loaded": lambda host, fd, mapping: host.load(mapping, P),
        "stored": lambda host, fd, mapping: host.store(mapping, P, 3),
    },
)
def test_write_again(host: Host, before: object) -> None:
    _, fd = writable(host)
    mapping = mapped(host, fd)
    assert callable(before)
    ok(before(host, fd, mapping))
    expect(host.pwrite(fd, P, P, 7), P)
    expect(host.cachestat(fd, 0, 0), 1)
    holds(host, mapping, 0, 7, 0, 0)


@row("what is written can be punched, and written again", citations.WRITE)
def test_write_punch(host: Host) -> None:
    _, fd = writable(host)
    ok(host.pwrite(fd, 0, PAGES * P, 7))
    ok(host.fallocate(fd, PUNCH, P, 2 * P))
    ok(host.pwrite(fd, P, P, 8))
    expect(host.cachestat(fd, 0, 0), 3)
    holds(host, mapped(host, fd), 7, 8, 0, 7)


@table("a file without the flag is not written to", f"{citations.WRITE}; test_write_not_supported()", {"page": P, "byte": 1})
def test_write_not_supported(host: Host, length: int) -> None:
    owner, _ = writable(host)
    fd = ok(host.create_guest_memfd(owner, P, SHARED_FILE))
    expect(host.pwrite(fd, 0, length, 7), ENODEV)
    expect(host.write(fd, length, 7), ENODEV)
    expect(host.cachestat(fd, 0, 0), 0)


@table("the flag stands by itself", SERIES, {"alone": 0, "MMAP": MMAP, "INIT_SHARED": INIT_SHARED})
def test_write_flag(host: Host, flags: int) -> None:
    _, fd = writable(host, flags)
    expect(host.pwrite(fd, P, P, 7), P)
    expect(host.cachestat(fd, 0, 0), 1)


@row("write(2) goes on from the file's position, which its descriptors share", VFS)
def test_position(host: Host) -> None:
    _, fd = writable(host)
    other = ok(host.dup(fd))
    expect(host.write(fd, P, 1), P)
    expect(host.write(other, 2 * P, 2), 2 * P)
    expect(host.file_operation(fd, "lseek cur"), 3 * P)
    expect(host.write(fd, 2 * P, 3), P)
    expect(host.write(fd, P, 4), EINVAL)
    expect(host.file_operation(fd, "lseek cur"), PAGES * P)
    expect(host.file_operation(fd, "lseek set", P), P)
    expect(host.pwrite(fd, 0, P, 5), P)
    expect(host.write(fd, P, 6), P)
    holds(host, mapped(host, fd), 5, 6, 2, 3)


@row("what cannot be written moves no position", VFS)
def test_position_stays(host: Host) -> None:
    _, fd = writable(host)
    ok(host.write(fd, P, 1))
    expect(host.write(fd, P - 1, 2), EINVAL)
    expect(host.file_operation(fd, "lseek cur"), P)


@table(
    "positions are those of any file",
    "fs/read_write.c, default_llseek()",
    {
        "end": ("lseek end", 0, PAGES * P),
        "hole": ("lseek hole", P, PAGES * P),
        "data": ("lseek data", P, P),
        "data at the end": ("lseek data", PAGES * P, ENXIO),
        "set past the end": ("lseek set", 9 * P, 9 * P),
        "set negative": ("lseek set", -1, EINVAL),
    },
)
def test_seek(host: Host, operation: str, offset: int, expected: Result) -> None:
    _, fd = writable(host)
    ok(host.pwrite(fd, P, P, 1))
    expect(host.file_operation(fd, operation, offset), expected)


@table("a file that can be written to is not read", citations.WRITE, {name: name for name in ("read", "readv", "pread")})
def test_no_read(host: Host, operation: str) -> None:
    _, fd = writable(host)
    ok(host.pwrite(fd, 0, P, 1))
    expect(host.file_operation(fd, operation), ESPIPE if operation == "pread" else EINVAL)


@row("a guest sees what is written, before and after it has the page", citations.WRITE)
def test_guest(host: Host) -> None:
    owner, fd = writable(host)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.pwrite(fd, 0, P, 7))
    expect(host.guest_load(vcpu, P - 1), 7)
    ok(host.guest_store(vcpu, P, 3))
    ok(host.pwrite(fd, P, P, 8))
    expect(host.guest_load(vcpu, P), 8)


@row("a child writes to the same memory", citations.WRITE)
def test_child(host: Host) -> None:
    _, fd = writable(host)
    mapping = mapped(host, fd)
    expect(host.in_child("pwrite", fd, P, P, 7), P)
    holds(host, mapping, 0, 7, 0, 0)
