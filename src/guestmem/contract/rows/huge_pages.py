# SPDX-License-Identifier: Apache-2.0
"""Files of huge pages, as a series has them that is not merged.

Memory comes and goes as huge pages.  Pages of these are converted singly: a huge page of which a part is shared is split,
and whole again when all of it is private.  The host maps single pages only.
"""

from __future__ import annotations

from collections.abc import Callable

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Host, Missing
from guestmem.contract.results import EAGAIN, EINVAL, Errno, Result, Stat
from guestmem.contract.rows import INIT_SHARED, KEEP, MMAP, PUNCH, RW, SHARED, SW_PROTECTED, bind, expect, ok, row, sigbus, table
from guestmem.linux.facts import HUGE_SHIFT
from guestmem.linux.uapi import KVM_MEMORY_ATTRIBUTE_PRIVATE as PRIVATE

P = PAGE_SIZE
SERIES = citations.HUGETLB
SELFTEST = f"{SERIES}, selftests guest_memfd_test.c"
SOME = 3  # a page in a huge page that is neither the first nor the last


def capable(host: Host) -> Result:
    """A VM whose files of huge pages can be converted."""
    if not host.facts.huge or MMAP not in host.facts.converts:
        raise Missing("guest_memfd of huge pages that can be converted, and free huge pages (vm.nr_hugepages)")
    return ok(host.create_vm(SW_PROTECTED))


def size_of(host: Host) -> int:
    """The bytes of a huge page."""
    return P << host.facts.huge_order


def huge(host: Host, pages: int = 2) -> tuple[Result, Result, Result, int]:
    """A VM, a file of a few huge pages, a mapping of it, and the bytes of a huge page."""
    owner, size = capable(host), size_of(host)
    fd = ok(host.create_guest_memfd(owner, pages * size, MMAP | host.facts.huge))
    return owner, fd, ok(host.mmap(fd, pages * size, RW, SHARED, 0)), size


def share(host: Host, fd: Result, offset: int, length: int = P) -> None:
    """Make pages shared."""
    expect(host.set_memory_attributes(fd, offset, length, 0, 0), 0)


def unshare(host: Host, fd: Result, offset: int, length: int = P) -> None:
    """Make pages private."""
    expect(host.set_memory_attributes(fd, offset, length, PRIVATE, 0), 0)


@table(
    "a file has whole huge pages",
    SELFTEST,
    {
        "nothing": (0, 0),
        "a page": (0, P),
        "a page less": (1, -P),
        "a page more": (1, P),
        "a byte more": (1, 1),
        "negative": (-1, 0),
    },
)
def test_size(host: Host, pages: int, more: int) -> None:
    owner = capable(host)
    expect(host.create_guest_memfd(owner, pages * size_of(host) + more, MMAP | host.facts.huge), EINVAL)


@table(
    "flags name a size that there is, and no memory that begins shared",
    SERIES,
    {
        "INIT_SHARED": lambda flags: flags | INIT_SHARED,
        "8 KiB": lambda flags: flags % (1 << HUGE_SHIFT) | 13 << HUGE_SHIFT,
        "2^63": lambda flags: flags % (1 << HUGE_SHIFT) | 63 << HUGE_SHIFT,
        "size alone": lambda flags: flags >> HUGE_SHIFT << HUGE_SHIFT,
    },
)
def test_flags(host: Host, wrong: Callable[[int], int]) -> None:
    owner = capable(host)
    expect(host.create_guest_memfd(owner, size_of(host), MMAP | wrong(host.facts.huge)), EINVAL)


@row("st_blksize is a huge page", f"{SELFTEST}, test_file_size()")
def test_fstat(host: Host) -> None:
    _, fd, _, size = huge(host)
    expect(host.fstat(fd), Stat(2 * size, 0o100600, size, 0))


@table(
    "what is allocated or punched is whole huge pages",
    f"{SELFTEST}, test_fallocate(), test_invalid_punch_hole()",
    {
        f"{name}, {what}": (mode, where)
        for name, mode in (("allocate", KEEP), ("punch", PUNCH))
        for what, where in {
            "a page": lambda size: (0, P),
            "from a page on": lambda size: (P, size),
            "a page less": lambda size: (0, size - P),
            "a page more": lambda size: (0, size + P),
            "a byte": lambda size: (0, 1),
            "from a byte on": lambda size: (1, size),
            "around": lambda size: (P, P),
        }.items()
    },
)
def test_unaligned(host: Host, mode: int, where: Callable[[int], tuple[int, int]]) -> None:
    _, fd, _, size = huge(host)
    ok(host.fallocate(fd, KEEP, 0, size))
    expect(host.fallocate(fd, mode, *where(size)), EINVAL)
    expect(host.cachestat(fd, 0, 0), size // P)


@row("what is allocated is there as a whole", SELFTEST)
def test_allocate(host: Host) -> None:
    _, fd, _, size = huge(host)
    expect(host.fallocate(fd, KEEP, size, size), 0)
    expect([host.cachestat(fd, 0, size), host.cachestat(fd, size, size)], [0, size // P])
    expect(host.fallocate(fd, KEEP, 0, 2 * size), 0)
    expect(host.cachestat(fd, 0, 0), 2 * size // P)
    expect(host.fallocate(fd, KEEP, 2 * size, size), EINVAL)


@row("a hole takes whole huge pages, and no others", SELFTEST)
def test_punch_hole(host: Host) -> None:
    _, fd, _, size = huge(host)
    ok(host.fallocate(fd, KEEP, 0, 2 * size))
    expect(host.fallocate(fd, PUNCH, 0, size), 0)
    expect([host.cachestat(fd, 0, size), host.cachestat(fd, size, size)], [0, size // P])
    expect(host.fallocate(fd, PUNCH, 2 * size, size), 0)
    expect(host.cachestat(fd, 0, 0), size // P)


@row("the memory begins private, and touching it allocates nothing", SERIES)
def test_private(host: Host) -> None:
    _, fd, mapping, size = huge(host)
    expect(host.load(mapping, 0), sigbus(0))
    expect(host.store(mapping, size + P, 5), sigbus(size + P))
    expect(host.cachestat(fd, 0, 0), 0)


@row("converting a hole allocates nothing; a page that is touched brings its huge page", SERIES)
def test_share_hole(host: Host) -> None:
    _, fd, mapping, size = huge(host)
    share(host, fd, SOME * P)
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.load(mapping, SOME * P), 0)
    expect([host.cachestat(fd, 0, size), host.cachestat(fd, size, size)], [size // P, 0])
    for private in (0, (SOME - 1) * P, (SOME + 1) * P, size):
        expect(host.load(mapping, private), sigbus(private))


@row("what is allocated around a shared page is for the host to use where it is shared", SERIES)
def test_share_allocated(host: Host) -> None:
    _, fd, mapping, size = huge(host)
    share(host, fd, SOME * P)
    ok(host.fallocate(fd, KEEP, 0, size))
    expect(host.cachestat(fd, 0, 0), size // P)
    expect(host.store(mapping, SOME * P, 5), 0)
    expect(host.load(mapping, SOME * P), 5)
    expect(host.load(mapping, 0), sigbus(0))


@table(
    "conversions are of pages, at any offset",
    SERIES,
    {
        "first": lambda size: (0, P),
        "some": lambda size: (SOME * P, 2 * P),
        "last": lambda size: (size - P, P),
        "all": lambda size: (0, size),
        "around the border": lambda size: (size - P, 2 * P),
    },
)
def test_share(host: Host, where: Callable[[int], tuple[int, int]]) -> None:
    _, fd, mapping, size = huge(host)
    ok(host.fallocate(fd, KEEP, 0, 2 * size))
    start, length = where(size)
    share(host, fd, start, length)
    for at in (start, start + length - P):
        expect(host.load(mapping, at), 0)
    for at in {start - P, start + length} & set(range(0, 2 * size, P)):
        expect(host.load(mapping, at), sigbus(at))
    expect(host.cachestat(fd, 0, 0), 2 * size // P)


@row("a range that is no pages is not converted", SERIES)
def test_share_unaligned(host: Host) -> None:
    _, fd, _, size = huge(host)
    expect(host.set_memory_attributes(fd, 1, P, 0, 0), EINVAL)
    expect(host.set_memory_attributes(fd, 0, size + 1, 0, 0), EINVAL)
    expect(host.set_memory_attributes(fd, size, 2 * size, 0, 0), EINVAL)


def in_guest(host: Host) -> tuple[Result, Result, Result, Result, int]:
    """What ``huge`` makes, with a vCPU whose guest has stored 1 into the first page and 2 into another."""
    owner, fd, mapping, size = huge(host)
    ok(bind(host, owner, fd, 0, 0, 2 * size // P))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.guest_store(vcpu, 0, 1))
    ok(host.guest_store(vcpu, SOME * P, 2))
    return owner, fd, mapping, vcpu, size


def has(host: Host, vm: Result, small: int, large: int) -> None:
    """So many entries of a VM's stage 2 are for pages, and for huge pages."""
    expect([host.pages_4k(vm), host.pages_huge(vm)], [small, large])


@row("a guest has a huge page as one entry", f"{SERIES}, kvm_gmem_mapping_order()")
def test_guest(host: Host) -> None:
    owner, fd, _, vcpu, size = in_guest(host)
    has(host, owner, 0, 1)
    expect(host.cachestat(fd, 0, 0), size // P)
    expect([host.guest_load(vcpu, page * P) for page in (0, 1, SOME)], [1, 0, 2])
    has(host, owner, 0, 1)
    ok(host.guest_load(vcpu, size + P))
    has(host, owner, 0, 2)
    expect(host.cachestat(fd, 0, 0), 2 * size // P)


@row("a guest has a huge page of which a part is shared as pages, and the next one as before", SERIES)
def test_guest_split(host: Host) -> None:
    owner, fd, _, vcpu, size = in_guest(host)
    ok(host.guest_load(vcpu, size))
    share(host, fd, SOME * P)
    expect([host.guest_load(vcpu, page * P) for page in (0, SOME)], [1, 2])
    expect(host.guest_load(vcpu, size), 0)
    expect(host.pages_huge(owner), 1)


@row("a guest that has nothing takes pages one by one where a part is shared", SERIES)
def test_guest_pages(host: Host) -> None:
    owner, fd, _, size = huge(host)
    share(host, fd, SOME * P)
    ok(bind(host, owner, fd, 0, 0, 2 * size // P))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.guest_load(vcpu, 0))
    has(host, owner, 1, 0)
    ok(host.guest_load(vcpu, SOME * P))
    has(host, owner, 2, 0)
    ok(host.guest_load(vcpu, size))
    has(host, owner, 2, 1)


@row("what is in a huge page stays when it is split, and when it is whole again", SERIES)
def test_contents(host: Host) -> None:
    _, fd, mapping, vcpu, _ = in_guest(host)
    share(host, fd, SOME * P)
    expect(host.load(mapping, SOME * P), 2)
    expect(host.guest_load(vcpu, 0), 1)
    ok(host.store(mapping, SOME * P, 9))
    unshare(host, fd, SOME * P)
    expect([host.guest_load(vcpu, page * P) for page in (0, 1, SOME)], [1, 0, 9])
    expect(host.load(mapping, SOME * P), sigbus(SOME * P))


@row("a huge page is whole again when the last of its pages is private, and not before", SERIES)
def test_merged(host: Host) -> None:
    owner, fd, _, vcpu, _ = in_guest(host)
    share(host, fd, SOME * P, 2 * P)
    unshare(host, fd, SOME * P)
    ok(host.guest_load(vcpu, 0))
    expect(host.pages_huge(owner), 0)
    unshare(host, fd, (SOME + 1) * P)
    ok(host.set_user_memory_region2(owner, 0, 0, 0, 0, None, -1, 0))
    ok(bind(host, owner, fd, 0, 0, 2 * size_of(host) // P))
    expect(host.guest_load(vcpu, 0), 1)
    has(host, owner, 0, 1)


@row("a guest finds zeros after a hole, and the huge page is there again", SERIES)
def test_guest_punch(host: Host) -> None:
    owner, fd, _, vcpu, size = in_guest(host)
    ok(host.fallocate(fd, PUNCH, 0, size))
    has(host, owner, 0, 0)
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.guest_load(vcpu, SOME * P), 0)
    expect(host.cachestat(fd, 0, 0), size // P)


@row("a page is shared over a hole", SERIES)
def test_shared_over_hole(host: Host) -> None:
    _, fd, mapping, size = huge(host)
    share(host, fd, SOME * P)
    ok(host.store(mapping, SOME * P, 5))
    ok(host.fallocate(fd, PUNCH, 0, size))
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.load(mapping, SOME * P), 0)
    expect(host.load(mapping, 0), sigbus(0))


def pinned(host: Host, page: int = SOME) -> tuple[Result, Result, Result, int]:
    """A file of two huge pages, all shared, of which somebody holds a page, its mapping, and the bytes of a huge page."""
    _, fd, mapping, size = huge(host)
    share(host, fd, 0, 2 * size)
    for at in (0, page * P, size):
        ok(host.store(mapping, at, 5))
    return fd, mapping, ok(host.vmsplice(mapping, page * P, P)), size


@row("a page that somebody holds is not made private, and keeps its huge page split", SERIES)
def test_pinned(host: Host) -> None:
    fd, mapping, pipe, size = pinned(host)
    expect(host.set_memory_attributes(fd, SOME * P, P, PRIVATE, 0), Errno(EAGAIN.code, SOME * P))
    expect(host.set_memory_attributes(fd, 0, size, PRIVATE, 0), Errno(EAGAIN.code, SOME * P))
    expect(host.load(mapping, 0), 5)
    unshare(host, fd, 0, SOME * P)
    expect(host.load(mapping, 0), sigbus(0))
    expect(host.load(mapping, SOME * P), 5)
    ok(host.close(pipe))
    unshare(host, fd, 0, size)


@row("a conversion goes on from huge page to huge page, and what it has done before it fails stays done", SERIES)
def test_pinned_later(host: Host) -> None:
    _, fd, mapping, size = huge(host)
    share(host, fd, 0, 2 * size)
    ok(host.store(mapping, 0, 5))
    ok(host.vmsplice(mapping, size + SOME * P, P))
    expect(host.set_memory_attributes(fd, 0, 2 * size, PRIVATE, 0), Errno(EAGAIN.code, size + SOME * P))
    expect(host.load(mapping, 0), sigbus(0))
    expect(host.load(mapping, size), 0)


@row("no hole is punched where somebody holds a page, and one beside it is", SERIES)
def test_pinned_punch(host: Host) -> None:
    fd, mapping, pipe, size = pinned(host)
    expect(host.fallocate(fd, PUNCH, 0, size), EAGAIN)
    expect(host.fallocate(fd, PUNCH, 0, 2 * size), EAGAIN)
    expect(host.cachestat(fd, 0, 0), 2 * size // P)
    expect([host.load(mapping, at) for at in (0, SOME * P, size)], [5, 5, 5])
    expect(host.fallocate(fd, PUNCH, size, size), 0)
    expect(host.cachestat(fd, 0, 0), size // P)
    ok(host.close(pipe))
    expect(host.fallocate(fd, PUNCH, 0, size), 0)
    expect(host.load(mapping, SOME * P), 0)


@row("who holds a page keeps it when the file is gone", SERIES)
def test_pinned_closed(host: Host) -> None:
    fd, mapping, pipe, _ = pinned(host)
    ok(host.munmap(mapping))
    ok(host.close(fd))
    expect(host.read_spliced(pipe, 4), b"\x05\0\0\0")


@row("another file of the VM has pages", SERIES)
def test_other_file(host: Host) -> None:
    owner, fd, _, size = huge(host)
    other = ok(host.create_guest_memfd(owner, 3 * P, MMAP))
    expect(host.fallocate(other, KEEP, P, P), 0)
    expect(host.cachestat(other, 0, 0), 1)
    expect(host.fallocate(fd, KEEP, P, P), EINVAL)
    expect(host.cachestat(fd, 0, size), 0)
