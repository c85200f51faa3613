# SPDX-License-Identifier: Apache-2.0
"""A page is zero when it is seen for the first time, and again after a hole; what was in it before is nobody's."""

from __future__ import annotations

from guestmem.contract.interface import PAGE_SIZE, Advice, Host
from guestmem.contract.results import Result
from guestmem.contract.rows import (
    GMEM,
    INIT_SHARED,
    KEEP,
    MMAP,
    OBSERVED,
    PUNCH,
    RW,
    SHARED,
    bind,
    bindable,
    delete,
    expect,
    ok,
    row,
    shared,
    table,
)

P = PAGE_SIZE


def everywhere(host: Host, mapping: Result, page: int) -> bytes:
    """Some bytes of a page, from its start to its end."""
    found = [ok(host.load(mapping, page * P + at)) for at in (0, 1, 7, P // 2, P - 1)]
    return bytes(value for value in found if isinstance(value, int))


@table(
    "a new page is zero, however it came",
    GMEM,
    {"by a fault": "fault", "by fallocate": "allocate", "by populate": "populate", "by mlock": "mlock"},
)
def test_new_page_is_zero(host: Host, how: str) -> None:
    _, fd, mapping = shared(host, 2)
    if how == "allocate":
        ok(host.fallocate(fd, KEEP, 0, 2 * P))
    elif how == "populate":
        ok(host.madvise(mapping, 0, 2 * P, Advice.POPULATE_WRITE))
    elif how == "mlock":
        ok(host.mlock(mapping, 0, 2 * P))
    expect(everywhere(host, mapping, 0), bytes(5))
    expect(everywhere(host, mapping, 1), bytes(5))


@table("a page is zero again after a hole", GMEM, {"by a fault": 0, "by fallocate": 1})
def test_punched_page_is_zero(host: Host, allocate: int) -> None:
    _, fd, mapping = shared(host, 2)
    for at in (0, 1, 7, P // 2, P - 1):
        ok(host.store(mapping, at, 0xFF))
    ok(host.fallocate(fd, PUNCH, 0, P))
    if allocate:
        ok(host.fallocate(fd, KEEP, 0, P))
    expect(everywhere(host, mapping, 0), bytes(5))


@row("frames that change files many times bring nothing along", GMEM)
def test_recycled_frames_are_zero(host: Host) -> None:
    _, fd, mapping = shared(host, 8)
    for turn in range(4):
        for page in range(8):
            expect(host.load(mapping, page * P + 11), 0)
            ok(host.store(mapping, page * P + 11, 0xA0 + turn))
        ok(host.fallocate(fd, PUNCH, 0, 8 * P))


@row("a page is zero for a guest that sees it for the first time", OBSERVED)
def test_new_page_is_zero_for_the_guest(host: Host) -> None:
    owner, fd, _ = shared(host, 2)
    ok(bind(host, owner, fd, 0, 0, 2))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.guest_load(vcpu, 17), 0)
    ok(host.fallocate(fd, KEEP, P, P))
    expect(host.guest_load(vcpu, P + 17), 0)


@table("a guest sees zeros after a hole", OBSERVED, {"by a fault": 0, "by fallocate": 1})
def test_punched_page_is_zero_for_the_guest(host: Host, allocate: int) -> None:
    owner, fd, mapping = shared(host, 2)
    ok(bind(host, owner, fd, 0, 0, 2))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.guest_store(vcpu, 17, 0xEE))
    expect(host.load(mapping, 17), 0xEE)
    ok(host.fallocate(fd, PUNCH, 0, P))
    if allocate:
        ok(host.fallocate(fd, KEEP, 0, P))
    expect(host.guest_load(vcpu, 17), 0)


@row("memory that the host may not see is zero for a guest, too", OBSERVED)
def test_private_page_is_zero_for_the_guest(host: Host) -> None:
    owner, fd = bindable(host, 2, MMAP)
    ok(bind(host, owner, fd, 0, 0, 2))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.guest_load(vcpu, 3), 0)
    ok(host.guest_store(vcpu, 3, 1))
    ok(host.fallocate(fd, PUNCH, 0, P))
    expect(host.guest_load(vcpu, 3), 0)


@row("contents stay when a slot is deleted and the file is bound elsewhere", GMEM)
def test_contents_survive_rebinding(host: Host) -> None:
    owner, fd, mapping = shared(host, 2)
    ok(bind(host, owner, fd, 0, 0, 2))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.guest_store(vcpu, P, 7))
    ok(delete(host, owner, 0))
    expect(host.load(mapping, P), 7)
    ok(bind(host, owner, fd, 0, 16 * P, 1, 1))
    expect(host.guest_load(vcpu, 16 * P), 7)


@row("contents stay when no mapping is left", GMEM)
def test_contents_survive_unmapping(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, P, 7))
    ok(host.munmap(mapping))
    expect(host.load(ok(host.mmap(fd, P, RW, SHARED, P)), 0), 7)


@row("a file made after another was closed shows nothing of it", GMEM)
def test_next_file_is_zero(host: Host) -> None:
    owner, fd, mapping = shared(host, 4)
    for page in range(4):
        ok(host.store(mapping, page * P, 0x55))
    ok(host.munmap(mapping))
    ok(host.close(fd))
    other = ok(host.create_guest_memfd(owner, 4 * P, MMAP | INIT_SHARED))
    again = ok(host.mmap(other, 4 * P, RW, SHARED, 0))
    for page in range(4):
        expect(host.load(again, page * P), 0)
