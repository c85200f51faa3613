# SPDX-License-Identifier: Apache-2.0
"""KVM_PRE_FAULT_MEMORY: a guest's pages before it touches them."""

from __future__ import annotations

from guestmem.contract.interface import PAGE_SIZE, Host, Missing
from guestmem.contract.results import EFAULT, EINVAL, ENOENT, ENOTTY, Errno, Result
from guestmem.contract.rows import (
    INIT_SHARED,
    KVM,
    MMAP,
    PUNCH,
    bind,
    bindable,
    delete,
    expect,
    has_entries,
    ok,
    protected,
    row,
    shared,
    table,
)
from guestmem.contract.rows import PRIVATE_ATTRIBUTE as PRIVATE

P = PAGE_SIZE
SOURCE = f"{KVM}, kvm_vcpu_pre_fault_memory(); Documentation/virt/kvm/api.rst, 4.143"
PAGES = 4


def vcpu_of(host: Host, owner: Result) -> Result:
    """The vCPU of a VM, on a machine that can pre-fault."""
    if not host.facts.pre_faults:
        raise Missing("KVM_PRE_FAULT_MEMORY")
    return ok(host.create_vcpu(owner))


def guest(host: Host) -> tuple[Result, Result, Result]:
    """A VM, a file at gpa 0, and the vCPU."""
    owner, fd = bindable(host, PAGES, MMAP)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    return owner, fd, vcpu_of(host, owner)


@table(
    "a range is whole pages, not empty, and there is no flag",
    SOURCE,
    {
        "unaligned gpa": (1, P, 0),
        "unaligned size": (0, P + 1, 0),
        "nothing": (0, 0, 0),
        "end wraps": ((1 << 64) - P, 2 * P, 0),
        "end at 2^64": ((1 << 64) - P, P, 0),
        "flag 1": (0, P, 1),
        "flag 2^63": (0, P, 1 << 63),
    },
)
def test_prefault_invalid(host: Host, gpa: int, size: int, flags: int) -> None:
    _, fd, vcpu = guest(host)
    expect(host.pre_fault(vcpu, gpa, size, flags), EINVAL)
    expect(host.cachestat(fd, 0, 0), 0)


@row("only a vCPU knows the ioctl", KVM)
def test_prefault_on_others(host: Host) -> None:
    owner, _, _ = guest(host)
    expect(host.pre_fault(owner, 0, P, 0), Errno(host.facts.unknown_vm_ioctl))
    expect(host.pre_fault(ok(host.memfd_create(P)), 0, P, 0), ENOTTY)


@table("pages are allocated and the guest's, and no others", SOURCE, {"one": (1, 1), "two": (0, 2), "all": (0, 4)})
def test_prefault(host: Host, first: int, pages: int) -> None:
    owner, fd, vcpu = guest(host)
    expect(host.pre_fault(vcpu, first * P, pages * P, 0), 0)
    has_entries(host, owner, pages)
    expect(host.cachestat(fd, 0, 0), pages)
    expect([host.guest_load(vcpu, page * P) for page in range(PAGES)], [0, 0, 0, 0])


@row("what is there stays", SOURCE)
def test_prefault_again(host: Host) -> None:
    owner, fd, vcpu = guest(host)
    ok(host.guest_store(vcpu, P, 5))
    expect(host.pre_fault(vcpu, 0, PAGES * P, 0), 0)
    expect(host.pre_fault(vcpu, 0, PAGES * P, 0), 0)
    has_entries(host, owner, PAGES)
    expect(host.guest_load(vcpu, P), 5)
    expect(host.cachestat(fd, 0, 0), PAGES)


@row("what the host stored is there for the guest", SOURCE)
def test_prefault_shared(host: Host) -> None:
    owner, fd, mapping = shared(host, 2)
    ok(bind(host, owner, fd, 0, 0, 2))
    ok(host.store(mapping, P, 9))
    vcpu = vcpu_of(host, owner)
    expect(host.pre_fault(vcpu, 0, 2 * P, 0), 0)
    expect(host.guest_load(vcpu, P), 9)


@row("a page that was punched comes back zero", SOURCE)
def test_prefault_after_punch(host: Host) -> None:
    owner, fd, vcpu = guest(host)
    ok(host.guest_store(vcpu, P, 5))
    ok(host.fallocate(fd, PUNCH, 0, PAGES * P))
    has_entries(host, owner, 0)
    expect(host.pre_fault(vcpu, P, P, 0), 0)
    has_entries(host, owner, 1)
    expect(host.guest_load(vcpu, P), 0)


@row("where no slot is there is no page: ENOENT", SOURCE)
def test_prefault_no_slot(host: Host) -> None:
    owner, _, vcpu = guest(host)
    expect(host.pre_fault(vcpu, PAGES * P, P, 0), ENOENT)
    ok(delete(host, owner, 0))
    expect(host.pre_fault(vcpu, 0, P, 0), ENOENT)


@row("a range that goes on past its slot is done as far as the slot goes, and what is left is said", SOURCE)
def test_prefault_partly(host: Host) -> None:
    _, fd, vcpu = guest(host)
    expect(host.pre_fault(vcpu, 2 * P, 5 * P, 0), 3 * P)
    expect(host.cachestat(fd, 0, 0), 2)


@row("a range may span slots", SOURCE)
def test_prefault_two_slots(host: Host) -> None:
    owner, fd, vcpu = guest(host)
    other = ok(host.create_guest_memfd(owner, P, MMAP | INIT_SHARED))
    ok(bind(host, owner, other, 1, PAGES * P, 1))
    expect(host.pre_fault(vcpu, 0, (PAGES + 1) * P, 0), 0)
    expect([host.cachestat(file, 0, 0) for file in (fd, other)], [PAGES, 1])


@row("a slot whose file was closed has no memory", SOURCE)
def test_prefault_closed(host: Host) -> None:
    _, fd, vcpu = guest(host)
    ok(host.close(fd))
    expect(host.pre_fault(vcpu, 0, P, 0), EFAULT)


@row("ordinary memory that nothing is mapped at cannot be had", SOURCE)
def test_prefault_userspace_nothing(host: Host) -> None:
    owner, _, vcpu = guest(host)
    ok(host.set_user_memory_region(owner, 1, 0, 16 * P, P))
    expect(host.pre_fault(vcpu, 16 * P, P, 0), EFAULT)


@row("private pages are the file's, and others are not pre-faulted from it", SOURCE)
def test_prefault_private(host: Host) -> None:
    owner, fd = protected(host, PAGES)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    ok(host.vm_memory_attributes(owner, P, 2 * P, PRIVATE, 0))
    vcpu = vcpu_of(host, owner)
    expect(host.pre_fault(vcpu, P, 3 * P, 0), P)
    has_entries(host, owner, 2)
    expect(host.cachestat(fd, 0, 0), 2)
    expect(host.pre_fault(vcpu, 0, P, 0), EFAULT)
