# SPDX-License-Identifier: Apache-2.0
"""Converting pages in place between the guest's alone and shared with the host (KVM_SET_MEMORY_ATTRIBUTES2)."""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Advice, Host, Missing
from guestmem.contract.results import EAGAIN, EBADF, EFAULT, EINVAL, ENOMEM, ENOTTY, Errno, Result
from guestmem.contract.rows import INIT_SHARED, KEEP, MMAP, PUNCH, RW, SHARED, bind, expect, gmem, ok, row, sigbus, table
from guestmem.linux.uapi import KVM_MEMORY_ATTRIBUTE_PRIVATE as PRIVATE

P = PAGE_SIZE
SERIES = citations.IN_PLACE
PAGES = 4


def convertible(host: Host, flags: int = MMAP | INIT_SHARED) -> tuple[Result, Result, Result]:
    """A VM, a file of four pages that can be converted, and a mapping of it; shared pages hold 1, 2, 3, 4."""
    owner, fd = gmem(host, PAGES, flags)
    if not host.facts.converts:
        raise Missing("in-place conversion: files of guest memory do not know KVM_SET_MEMORY_ATTRIBUTES2")
    mapping = ok(host.mmap(fd, PAGES * P, RW, SHARED, 0))
    for page in range(PAGES if flags & INIT_SHARED else 0):
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
        "nothing": (0, 0, PRIVATE, 0),
        "unaligned offset": (1, P, PRIVATE, 0),
        "unaligned size": (0, P + 1, PRIVATE, 0),
        "past the end": (3 * P, 2 * P, PRIVATE, 0),
        "wrap": (P, (1 << 64) - P, PRIVATE, 0),
        "attribute 1": (0, P, 1, 0),
        "attribute 2^63": (0, P, 1 << 63, 0),
        "flags": (0, P, PRIVATE, 1),
    },
)
def test_arguments(host: Host, offset: int, size: int, attributes: int, flags: int) -> None:
    _, fd, mapping = convertible(host)
    expect(host.set_memory_attributes(fd, offset, size, attributes, flags), EINVAL)
    seen(host, mapping, set())


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
    expect(host.pages_4k(owner), PAGES - 2)
    expect(host.guest_store(vcpu, P, 7), 0)
    expect(host.guest_load(vcpu, P), 7)
    expect(host.pages_4k(owner), PAGES - 1)


@row("what is so already is not touched", SERIES)
def test_nothing_to_do(host: Host) -> None:
    owner, fd, mapping, _ = in_guest(host)
    expect(host.set_memory_attributes(fd, 0, PAGES * P, 0, 0), 0)
    expect(host.pages_4k(owner), PAGES)
    seen(host, mapping, set())


@row("only a file of guest memory can be converted in place", SERIES)
def test_other_descriptors(host: Host) -> None:
    owner, fd, _ = convertible(host)
    expect(host.set_memory_attributes(owner, 0, P, PRIVATE, 0), ENOTTY)
    ok(host.close(fd))
    expect(host.set_memory_attributes(fd, 0, P, PRIVATE, 0), EBADF)
