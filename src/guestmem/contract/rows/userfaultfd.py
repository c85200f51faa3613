# SPDX-License-Identifier: Apache-2.0
"""userfaultfd on shared guest memory, as a series has it that is not merged: holes (missing) and pages (minor).

With UFFD_FEATURE_SIGBUS a fault that a userfaultfd would be told of is a SIGBUS, so no second thread is needed.
"""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Advice, Host, Missing
from guestmem.contract.results import EAGAIN, EEXIST, EFAULT, EINVAL, ENOENT, ENOMEM, Result
from guestmem.contract.rows import MMAP, PUNCH, RW, SHARED, bind, expect, gmem, ok, row, shared, sigbus, table
from guestmem.linux.userfaultfd import MINOR, MISSING

P = PAGE_SIZE
SERIES = citations.USERFAULTFD
FAULT = f'{SERIES}; "mm: generalize handling of userfaults in __do_fault()"'
FILL = f"{SERIES}; mm/userfaultfd.c, mfill_atomic()"
PAGES = 4


def supported(host: Host, mode: int) -> None:
    """Mappings of shared guest memory can be registered."""
    if mode & ~host.facts.userfaults:
        raise Missing(f"a userfaultfd that is told of faults in guest memory (mode {mode})")


def trapped(host: Host, mode: int, pages: int = PAGES) -> tuple[Result, Result, Result, Result]:
    """A userfaultfd, the mapping whose first pages it is told of, another mapping of the same file, and the file."""
    supported(host, mode)
    _, fd, plain = shared(host, PAGES)
    mapping = ok(host.mmap(fd, (PAGES + 1) * P, RW, SHARED, 0))
    return ok(host.userfaultfd(mapping, 0, pages * P, mode)), mapping, plain, fd


@row("a page that is there is told of (minor), and is entered as it is", FAULT)
def test_uffd_minor(host: Host) -> None:
    uffd, mapping, plain, fd = trapped(host, MINOR)
    ok(host.store(plain, P + 8, 5))
    expect(host.load(mapping, P + 8), sigbus(P + 8))
    expect(host.store(mapping, P + 8, 6), sigbus(P + 8))
    expect(host.uffdio_continue(uffd, mapping, P, P), 0)
    expect(host.load(mapping, P + 8), 5)
    expect(host.store(mapping, P + 8, 6), 0)
    expect(host.load(plain, P + 8), 6)
    expect(host.cachestat(fd, 0, 0), 1)


@row("a hole is told of (missing), and is filled by a copy", FAULT)
def test_uffd_missing(host: Host) -> None:
    uffd, mapping, plain, fd = trapped(host, MISSING)
    expect(host.load(mapping, P + 8), sigbus(P + 8))
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.uffdio_copy(uffd, mapping, P, P, 0xAB), 0)
    expect([host.load(mapping, P), host.load(mapping, 2 * P - 1)], [0xAB, 0xAB])
    expect(host.load(plain, P), 0xAB)
    expect(host.cachestat(fd, 0, 0), 1)


@row("a hole is filled with zeros", FILL)
def test_zeropage(host: Host) -> None:
    uffd, mapping, _, fd = trapped(host, MISSING)
    expect(host.uffdio_zeropage(uffd, mapping, 0, 2 * P), 0)
    expect([host.load(mapping, 0), host.load(mapping, P), host.load(mapping, 2 * P)], [0, 0, sigbus(2 * P)])
    expect(host.cachestat(fd, 0, 0), 2)


@row("with minor faults alone a hole is filled as ever", FAULT)
def test_minor_and_hole(host: Host) -> None:
    _, mapping, _, fd = trapped(host, MINOR)
    expect(host.load(mapping, P), 0)
    expect(host.store(mapping, P, 5), 0)
    expect(host.cachestat(fd, 0, 0), 1)


@row("with missing faults alone a page that is there is reached as ever", FAULT)
def test_missing_and_page(host: Host) -> None:
    _, mapping, plain, _ = trapped(host, MISSING)
    ok(host.store(plain, P, 5))
    expect(host.load(mapping, P), 5)
    expect(host.load(mapping, 0), sigbus(0))


@row("both can be told of", FAULT)
def test_both_modes(host: Host) -> None:
    uffd, mapping, plain, _ = trapped(host, MISSING | MINOR)
    ok(host.store(plain, 0, 5))
    expect([host.load(mapping, 0), host.load(mapping, P)], [sigbus(0), sigbus(P)])
    expect(host.uffdio_copy(uffd, mapping, P, P, 7), 0)
    expect(host.uffdio_continue(uffd, mapping, 0, P), 0)
    expect([host.load(mapping, 0), host.load(mapping, P)], [5, 7])


@row("only what is registered is told of", FAULT)
def test_range(host: Host) -> None:
    _, mapping, plain, _ = trapped(host, MISSING, pages=2)
    results: list[Result] = [host.load(mapping, page * P) for page in range(PAGES)]
    expect(results, [sigbus(0), sigbus(P), 0, 0])
    expect(host.load(plain, 0), 0)


@row("a page is entered once, and a hole not at all", FILL)
def test_continue_refused(host: Host) -> None:
    uffd, mapping, plain, fd = trapped(host, MINOR)
    ok(host.store(plain, 0, 5))
    expect(host.uffdio_continue(uffd, mapping, 0, P), 0)
    expect(host.uffdio_continue(uffd, mapping, 0, P), EEXIST)
    expect(host.uffdio_continue(uffd, mapping, P, P), EFAULT)
    expect(host.cachestat(fd, 0, 0), 1)


@row("what comes before an error is done, and the rest is to be tried again", FILL)
def test_continue_partly(host: Host) -> None:
    uffd, mapping, plain, _ = trapped(host, MINOR)
    for page in (0, 1, 3):
        ok(host.store(plain, page * P, page + 1))
    expect(host.uffdio_continue(uffd, mapping, 0, PAGES * P), EAGAIN)
    expect([host.load(mapping, 0), host.load(mapping, P), host.load(mapping, 3 * P)], [1, 2, sigbus(3 * P)])


@table("a page that is there is not replaced", FILL, {"copy": True, "zeropage": False})
def test_fill_refused(host: Host, copy: bool) -> None:
    uffd, mapping, plain, _ = trapped(host, MISSING)
    ok(host.store(plain, 0, 5))
    filled = host.uffdio_copy(uffd, mapping, 0, P, 7) if copy else host.uffdio_zeropage(uffd, mapping, 0, P)
    expect(filled, EEXIST)
    expect(host.load(mapping, 0), 5)


@row("past the end of the file nothing is allocated", f"{SERIES}, kvm_gmem_folio_alloc()")
def test_copy_past_end(host: Host) -> None:
    uffd, mapping, _, fd = trapped(host, MISSING, pages=PAGES + 1)
    expect(host.load(mapping, PAGES * P), sigbus(PAGES * P))
    expect(host.uffdio_copy(uffd, mapping, PAGES * P, P, 7), ENOMEM)
    expect(host.cachestat(fd, 0, 0), 0)


@row("a hole that is punched is told of again", FAULT)
def test_punch_hole(host: Host) -> None:
    uffd, mapping, _, fd = trapped(host, MISSING)
    ok(host.uffdio_copy(uffd, mapping, 0, 2 * P, 7))
    ok(host.fallocate(fd, PUNCH, 0, P))
    expect([host.load(mapping, 0), host.load(mapping, P)], [sigbus(0), 7])
    expect(host.uffdio_copy(uffd, mapping, 0, P, 8), 0)
    expect(host.load(mapping, 0), 8)


@row("a page that leaves the page table is told of again", FAULT)
def test_dontneed(host: Host) -> None:
    uffd, mapping, plain, _ = trapped(host, MINOR)
    ok(host.store(plain, 0, 5))
    ok(host.uffdio_continue(uffd, mapping, 0, P))
    ok(host.madvise(mapping, 0, P, Advice.DONTNEED))
    expect(host.load(mapping, 0), sigbus(0))
    expect(host.uffdio_continue(uffd, mapping, 0, P), 0)
    expect(host.load(mapping, 0), 5)


@row("when the userfaultfd is closed, faults are as ever", f"{SERIES}; userfaultfd_release()")
def test_close(host: Host) -> None:
    uffd, mapping, plain, _ = trapped(host, MISSING)
    expect(host.load(mapping, 0), sigbus(0))
    ok(host.close(uffd))
    expect(host.load(mapping, 0), 0)
    expect(host.load(plain, 0), 0)


@row("a child's faults are its own", f"{SERIES}; dup_userfaultfd(): without UFFD_FEATURE_EVENT_FORK")
def test_child(host: Host) -> None:
    _, mapping, _, _ = trapped(host, MISSING)
    expect(host.in_child("load", mapping, P), 0)
    expect(host.load(mapping, 2 * P), sigbus(2 * P))


@table(
    "the kernel's own faults are refused as well",
    f"{SERIES}; handle_userfault(): UFFD_FEATURE_SIGBUS",
    {
        "process_vm_readv": lambda host, mapping: host.process_vm_readv(mapping, 0, 4),
        "write_pipe": lambda host, mapping: host.write_pipe(mapping, 0, 4),
        "io_uring": lambda host, mapping: host.io_uring_register(mapping, 0, P),
    },
)
def test_users(host: Host, user: object) -> None:
    _, mapping, _, fd = trapped(host, MISSING)
    assert callable(user)
    expect(user(host, mapping), EFAULT)
    expect(host.cachestat(fd, 0, 0), 0)


@row("a guest's faults are not the mapping's", f"{SERIES}; virt/kvm/guest_memfd.c, kvm_gmem_get_pfn()")
def test_guest(host: Host) -> None:
    supported(host, MISSING)
    owner, fd, _ = shared(host, PAGES)
    mapping = ok(host.mmap(fd, PAGES * P, RW, SHARED, 0))
    ok(host.userfaultfd(mapping, 0, PAGES * P, MISSING))
    ok(bind(host, owner, fd, 0, 0, PAGES))
    expect(host.guest_store(ok(host.create_vcpu(owner)), P, 7), 0)
    expect([host.load(mapping, P), host.load(mapping, 0)], [7, sigbus(0)])


@table("memory that does not begin shared is not registered", f"{SERIES}, kvm_gmem_can_userfault()", {"missing": 1, "minor": 4})
def test_register_private(host: Host, mode: int) -> None:
    supported(host, mode)
    _, fd = gmem(host, 1, MMAP)
    expect(host.userfaultfd_register(ok(host.mmap(fd, P, RW, SHARED, 0)), 0, P, mode), EINVAL)


@table(
    "whole pages are registered, for something",
    f"{SERIES}; userfaultfd_register()",
    {
        "no mode": (0, P, 0),
        "mode 8": (0, P, 8 | MINOR),
        "nothing": (0, 0, MINOR),
        "unaligned": (8, P, MINOR),
        "length 8": (0, 8, MINOR),
    },
)
def test_register_arguments(host: Host, offset: int, length: int, mode: int) -> None:
    supported(host, MINOR)
    _, _, mapping = shared(host, 2)
    expect(host.userfaultfd_register(mapping, offset, length, mode), EINVAL)


@table(
    "whole pages are resolved, at least one",
    f"{SERIES}; userfaultfd_continue(), validate_range()",
    {"nothing": (0, 0), "unaligned": (8, P), "length 8": (0, 8)},
)
def test_continue_arguments(host: Host, offset: int, length: int) -> None:
    uffd, mapping, plain, _ = trapped(host, MINOR)
    ok(host.store(plain, 0, 5))
    expect(host.uffdio_continue(uffd, mapping, offset, length), EINVAL)


@row("what is not registered is not resolved", FILL)
def test_not_registered(host: Host) -> None:
    uffd, _, plain, _ = trapped(host, MINOR)
    ok(host.store(plain, 0, 5))
    expect(host.uffdio_continue(uffd, plain, 0, P), ENOENT)
