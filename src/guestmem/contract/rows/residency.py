# SPDX-License-Identifier: Apache-2.0
"""Which pages there are: cachestat(2) counts them and touches none."""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Advice, Host
from guestmem.contract.results import EBADF
from guestmem.contract.rows import (
    INIT_SHARED,
    KEEP,
    MMAP,
    OBSERVED,
    PUNCH,
    bind,
    delete,
    expect,
    gmem,
    ok,
    row,
    shared,
    sigbus,
    table,
)

P = PAGE_SIZE
SOURCE = f"{citations.CACHESTAT}; {OBSERVED}"

RANGES = {
    "all": (0, 0, 4),
    "all by length": (0, 16 * P, 4),
    "from a page": (4 * P, 0, 2),
    "a page": (2 * P, P, 1),
    "from the start": (0, 3 * P, 1),
    "a hole": (4 * P, P, 0),
    "a byte": (2 * P + 5, 1, 1),
    "two bytes of two pages": (3 * P - 1, 2, 2),
    "past the end": (16 * P, 0, 0),
    "over the end of 64 bits": ((1 << 64) - P, 2 * P, 0),
    "far past the end": (1 << 62, 1 << 62, 0),
}


@table("a range counts the pages of its bytes", SOURCE, RANGES)
def test_cachestat_range(host: Host, offset: int, length: int, pages: int) -> None:
    _, fd = gmem(host, 16)
    for page in (2, 3, 8, 15):
        ok(host.fallocate(fd, KEEP, page * P, P))
    expect(host.cachestat(fd, offset, length), pages)


@row("a load brings one page, not its neighbours", SOURCE)
def test_fault_is_one_page(host: Host) -> None:
    _, fd, mapping = shared(host, 16)
    ok(host.load(mapping, 5 * P))
    expect(host.cachestat(fd, 0, 0), 1)
    expect(host.cachestat(fd, 5 * P, P), 1)


@row("a signal leaves no page", SOURCE)
def test_signal_allocates_nothing(host: Host) -> None:
    _, fd = gmem(host, 2, MMAP)
    mapping = ok(host.mmap(fd, 4 * P, 3, 1, 0))
    expect(host.store(mapping, 0, 1), sigbus(0))
    expect(host.store(mapping, 3 * P, 1), sigbus(0x3000))
    expect(host.cachestat(fd, 0, 0), 0)


@table(
    "what only drops mappings frees no page",
    SOURCE,
    {"dontneed": Advice.DONTNEED, "cold": Advice.COLD, "pageout": Advice.PAGEOUT},
)
def test_advice_frees_nothing(host: Host, advice: int) -> None:
    _, fd, mapping = shared(host, 4)
    ok(host.fallocate(fd, KEEP, 0, 4 * P))
    ok(host.load(mapping, 0))
    ok(host.madvise(mapping, 0, 4 * P, advice))
    expect(host.cachestat(fd, 0, 0), 4)


@row("binding and unbinding neither allocates nor frees", SOURCE)
def test_binding_changes_nothing(host: Host) -> None:
    owner, fd = gmem(host, 8, MMAP | INIT_SHARED)
    ok(host.fallocate(fd, KEEP, P, 2 * P))
    ok(bind(host, owner, fd, 0, 0, 8))
    expect(host.cachestat(fd, 0, 0), 2)
    ok(delete(host, owner, 0))
    expect(host.cachestat(fd, 0, 0), 2)


@row("a guest's touch allocates that page", SOURCE)
def test_guest_touch_allocates(host: Host) -> None:
    owner, fd = gmem(host, 8, MMAP | INIT_SHARED)
    ok(bind(host, owner, fd, 0, 0x40000, 4, 4))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.guest_load(vcpu, 0x41000), 0)
    expect(host.cachestat(fd, 5 * P, P), 1)
    expect(host.cachestat(fd, 0, 0), 1)


@row("a hole that is punched twice frees once", SOURCE)
def test_punch_twice(host: Host) -> None:
    _, fd = gmem(host, 4)
    ok(host.fallocate(fd, KEEP, 0, 4 * P))
    for _ in range(2):
        ok(host.fallocate(fd, PUNCH, P, 2 * P))
        expect(host.cachestat(fd, 0, 0), 2)


@row("only an open file is counted", SOURCE)
def test_cachestat_closed(host: Host) -> None:
    _, fd = gmem(host, 1)
    ok(host.close(fd))
    expect(host.cachestat(fd, 0, 0), EBADF)
