# SPDX-License-Identifier: Apache-2.0
"""Closing in any order, fork, and passing descriptors on.

A file keeps its VM, a mapping keeps its file, a slot keeps neither.
"""

from __future__ import annotations

import itertools

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Host
from guestmem.contract.results import EBADF, EEXIST, EFAULT, EINVAL, EIO
from guestmem.contract.rows import (
    GMEM,
    INIT_SHARED,
    KEEP,
    KVM,
    MMAP,
    OBSERVED,
    PUNCH,
    RW,
    SHARED,
    bind,
    bindable,
    delete,
    expect,
    gmem,
    has_entries,
    ok,
    row,
    shared,
    sigbus,
    table,
)

P = PAGE_SIZE


@table(
    "a VM, its file, a mapping and a vCPU are closed in any order",
    f"{GMEM}, kvm_gmem_release(); {KVM}",
    {" ".join(order): order for order in itertools.permutations(("vm", "file", "mapping", "vcpu"))},
)
def test_close_order(host: Host, *order: str) -> None:
    owner, fd, mapping = shared(host, 4)
    ok(bind(host, owner, fd, 0, 0, 4))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.guest_store(vcpu, 0, 5))
    for what in order:
        if what == "mapping":
            expect(host.load(mapping, 0), 5)
            expect(host.munmap(mapping), 0)
        else:
            expect(host.close({"vm": owner, "file": fd, "vcpu": vcpu}[what]), 0)


@row("a mapping keeps the file: old pages and new", OBSERVED)
def test_mapping_outlives_descriptors(host: Host) -> None:
    owner, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 5))
    ok(host.close(fd))
    ok(host.close(owner))
    expect(host.load(mapping, 0), 5)
    expect(host.store(mapping, P, 6), 0)
    expect(host.load(mapping, P), 6)


@row("a file keeps its VM, and is allocated in and punched when the VM's descriptor is closed", OBSERVED)
def test_file_outlives_vm(host: Host) -> None:
    owner, fd = gmem(host, 4)
    ok(host.fallocate(fd, KEEP, 0, P))
    ok(host.close(owner))
    expect(host.cachestat(fd, 0, 0), 1)
    expect(host.fallocate(fd, KEEP, 0, 4 * P), 0)
    expect(host.fallocate(fd, PUNCH, 0, 3 * P), 0)
    expect(host.cachestat(fd, 0, 0), 1)


@row("another descriptor of a file is the same file", "dup(2)")
def test_dup(host: Host) -> None:
    _, fd = gmem(host, 4)
    other = ok(host.dup(fd))
    expect(host.same_inode(fd, other), 1)
    ok(host.fallocate(fd, KEEP, 0, 2 * P))
    ok(host.close(fd))
    expect(host.cachestat(other, 0, 0), 2)
    expect(host.cachestat(fd, 0, 0), EBADF)


@row("a descriptor passed through a socket is the same file", "unix(7), SCM_RIGHTS")
def test_pass_descriptor(host: Host) -> None:
    owner, fd = bindable(host, 4)
    ok(host.fallocate(fd, KEEP, 0, 2 * P))
    other = ok(host.pass_descriptor(fd))
    expect(host.same_inode(fd, other), 1)
    ok(host.close(fd))
    expect(host.cachestat(other, 0, 0), 2)
    expect(bind(host, owner, other, 0, 0, 4), 0)


@row("a VM passed through a socket is the same VM", OBSERVED)
def test_pass_vm(host: Host) -> None:
    owner, fd = bindable(host, 1)
    other = ok(host.pass_descriptor(owner))
    ok(host.close(owner))
    expect(bind(host, other, fd, 0, 0, 1), 0)


@row(
    "closing the last descriptor of a bound file frees its memory; the slot stays and has none",
    f"{citations.DYING_FILE}; {OBSERVED}",
)
def test_close_bound_file(host: Host) -> None:
    owner, fd = bindable(host, 4, MMAP | INIT_SHARED)
    ok(bind(host, owner, fd, 0, 0, 4))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.guest_store(vcpu, 0, 5))
    ok(host.close(fd))
    has_entries(host, owner, 0)
    expect(host.guest_load(vcpu, 0), EFAULT)
    again = ok(host.create_guest_memfd(owner, 4 * P, MMAP | INIT_SHARED))
    expect(bind(host, owner, again, 1, 0, 4), EEXIST)
    expect(delete(host, owner, 0), 0)
    expect(bind(host, owner, again, 1, 0, 4), 0)
    expect(host.guest_load(vcpu, 0), 0)


@row("a mapping keeps a bound file for the guest as well", OBSERVED)
def test_close_bound_mapped_file(host: Host) -> None:
    owner, fd, mapping = shared(host, 2)
    ok(bind(host, owner, fd, 0, 0, 2))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.close(fd))
    expect(host.guest_store(vcpu, P + 1, 8), 0)
    expect(host.load(mapping, P + 1), 8)
    ok(host.munmap(mapping))
    expect(host.guest_load(vcpu, P + 1), EFAULT)


@row("what is closed can be had again, without what was in it", GMEM)
def test_closed_file_is_gone(host: Host) -> None:
    owner, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 9))
    ok(host.munmap(mapping))
    ok(host.close(fd))
    again = ok(host.create_guest_memfd(owner, 2 * P, MMAP | INIT_SHARED))
    expect(host.cachestat(again, 0, 0), 0)
    expect(host.load(ok(host.mmap(again, 2 * P, RW, SHARED, 0)), 0), 0)


# ---- fork


@row("a child shares the mapping", OBSERVED)
def test_fork_mapping(host: Host) -> None:
    _, _, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 3))
    expect(host.in_child("load", mapping, 0), 3)
    expect(host.in_child("store", mapping, P, 4), 0)
    expect(host.load(mapping, P), 4)


@table(
    "a child uses the file like its parent",
    OBSERVED,
    {"allocate": (KEEP, 3), "punch": (PUNCH, 0)},
)
def test_fork_fallocate(host: Host, mode: int, pages: int) -> None:
    _, fd = gmem(host, 3)
    ok(host.fallocate(fd, KEEP, 0, P))
    expect(host.in_child("fallocate", fd, mode, 0, 3 * P), 0)
    expect(host.cachestat(fd, 0, 0), pages)


@row("what a child closes and unmaps is its own", "fork(2)")
def test_fork_close(host: Host) -> None:
    _, fd, mapping = shared(host, 1)
    ok(host.store(mapping, 0, 3))
    expect(host.in_child("close", fd), 0)
    expect(host.in_child("munmap", mapping), 0)
    expect(host.in_child("mprotect", mapping, 0, P, 0), 0)
    expect(host.load(mapping, 0), 3)
    expect(host.cachestat(fd, 0, 0), 1)


@row("a VM is used by the process that made it", f"{KVM}, kvm_vm_ioctl()")
def test_fork_vm(host: Host) -> None:
    owner, fd = bindable(host, 1)
    expect(host.in_child("create_guest_memfd", owner, P, 0), EIO)
    expect(host.in_child("set_user_memory_region2", owner, 0, 4, 0, P, None, fd, 0), EIO)
    expect(bind(host, owner, fd, 0, 0, 1), 0)


@row("advice of a child drops its own mapping", "mm/madvise.c")
def test_fork_madvise(host: Host) -> None:
    _, _, mapping = shared(host, 1)
    ok(host.store(mapping, 0, 3))
    expect(host.in_child("madvise", mapping, 0, P, 4), 0)
    expect(host.load(mapping, 0), 3)


@table("a child dies of a signal as its parent would", OBSERVED, {"load": ("load", (P,)), "store": ("store", (P, 1))})
def test_fork_signal(host: Host, access: str, arguments: tuple[int, ...]) -> None:
    _, fd = gmem(host, 1, MMAP | INIT_SHARED)
    mapping = ok(host.mmap(fd, 2 * P, RW, SHARED, 0))
    expect(host.in_child(access, mapping, *arguments), sigbus(0x1000))


@row("an io_uring is not passed on", f"net/core/scm.c; {OBSERVED}")
def test_pass_io_uring(host: Host) -> None:
    _, _, mapping = shared(host, 1)
    expect(host.pass_descriptor(ok(host.io_uring_register(mapping, 0, PAGE_SIZE))), EINVAL)
