# SPDX-License-Identifier: Apache-2.0
"""Files of guest memory that the next kernel gets by a live update, as a series has them that is not merged.

What is in such a file can be used and changed; no page comes or goes until the session ends.  No kernel follows here.
"""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Advice, Host, Missing
from guestmem.contract.results import EBADF, EBUSY, EEXIST, EFAULT, EFBIG, EINVAL, ENOENT, ENOTTY, EOPNOTSUPP, EPERM, Result
from guestmem.contract.rows import (
    INIT_SHARED,
    KEEP,
    MMAP,
    PUNCH,
    RW,
    SHARED,
    SW_PROTECTED,
    bind,
    bindable,
    expect,
    gmem,
    has_entries,
    ok,
    row,
    sigbus,
    table,
)

P = PAGE_SIZE
SERIES = citations.PRESERVATION
ORCHESTRATOR = "kernel/liveupdate/luo_file.c, luo_preserve_file() (in v6.19)"
PAGES = 4
THERE, HOLE = 1, 2


def session(host: Host) -> Result:
    """A session of live update."""
    if not host.facts.preserves:
        raise Missing("live update that takes guest_memfd (kho=on liveupdate=on, root)")
    return ok(host.liveupdate_session())


def preserved(host: Host) -> tuple[Result, Result, Result]:
    """A session that has a file of four pages, of which the first two are there with 1 and 2 in them, and a mapping of it."""
    by = session(host)
    _, fd = gmem(host, PAGES, MMAP | INIT_SHARED)
    mapping = ok(host.mmap(fd, PAGES * P, RW, SHARED, 0))
    for page in range(HOLE):
        ok(host.store(mapping, page * P, page + 1))
    expect(host.preserve(by, fd, 7), 0)
    return by, fd, mapping


@table(
    "nothing is allocated, and no hole punched",
    SERIES,
    {
        "allocate": (KEEP, 0, PAGES * P),
        "allocate what is there": (KEEP, 0, P),
        "allocate a hole": (KEEP, HOLE * P, P),
        "punch": (PUNCH, 0, P),
        "punch a hole": (PUNCH, HOLE * P, P),
        "punch past the end": (PUNCH, PAGES * P, P),
        "unaligned": (PUNCH, 1, P),
        "not keeping the size": (0, 0, P),
        "zero range": (0x10 | KEEP, 0, P),
    },
)
def test_frozen(host: Host, mode: int, offset: int, length: int) -> None:
    _, fd, mapping = preserved(host)
    expect(host.fallocate(fd, mode, offset, length), EPERM)
    expect(host.cachestat(fd, 0, 0), HOLE)
    expect([host.load(mapping, page * P) for page in range(HOLE)], [1, 2])


@table(
    "what no file can do is refused as ever",
    "fs/open.c, vfs_fallocate()",
    {
        "nothing": (KEEP, 0, 0, EINVAL),
        "negative offset": (PUNCH, -P, P, EINVAL),
        "collapse": (8 | KEEP, 0, P, EOPNOTSUPP),
        "past 2^63": (PUNCH, P, (1 << 63) - P, EFBIG),
    },
)
def test_frozen_vfs(host: Host, mode: int, offset: int, length: int, expected: Result) -> None:
    _, fd, _ = preserved(host)
    expect(host.fallocate(fd, mode, offset, length), expected)


@row("the host uses the pages that are there", SERIES)
def test_host(host: Host) -> None:
    _, fd, mapping = preserved(host)
    expect(host.store(mapping, P, 9), 0)
    expect(host.load(mapping, P), 9)
    expect(host.load(ok(host.mmap(fd, P, RW, SHARED, P)), 0), 9)


@table(
    "a hole is a SIGBUS, however it is touched",
    SERIES,
    {"load": lambda host, mapping: host.load(mapping, HOLE * P), "store": lambda host, mapping: host.store(mapping, HOLE * P, 5)},
)
def test_host_hole(host: Host, touch: object) -> None:
    _, fd, mapping = preserved(host)
    assert callable(touch)
    expect(touch(host, mapping), sigbus(HOLE * P))
    expect(host.cachestat(fd, 0, 0), HOLE)


@table(
    "who gets at pages through a mapping gets those that are there, and no hole",
    SERIES,
    {
        "process_vm_readv": lambda host, mapping, page: host.process_vm_readv(mapping, page * P, 1),
        "write_pipe": lambda host, mapping, page: host.write_pipe(mapping, page * P, 1),
    },
)
def test_users(host: Host, user: object) -> None:
    _, _, mapping = preserved(host)
    assert callable(user)
    expect(user(host, mapping, THERE), b"\x02")
    expect(user(host, mapping, HOLE), EFAULT)


@row("holes are not populated ahead, and pages that are there can be", SERIES)
def test_populate(host: Host) -> None:
    _, fd, mapping = preserved(host)
    expect(host.madvise(mapping, 0, HOLE * P, Advice.POPULATE_WRITE), 0)
    expect(host.madvise(mapping, 0, PAGES * P, Advice.POPULATE_READ), EFAULT)
    expect(host.cachestat(fd, 0, 0), HOLE)


def in_guest(host: Host) -> tuple[Result, Result, Result, Result, Result]:
    """A VM, a session that has its file of four pages, the file, the vCPU, whose guest has stored 1 and 2 into the first two."""
    by = session(host)
    owner, fd = bindable(host, PAGES, MMAP | INIT_SHARED)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    vcpu = ok(host.create_vcpu(owner))
    for page in range(HOLE):
        ok(host.guest_store(vcpu, page * P, page + 1))
    expect(host.preserve(by, fd, 7), 0)
    return owner, by, fd, vcpu, ok(host.mmap(fd, PAGES * P, RW, SHARED, 0))


@row("a guest keeps what it has, and goes on with it", SERIES)
def test_guest(host: Host) -> None:
    owner, _, _, vcpu, mapping = in_guest(host)
    has_entries(host, owner, HOLE)
    expect(host.guest_store(vcpu, P, 9), 0)
    expect(host.guest_load(vcpu, 0), 1)
    expect(host.load(mapping, P), 9)


@row("KVM_RUN fails where a guest touches a hole, and succeeds once the session is closed", SERIES)
def test_guest_hole(host: Host) -> None:
    _, by, fd, vcpu, _ = in_guest(host)
    expect(host.guest_load(vcpu, HOLE * P), EPERM)
    expect(host.guest_store(vcpu, HOLE * P, 5), EPERM)
    expect(host.cachestat(fd, 0, 0), HOLE)
    ok(host.close(by))
    expect(host.guest_store(vcpu, HOLE * P, 5), 0)
    expect(host.cachestat(fd, 0, 0), HOLE + 1)


@row("a guest takes again what is there", SERIES)
def test_guest_again(host: Host) -> None:
    owner, _, fd, vcpu, _ = in_guest(host)
    ok(host.set_user_memory_region2(owner, 0, 0, 0, 0, None, -1, 0))
    has_entries(host, owner, 0)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    expect(host.guest_load(vcpu, P), 2)


@row("a session that closes gives its files back", ORCHESTRATOR)
def test_cancelled(host: Host) -> None:
    by, fd, mapping = preserved(host)
    ok(host.close(by))
    expect(host.load(mapping, HOLE * P), 0)
    expect(host.fallocate(fd, PUNCH, 0, P), 0)
    expect(host.fallocate(fd, KEEP, 0, PAGES * P), 0)
    expect(host.cachestat(fd, 0, 0), PAGES)
    expect([host.load(mapping, page * P) for page in range(HOLE)], [0, 2])


@row("a file can be preserved again after that, by another session and by any token", ORCHESTRATOR)
def test_again(host: Host) -> None:
    by, fd, _ = preserved(host)
    ok(host.close(by))
    other = session(host)
    expect(host.preserve(other, fd, 7), 0)
    expect(host.fallocate(fd, KEEP, 0, P), EPERM)


@row("a session stays until its last descriptor is closed, and with it what it has", ORCHESTRATOR)
def test_session_descriptors(host: Host) -> None:
    by, fd, _ = preserved(host)
    other = ok(host.dup(by))
    ok(host.close(by))
    expect(host.fallocate(fd, KEEP, 0, P), EPERM)
    ok(host.close(other))
    expect(host.fallocate(fd, KEEP, 0, P), 0)


@row("a session keeps a file that everybody else has closed", ORCHESTRATOR)
def test_closed_file(host: Host) -> None:
    by, fd, mapping = preserved(host)
    ok(host.munmap(mapping))
    ok(host.close(fd))
    expect(host.preserve(by, fd, 8), EBADF)
    expect(host.close(by), 0)


@row("a file is preserved for all its descriptors and processes", SERIES)
def test_others(host: Host) -> None:
    by, fd, mapping = preserved(host)
    other = ok(host.dup(fd))
    expect(host.fallocate(other, PUNCH, 0, P), EPERM)
    expect(host.in_child("fallocate", fd, KEEP, 0, P), EPERM)
    expect(host.in_child("load", mapping, HOLE * P), sigbus(HOLE * P))
    expect(host.in_child("close", by), 0)
    expect(host.fallocate(fd, KEEP, 0, P), EPERM)


@row("another file of the VM is not preserved with it", SERIES)
def test_other_file(host: Host) -> None:
    by = session(host)
    owner, fd = gmem(host, 1, MMAP | INIT_SHARED)
    other = ok(host.create_guest_memfd(owner, P, MMAP | INIT_SHARED))
    expect(host.preserve(by, fd, 0), 0)
    expect(host.fallocate(other, KEEP, 0, P), 0)
    expect(host.preserve(by, other, 1), 0)
    expect(host.fallocate(other, PUNCH, 0, P), EPERM)


@row("a file is preserved once", ORCHESTRATOR)
def test_twice(host: Host) -> None:
    by, fd, _ = preserved(host)
    expect(host.preserve(by, fd, 8), EBUSY)
    other = session(host)
    expect(host.preserve(other, fd, 8), EBUSY)
    ok(host.close(other))
    expect(host.fallocate(fd, KEEP, 0, P), EPERM)


@row("a session has a token once, whatever it is for, and another session may have it", ORCHESTRATOR)
def test_token(host: Host) -> None:
    by, _, _ = preserved(host)
    _, other = gmem(host, 1, MMAP | INIT_SHARED)
    expect(host.preserve(by, other, 7), EEXIST)
    expect(host.preserve(by, -1, 7), EEXIST)
    expect(host.fallocate(other, KEEP, 0, P), 0)
    expect(host.preserve(session(host), other, 7), 0)


@table(
    "only a file that is shared for good can be preserved; one that cannot is as it was",
    f"{SERIES}, kvm_gmem_luo_can_preserve()",
    {"plain": (0, 0), "MMAP": (MMAP, 0), "private memory": (MMAP | INIT_SHARED, SW_PROTECTED)},
)
def test_private(host: Host, flags: int, kind: int) -> None:
    by = session(host)
    if kind and flags not in host.facts.converts:
        raise Missing(f"files of VMs with private memory, with flags {flags}")
    fd = ok(host.create_guest_memfd(ok(host.create_vm(kind)), P, flags)) if kind else gmem(host, 1, flags)[1]
    expect(host.preserve(by, fd, 0), ENOENT)
    expect(host.fallocate(fd, KEEP, 0, P), 0)


@table(
    "the next kernel would not be told of other flags",
    SERIES,
    {"write": "writes", "no direct map": "no_direct_map"},
)
def test_other_flags(host: Host, fact: str) -> None:
    by = session(host)
    flag = getattr(host.facts, fact)
    if not flag:
        raise Missing("guest_memfd with a flag of another series")
    _, fd = gmem(host, 1, MMAP | INIT_SHARED)
    owner = ok(host.create_vm())
    other = ok(host.create_guest_memfd(owner, P, MMAP | INIT_SHARED | flag))
    expect(host.preserve(by, other, 0), EOPNOTSUPP)
    expect(host.preserve(by, fd, 0), 0)


@row("an empty file is preserved as any other", SERIES)
def test_empty(host: Host) -> None:
    by = session(host)
    _, fd = gmem(host, 1, MMAP | INIT_SHARED)
    expect(host.preserve(by, fd, (1 << 64) - 1), 0)
    expect(host.load(ok(host.mmap(fd, P, RW, SHARED, 0)), 8), sigbus(8))


@row("what is no session preserves nothing, and no descriptor is nothing to preserve", ORCHESTRATOR)
def test_descriptors(host: Host) -> None:
    by = session(host)
    _, fd = gmem(host, 1, MMAP | INIT_SHARED)
    expect(host.preserve(fd, fd, 0), ENOTTY)
    expect(host.preserve(-1, fd, 0), EBADF)
    expect(host.preserve(by, -1, 0), EBADF)
    ok(host.close(by))
    expect(host.preserve(by, fd, 0), EBADF)
