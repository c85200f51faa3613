# SPDX-License-Identifier: Apache-2.0
"""Files that the host's direct map does not have, as a series has them that is not merged.

Who has a mapping, and copies of the kernel through it, get at the memory; what takes pages by GUP is refused, as for
secret memory.  A page that is touched may split a block of the direct map for good, so few rows touch any, and one each.
"""

from __future__ import annotations

from collections.abc import Callable

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Advice, Host, Missing
from guestmem.contract.results import EFAULT, EINVAL, EIO, ENODEV, ENOMEM, Result
from guestmem.contract.rows import INIT_SHARED, KEEP, MMAP, PUNCH, RW, SHARED, bind, expect, gmem, ok, row, sigbus, table
from guestmem.contract.rows.gup import PINS, USERS

P = PAGE_SIZE
SERIES = citations.NO_DIRECT_MAP
GUP = f"{SERIES}; mm/gup.c, check_vma_flags(), gup_fast_folio_allowed()"
MAP_POPULATE = 0x8000
COPIES = ("write_pipe", "read_pipe")
TAKERS: dict[str, Callable[[Host, Result], Result]] = {
    **{name: user for name, (user, _) in USERS.items() if name not in COPIES},
    "vmsplice": lambda host, mapping: PINS["vmsplice"](host, mapping, P),
    "io_uring": lambda host, mapping: PINS["io_uring"](host, mapping, P),
}
THERE = ("process_vm_readv", *PINS)


def hidden(host: Host, flags: int = MMAP | INIT_SHARED) -> tuple[Result, Result]:
    """A VM, and a file of one page that the direct map does not have."""
    if not host.facts.no_direct_map:
        raise Missing("guest_memfd with a flag for memory that is not in the direct map")
    owner, _ = gmem(host, 1)
    return owner, ok(host.create_guest_memfd(owner, P, flags | host.facts.no_direct_map))


def mapped(host: Host, fd: Result) -> Result:
    """A mapping of the file."""
    return ok(host.mmap(fd, P, RW, SHARED, 0))


def refused(name: str) -> Result:
    """What a user of GUP gets."""
    return EIO if name == "proc_mem" else EFAULT


@table("what takes pages by GUP is refused, and brings none in", GUP, {name: name for name in TAKERS})
def test_gup_refused(host: Host, name: str) -> None:
    _, fd = hidden(host)
    expect(TAKERS[name](host, mapped(host, fd)), refused(name))
    expect(host.cachestat(fd, 0, 0), 0)


@table("pages that are there are refused as well", GUP, {name: name for name in THERE})
def test_gup_refused_allocated(host: Host, name: str) -> None:
    _, fd = hidden(host)
    ok(host.fallocate(fd, KEEP, 0, P))
    expect(TAKERS[name](host, mapped(host, fd)), refused(name))


@row("it is there for who has the mapping and for copies by address, and for nobody by GUP", GUP)
def test_memory(host: Host) -> None:
    _, fd = hidden(host)
    mapping = mapped(host, fd)
    expect(host.load(mapping, P - 1), 0)
    expect(host.store(mapping, 0, 5), 0)
    expect(host.cachestat(fd, 0, 0), 1)
    expect(host.write_pipe(mapping, 0, 4), b"\x05\0\0\0")
    expect(host.read_pipe(mapping, 1, b"abc"), 3)
    expect(host.load(mapping, 3), ord("c"))
    expect(host.in_child("load", mapping, 0), 5)
    for name, user in TAKERS.items():
        expect(user(host, mapping), refused(name))
    expect(host.load(mapping, 0), 5)


@table(
    "it is not populated ahead", f"{GUP}, faultin_page_range()", {"read": Advice.POPULATE_READ, "write": Advice.POPULATE_WRITE}
)
def test_populate(host: Host, advice: int) -> None:
    _, fd = hidden(host)
    mapping = ok(host.mmap(fd, P, RW, SHARED | MAP_POPULATE, 0))
    expect(host.madvise(mapping, 0, P, advice), EINVAL)
    expect(host.mlock(mapping, 0, P), ENOMEM)
    expect(host.cachestat(fd, 0, 0), 0)


@row("a guest has it as it has any other", SERIES)
def test_guest(host: Host) -> None:
    owner, fd = hidden(host)
    ok(bind(host, owner, fd, 0, 0, 1))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.guest_load(vcpu, 0), 0)
    expect(host.guest_store(vcpu, 0, 7), 0)
    expect(host.load(mapped(host, fd), 0), 7)


@row("a hole takes it away, and it comes back as zeros", SERIES)
def test_punch_hole(host: Host) -> None:
    _, fd = hidden(host)
    mapping = mapped(host, fd)
    ok(host.store(mapping, 0, 5))
    ok(host.fallocate(fd, PUNCH, 0, P))
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.load(mapping, 0), 0)


@table(
    "the flag changes nothing about what may be mapped and shared",
    SERIES,
    {"alone": (0, ENODEV), "INIT_SHARED": (INIT_SHARED, ENODEV), "MMAP": (MMAP, None)},
)
def test_flag(host: Host, flags: int, refused: Result | None) -> None:
    _, fd = hidden(host, flags)
    mapping = host.mmap(fd, P, RW, SHARED, 0)
    if refused is not None:
        expect(mapping, refused)
    else:
        expect(host.load(mapping, 8), sigbus(8))
    expect(host.fallocate(fd, KEEP, 0, P), 0)
    expect(host.cachestat(fd, 0, 0), 1)


@row("another file of the VM is there for everybody", GUP)
def test_other_file(host: Host) -> None:
    owner, _ = hidden(host)
    fd = ok(host.create_guest_memfd(owner, P, MMAP | INIT_SHARED))
    expect(host.process_vm_readv(mapped(host, fd), 0, 4), bytes(4))
