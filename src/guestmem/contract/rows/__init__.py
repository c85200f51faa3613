# SPDX-License-Identifier: Apache-2.0
"""The rows of the contract: one rule each, a short function that performs operations on a host and says what is expected.

A row is expected as the newest upstream has it, as far as its source says more than where it was seen; what a kernel does
otherwise is in ``deviations``.  The modules here are the groups.  Names are those of the kernel's selftests where there
is one (tools/testing/selftests/kvm/guest_memfd_test.c).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from guestmem.contract.interface import PAGE_SIZE, Host, Missing
from guestmem.contract.results import Other, Result, Signal, brief, failed

__all__ = ["GROUPS", "Mismatch", "Row", "expect", "gmem", "ok", "row", "rows", "shared", "sigbus", "sigsegv", "table"]

GROUPS = {
    "creation": "KVM_CREATE_GUEST_MEMFD: sizes, flags, capabilities, what the descriptor looks like",
    "file_operations": "system calls on a file that is memory and no data",
    "fallocate": "allocating and punching holes",
    "mapping": "mmap, faults and their signals, what can be done to a mapping",
    "locking": "mlock2, mseal and guards",
    "numa": "memory policies, and the nodes where pages come to be",
    "memslot": "binding ranges of files to memory slots",
    "lifetime": "closing in any order, fork, passing descriptors",
    "zeroing": "a page is zero when it is seen for the first time, and again after a hole",
    "residency": "which pages there are, as cachestat counts them",
    "stage2": "which pages a guest has, as KVM's statistics count them, and what it sees there",
    "private": "memory that is a guest's alone, by KVM_SET_MEMORY_ATTRIBUTES, and what an exit says of a memory fault",
    "prefault": "KVM_PRE_FAULT_MEMORY",
    "conversion": "making pages the guest's alone, or shared, in place (a series of 2026)",
    "write": "filling a file by write(2) (a series of 2025)",
    "userfaultfd": "faults in a mapping of guest memory that user space resolves (a series of 2026)",
    "no_direct_map": "files that the host's direct map does not have (a series of 2026); a page for each of a few rows",
    "huge_pages": "files of huge pages (a series of 2025): split where a part is shared",
    "preservation": "files that the next kernel gets by a live update (a series of 2026)",
    "gup": "users that get at pages through a mapping: other processes, direct I/O, pipes, io_uring",
    "concurrency": "punching and taking slots while the host and a guest fault",
    "limits": "memory cgroups and signals",
    "secretmem": "memfd_secret, the other memory that the host does not map; three pages in all, for its direct map's sake",
}

MMAP, INIT_SHARED = 1, 2
SW_PROTECTED, PRIVATE_ATTRIBUTE = 1, 8
KEEP, PUNCH = 1, 3
RW, SHARED, PRIVATE = 3, 1, 2
GUEST_MEMFD = 4
CAP_USER_MEMORY2, CAP_GUEST_MEMFD, CAP_GUEST_MEMFD_FLAGS = 231, 234, 244

SELFTEST = "tools/testing/selftests/kvm/guest_memfd_test.c"
SLOT_SELFTEST = "tools/testing/selftests/kvm/set_memory_region_test.c"
GMEM = "virt/kvm/guest_memfd.c"
KVM = "virt/kvm/kvm_main.c"
VFS = "fs/open.c, vfs_fallocate()"
MM = "mm/mmap.c, do_mmap()"
GUP = "mm/gup.c"
OBSERVED = "seen on Linux 6.18"


SUCCESS = Other("success")


class Mismatch(Exception):
    """A result, or a list of results, is not as the contract has it."""

    def __init__(self, expected: object, got: object) -> None:
        super().__init__(f"expected {brief(expected)}, got {brief(got)}")
        self.expected = expected
        self.got = got


class Row(NamedTuple):
    """One rule: ``test(host, *case)`` raises :class:`Mismatch` where a host breaks it."""

    name: str
    group: str
    rule: str
    source: str
    test: Callable[..., None]
    case: tuple[Any, ...]


_rows: dict[str, Row] = {}


def row(rule: str, source: str) -> Callable[[Callable[[Host], None]], Callable[[Host], None]]:
    """Make a function a row of the group that its module is."""

    def decorate(test: Callable[[Host], None]) -> Callable[[Host], None]:
        _add(test, rule, source, "", ())
        return test

    return decorate


def table(rule: str, source: str, cases: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a row for each case: its name, and the argument or the tuple of arguments after the host."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        for name, case in cases.items():
            _add(test, rule, source, f".{name}", case if isinstance(case, tuple) else (case,))
        return test

    return decorate


def _add(test: Callable[..., None], rule: str, source: str, suffix: str, case: tuple[Any, ...]) -> None:
    group = test.__module__.rpartition(".")[2]
    name = f"{group}.{test.__name__}{suffix}"
    if name in _rows:
        raise ValueError(f"two rows are called {name}")
    _rows[name] = Row(name, group, rule, source, test, case)


def rows(*groups: str) -> list[Row]:
    """The rows of some groups, or of all, in order."""
    for group in GROUPS:
        importlib.import_module(f"guestmem.contract.rows.{group}")
    return [row for group in GROUPS for row in _rows.values() if row.group == group and (not groups or group in groups)]


def expect(got: object, expected: object) -> None:
    """Raise :class:`Mismatch` unless a result, or a list of results, is as expected."""
    if got != expected:
        raise Mismatch(expected, got)


def ok(result: Result) -> Result:
    """A result that is no failure."""
    if failed(result):
        raise Mismatch(SUCCESS, result)
    return result


def sigbus(offset: int) -> Signal:
    """SIGBUS at an offset of a mapping."""
    return Signal("SIGBUS", offset)


def sigsegv(offset: int) -> Signal:
    """SIGSEGV at an offset of a mapping."""
    return Signal("SIGSEGV", offset)


def vm(host: Host) -> Result:
    """A VM that can have guest memory."""
    if not host.facts.files:
        raise Missing("guest_memfd")
    return ok(host.create_vm())


def gmem(host: Host, pages: int, flags: int = 0) -> tuple[Result, Result]:
    """A VM and a file of guest memory."""
    owner = vm(host)
    if flags not in host.facts.files:
        raise Missing(f"guest_memfd with flags {flags}")
    return owner, ok(host.create_guest_memfd(owner, pages * PAGE_SIZE, flags))


def fullest(host: Host, pages: int) -> tuple[Result, Result]:
    """A VM and a file of guest memory that can do the most."""
    return gmem(host, pages, max(host.facts.files, default=0))


def bindable(host: Host, pages: int, flags: int | None = None) -> tuple[Result, Result]:
    """A VM and a file that a slot of it takes, the plainest or one with flags."""
    if not host.facts.bindable:
        raise Missing("a VM whose slots take guest_memfd")
    if flags is not None and flags not in host.facts.bindable:
        raise Missing(f"a VM whose slots take guest_memfd with flags {flags}")
    return gmem(host, pages, host.facts.plain if flags is None else flags)


def shared(host: Host, pages: int) -> tuple[Result, Result, Result]:
    """A VM, a file of guest memory that the host may use, and a mapping of it."""
    owner, fd = gmem(host, pages, MMAP | INIT_SHARED)
    return owner, fd, ok(host.mmap(fd, pages * PAGE_SIZE, RW, SHARED, 0))


def protected(host: Host, pages: int, flags: int = 0) -> tuple[Result, Result]:
    """A VM whose memory can be private, and a file that its slots take."""
    if flags not in host.facts.protected:
        raise Missing(f"a VM of type SW_PROTECTED that takes guest_memfd with flags {flags}")
    owner = ok(host.create_vm(SW_PROTECTED))
    return owner, ok(host.create_guest_memfd(owner, pages * PAGE_SIZE, flags))


def has_entries(host: Host, vm: Result, entries: int) -> None:
    """A VM's guests have so many stage-2 entries, where KVM counts them."""
    if host.facts.counts_entries:
        expect(host.pages_4k(vm), entries)


def bind(host: Host, vm: Result, fd: Result, slot: int, gpa: int, pages: int, pgoff: int = 0) -> Result:
    """Give a VM pages of a file."""
    return host.set_user_memory_region2(vm, slot, GUEST_MEMFD, gpa, pages * PAGE_SIZE, None, fd, pgoff * PAGE_SIZE)


def delete(host: Host, vm: Result, slot: int) -> Result:
    """Delete a slot."""
    return host.set_user_memory_region2(vm, slot, 0, 0, 0, None, -1, 0)
