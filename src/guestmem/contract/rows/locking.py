# SPDX-License-Identifier: Apache-2.0
"""mlock2(2), mseal(2) and guards of mappings of guest memory."""

from __future__ import annotations

from typing import Any

from guestmem.contract.interface import PAGE_SIZE, Host, Missing
from guestmem.contract.results import EBUSY, EINVAL, ENOSYS, EPERM, Result
from guestmem.contract.rows import PUNCH, expect, ok, row, shared, sigsegv, table

P = PAGE_SIZE
MLOCK = "mm/mlock.c, mlock2(2)"
MSEAL = "mm/mseal.c, Documentation/userspace-api/mseal.rst"
GUARD = "mm/madvise.c, madvise_guard_install()"
ONFAULT, INVALIDATE = 1, 2


@row("MLOCK_ONFAULT locks pages when they come, and brings none", MLOCK)
def test_mlock_on_fault(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    expect(host.mlock2(mapping, 0, 2 * P, ONFAULT), 0)
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.load(mapping, P), 0)
    expect(host.msync(mapping, 0, P, INVALIDATE), EBUSY)


@row("without a flag it is mlock(2)", MLOCK)
def test_mlock2(host: Host) -> None:
    _, fd, mapping = shared(host, 3)
    expect(host.mlock2(mapping, 0, 2 * P, 0), 0)
    expect(host.cachestat(fd, 0, 0), 2)


@table("other flags are refused", MLOCK, {f"2^{bit}": 1 << bit for bit in (1, 2, 12, 30)})
def test_mlock2_flags(host: Host, flags: int) -> None:
    _, fd, mapping = shared(host, 1)
    expect(host.mlock2(mapping, 0, P, flags), EINVAL)
    expect(host.cachestat(fd, 0, 0), 0)


@table(
    "a sealed mapping is neither unmapped, nor moved, nor protected otherwise",
    MSEAL,
    {"munmap": ("munmap",), "mprotect": ("mprotect", 0, P, 1), "mremap": ("mremap", 4 * P)},
)
def test_sealed(host: Host, operation: str, *arguments: Any) -> None:
    _, _, mapping = shared(host, 2)
    expect(host.sealed(mapping, operation, mapping, *arguments), EPERM if host.facts.seals else ENOSYS)


@row("a sealed mapping is used as before, and holes are punched in its file", MSEAL)
def test_sealed_use(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, P, 7))
    sealed = host.facts.seals
    expect(host.sealed(mapping, "load", mapping, P), 7 if sealed else ENOSYS)
    expect(host.sealed(mapping, "fallocate", fd, PUNCH, P, P), 0 if sealed else ENOSYS)
    expect(host.load(mapping, P), 0 if sealed else 7)


def guards(host: Host) -> tuple[Result, Result]:
    """A file and a mapping of it that can have guards."""
    _, fd, mapping = shared(host, 3)
    if not host.facts.guards:
        raise Missing("guards in mappings of files (MADV_GUARD_INSTALL)")
    return fd, mapping


@row("a guard is a SIGSEGV, for its own page alone", GUARD)
def test_guard(host: Host) -> None:
    _, mapping = guards(host)
    expect(host.guard(mapping, P, P, 1), 0)
    expect(host.load(mapping, P + 5), sigsegv(P + 5))
    expect(host.store(mapping, P, 1), sigsegv(P))
    expect(host.load(mapping, 0), 0)
    expect(host.load(mapping, 2 * P), 0)


@row("what a guard hides stays in the file, and is there when it goes", GUARD)
def test_guard_removed(host: Host) -> None:
    fd, mapping = guards(host)
    ok(host.store(mapping, P, 9))
    expect(host.guard(mapping, 0, 2 * P, 1), 0)
    expect(host.cachestat(fd, 0, 0), 1)
    expect(host.guard(mapping, P, P, 0), 0)
    expect(host.load(mapping, P), 9)
    expect(host.load(mapping, 0), sigsegv(0))


@row("what is locked gets no guard", GUARD)
def test_guard_locked(host: Host) -> None:
    _, mapping = guards(host)
    ok(host.mlock(mapping, 0, P))
    expect(host.guard(mapping, 0, P, 1), EINVAL)
    expect(host.guard(mapping, P, P, 1), 0)


@row("a child has the guards of its parent", GUARD)
def test_guard_child(host: Host) -> None:
    _, mapping = guards(host)
    ok(host.guard(mapping, 0, P, 1))
    expect(host.in_child("load", mapping, 0), sigsegv(0))
