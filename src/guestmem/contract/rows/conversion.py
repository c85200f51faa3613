# SPDX-License-Identifier: Apache-2.0
"""Converting pages in place between the guest's alone and shared with the host (KVM_SET_MEMORY_ATTRIBUTES2).

A failure is expected with error_offset if the kernel sets it: only where a conversion was tried and did not come about.
"""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Advice, Host, Missing
from guestmem.contract.results import EAGAIN, EBADF, EFAULT, EINVAL, ENOMEM, ENOTTY, Errno, Result
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
from guestmem.linux.uapi import KVM_MEMORY_ATTRIBUTE_PRIVATE as PRIVATE

P = PAGE_SIZE
SERIES = citations.IN_PLACE
PAGES = 4


def convertible(host: Host, flags: int = MMAP | INIT_SHARED, filled: bool = True) -> tuple[Result, Result, Result]:
    """A VM, a file of four pages that can be converted, and a mapping of it; shared pages hold 1, 2, 3, 4, or nothing."""
    if flags not in host.facts.converts:
        raise Missing("in-place conversion: files of VMs with private memory that know KVM_SET_MEMORY_ATTRIBUTES2")
    owner = ok(host.create_vm(SW_PROTECTED))
    fd = ok(host.create_guest_memfd(owner, PAGES * P, flags))
    mapping = ok(host.mmap(fd, PAGES * P, RW, SHARED, 0))
    for page in range(PAGES if filled and flags & INIT_SHARED else 0):
        ok(host.store(mapping, page * P, page + 1))
    return owner, fd, mapping


def seen(host: Host, mapping: Result, private: set[int]) -> None:
    """The host reaches the shared pages, and has a SIGBUS for the private ones."""
    for page in range(PAGES):
        expect(host.load(mapping, page * P), sigbus(page * P) if page in private else page + 1)


@table(
    "a conversion is of whole pages inside the file, to what there is",
    SERIES,
    {
        "nothing": (0, 0, PRIVATE, 0, None),
        "nothing to be shared": (0, 0, 0, 0, None),
        "unaligned offset": (1, P, PRIVATE, 0, None),
        "unaligned size": (0, P + 1, PRIVATE, 0, None),
        "at the end": (4 * P, P, PRIVATE, 0, None),
        "past the end": (3 * P, 2 * P, PRIVATE, 0, None),
        "past the end, to be shared": (3 * P, 2 * P, 0, 0, None),
        "wrap": (P, (1 << 64) - P, PRIVATE, 0, None),
        "attribute 1": (0, P, 1, 0, None),
        "attribute 1 beside": (0, P, PRIVATE | 1, 0, None),
        "attribute 2^63": (0, P, 1 << 63, 0, None),
        "flag 1": (0, P, PRIVATE, 1, None),
        "flag 2^63": (0, P, PRIVATE, 1 << 63, None),
        "first reserved word": (0, P, PRIVATE, 0, 0),
        "last reserved word": (0, P, PRIVATE, 0, 10),
    },
)
def test_arguments(host: Host, offset: int, size: int, attributes: int, flags: int, reserved: int | None) -> None:
    _, fd, mapping = convertible(host)
    expect(host.set_memory_attributes(fd, offset, size, attributes, flags, reserved), EINVAL)
    seen(host, mapping, set())


@table("a VM whose memory cannot be private has nothing to convert", SERIES, {"private": PRIVATE, "shared": 0})
def test_default_vm(host: Host, attributes: int) -> None:
    convertible(host)
    _, fd = gmem(host, 1, MMAP | INIT_SHARED)
    expect(host.set_memory_attributes(fd, 0, P, attributes, 0), EINVAL)


@table("what is made private, the host cannot reach", SERIES, {"a page": (1, 2), "the start": (0, 3), "all": (0, 4)})
def test_to_private(host: Host, start: int, end: int) -> None:
    _, fd, mapping = convertible(host)
    expect(host.set_memory_attributes(fd, start * P, (end - start) * P, PRIVATE, 0), 0)
    seen(host, mapping, set(range(start, end)))
    expect(host.cachestat(fd, 0, 0), PAGES)


@row("what is made shared again, the host can reach", SERIES)
def test_to_shared(host: Host) -> None:
    _, fd, mapping = convertible(host)
    ok(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0))
    expect(host.set_memory_attributes(fd, 2 * P, P, 0, 0), 0)
    expect(host.load(mapping, P), sigbus(P))
    expect(host.store(mapping, 2 * P, 9), 0)
    expect(host.load(mapping, 2 * P), 9)


@row("a file begins private without INIT_SHARED, and its holes can be made shared", SERIES)
def test_hole_to_shared(host: Host) -> None:
    _, fd, mapping = convertible(host, MMAP)
    expect(host.load(mapping, P), sigbus(P))
    expect(host.set_memory_attributes(fd, P, P, 0, 0), 0)
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.load(mapping, P), 0)
    expect(host.load(mapping, 0), sigbus(0))


@row("a page stays what it is over a hole", SERIES)
def test_punch_hole(host: Host) -> None:
    _, fd, mapping = convertible(host)
    ok(host.set_memory_attributes(fd, P, P, PRIVATE, 0))
    ok(host.fallocate(fd, PUNCH, 0, PAGES * P))
    ok(host.fallocate(fd, KEEP, 0, PAGES * P))
    expect(host.load(mapping, 0), 0)
    expect(host.load(mapping, P), sigbus(P))


@row("a page that somebody holds is not made private: all or nothing, and the answer says where", SERIES)
def test_pinned(host: Host) -> None:
    _, fd, mapping = convertible(host)
    ring = ok(host.io_uring_register(mapping, 2 * P, P))
    expect(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0), Errno(EAGAIN.code, 2 * P))
    seen(host, mapping, set())
    expect(host.set_memory_attributes(fd, 0, 2 * P, PRIVATE, 0), 0)
    ok(host.close(ring))
    expect(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0), 0)
    seen(host, mapping, set(range(PAGES)))


@table(
    "of pages in the range, and no others, the first that somebody holds is told",
    SERIES,
    {str(page): page for page in range(PAGES)},
)
def test_one_pinned(host: Host, page: int) -> None:
    _, fd, mapping = convertible(host)
    pipe = ok(host.vmsplice(mapping, page * P, P))
    busy = Errno(EAGAIN.code, page * P)
    expect(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0), busy)
    for other in range(PAGES):
        expect(host.set_memory_attributes(fd, other * P, P, PRIVATE, 0), busy if other == page else 0)
    seen(host, mapping, set(range(PAGES)) - {page})
    ok(host.close(pipe))
    expect(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0), 0)


@row("with two pages held, a retry comes as far as the second", SERIES)
def test_retry(host: Host) -> None:
    _, fd, mapping = convertible(host)
    pipes = [ok(host.vmsplice(mapping, page * P, P)) for page in (3, 1)]
    expect(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0), Errno(EAGAIN.code, P))
    expect(host.set_memory_attributes(fd, 2 * P, 2 * P, PRIVATE, 0), Errno(EAGAIN.code, 3 * P))
    ok(host.close(pipes[1]))
    expect(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0), Errno(EAGAIN.code, 3 * P))
    ok(host.close(pipes[0]))
    expect(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0), 0)


@row("a conversion that fails has taken the range from page tables, and nothing else", SERIES)
def test_failure_unmaps(host: Host) -> None:
    owner, fd, mapping, vcpu = in_guest(host)
    ok(host.vmsplice(mapping, 2 * P, P))
    expect(host.set_memory_attributes(fd, P, 2 * P, PRIVATE, 0), Errno(EAGAIN.code, 2 * P))
    tables: list[Result] = [host.in_page_table(mapping, page * P) for page in range(PAGES)]
    expect(tables, [1, 0, 0, 1])
    has_entries(host, owner, PAGES)
    seen(host, mapping, set())
    expect(host.guest_load(vcpu, P), 2)


@row("a conversion that fails leaves the guest what it has, in whatever order pages came", SERIES)
def test_failure_and_guest(host: Host) -> None:
    owner, fd, mapping = convertible(host, filled=False)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    vcpu = ok(host.create_vcpu(owner))
    for page in (3, 1, 2, 0):
        ok(host.guest_store(vcpu, page * P, page))
    ok(host.vmsplice(mapping, 3 * P, P))
    expect(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0), Errno(EAGAIN.code, 3 * P))
    has_entries(host, owner, PAGES)


@row("what is so already is not taken from page tables either, whoever holds it", SERIES)
def test_already_shared(host: Host) -> None:
    _, fd, mapping = convertible(host)
    ring = ok(host.io_uring_register(mapping, 0, P))
    expect(host.set_memory_attributes(fd, 0, PAGES * P, 0, 0), 0)
    tables: list[Result] = [host.in_page_table(mapping, page * P) for page in range(PAGES)]
    expect(tables, [1, 1, 1, 1])
    ok(host.close(ring))


@row("a page that is made shared may be held by anybody", SERIES)
def test_pinned_to_shared(host: Host) -> None:
    _, fd, mapping = convertible(host)
    ok(host.set_memory_attributes(fd, 0, P, PRIVATE, 0))
    ok(host.io_uring_register(mapping, P, P))
    expect(host.set_memory_attributes(fd, 0, PAGES * P, 0, 0), 0)
    seen(host, mapping, set())


@row("what was private before a conversion that fails stays so", SERIES)
def test_pinned_beside_private(host: Host) -> None:
    _, fd, mapping = convertible(host)
    ok(host.set_memory_attributes(fd, 0, P, PRIVATE, 0))
    ok(host.io_uring_register(mapping, 3 * P, P))
    expect(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0), Errno(EAGAIN.code, 3 * P))
    seen(host, mapping, {0})


@table(
    "who gets at pages through a mapping does not get at private ones",
    SERIES,
    {
        "process_vm_readv": (lambda host, mapping: host.process_vm_readv(mapping, 0, 8), EFAULT),
        "write_pipe": (lambda host, mapping: host.write_pipe(mapping, 0, 8), EFAULT),
        "io_uring": (lambda host, mapping: host.io_uring_register(mapping, 0, P), EFAULT),
        "populate": (lambda host, mapping: host.madvise(mapping, 0, P, Advice.POPULATE_READ), EFAULT),
        "mlock": (lambda host, mapping: host.mlock(mapping, 0, P), ENOMEM),
    },
)
def test_users(host: Host, user: object, expected: Result) -> None:
    _, fd, mapping = convertible(host)
    ok(host.set_memory_attributes(fd, 0, P, PRIVATE, 0))
    assert callable(user)
    expect(user(host, mapping), expected)


def in_guest(host: Host) -> tuple[Result, Result, Result, Result]:
    """What ``convertible`` makes, and the vCPU of a guest that has loaded all of it."""
    owner, fd, mapping = convertible(host)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    vcpu = ok(host.create_vcpu(owner))
    for page in range(PAGES):
        expect(host.guest_load(vcpu, page * P), page + 1)
    return owner, fd, mapping, vcpu


@row("a guest loses what is converted, keeps the rest, and takes it again", SERIES)
def test_guest(host: Host) -> None:
    owner, fd, _, vcpu = in_guest(host)
    ok(host.set_memory_attributes(fd, 0, 2 * P, PRIVATE, 0))
    has_entries(host, owner, PAGES - 2)
    expect(host.guest_store(vcpu, P, 7), 0)
    expect(host.guest_load(vcpu, P), 7)
    has_entries(host, owner, PAGES - 1)


@row("what is in a page stays through conversions", SERIES)
def test_contents(host: Host) -> None:
    _, fd, mapping, vcpu = in_guest(host)
    ok(host.set_memory_attributes(fd, 0, PAGES * P, PRIVATE, 0))
    for page in range(PAGES):
        expect(host.guest_load(vcpu, page * P), page + 1)
    ok(host.guest_store(vcpu, 2 * P, 9))
    ok(host.set_memory_attributes(fd, 0, PAGES * P, 0, 0))
    expect(host.load(mapping, 2 * P), 9)
    expect(host.load(mapping, 3 * P), 4)


@row("a file is converted for all processes, and by any that has it", f"{SERIES}, forked_accesses")
def test_child(host: Host) -> None:
    _, fd, mapping = convertible(host)
    expect(host.in_child("set_memory_attributes", fd, P, P, PRIVATE, 0), 0)
    seen(host, mapping, {1})
    expect(host.in_child("load", mapping, P), sigbus(P))
    expect(host.in_child("load", mapping, 0), 1)


@row("all mappings and descriptors of a file see the same", SERIES)
def test_other_mapping(host: Host) -> None:
    _, fd, mapping = convertible(host)
    other = ok(host.mmap(fd, P, RW, SHARED, P))
    expect(host.load(other, 0), 2)
    ok(host.set_memory_attributes(ok(host.dup(fd)), P, P, PRIVATE, 0))
    expect(host.load(other, 0), sigbus(0))
    seen(host, mapping, {1})


@row("memory of a file without MMAP is the file's as well, where files are converted instead of guest memory", SERIES)
def test_file_only(host: Host) -> None:
    convertible(host)
    owner, fd = bindable(host, 1, 0)
    ok(bind(host, owner, fd, 0, 0, 1))
    expect(host.guest_store(ok(host.create_vcpu(owner)), 0, 7), 0 if host.facts.file_only else EFAULT)
    expect(host.cachestat(fd, 0, 0), int(host.facts.file_only))


@row("what is so already is not touched", SERIES)
def test_nothing_to_do(host: Host) -> None:
    owner, fd, mapping, _ = in_guest(host)
    expect(host.set_memory_attributes(fd, 0, PAGES * P, 0, 0), 0)
    has_entries(host, owner, PAGES)
    seen(host, mapping, set())


@row("only a file of guest memory can be converted in place", SERIES)
def test_other_descriptors(host: Host) -> None:
    owner, fd, _ = convertible(host)
    expect(host.set_memory_attributes(owner, 0, P, PRIVATE, 0), ENOTTY)
    ok(host.close(fd))
    expect(host.set_memory_attributes(fd, 0, P, PRIVATE, 0), EBADF)
