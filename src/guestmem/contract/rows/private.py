# SPDX-License-Identifier: Apache-2.0
"""Memory that is a guest's alone, in VMs of type SW_PROTECTED: attributes of guest pages, and exits for memory faults.

A private page is the file's; one that is not is what is mapped at userspace_addr, unless the file can be mapped.
"""

from __future__ import annotations

from guestmem.contract.interface import PAGE_SIZE, Host, Missing
from guestmem.contract.results import EFAULT, EINVAL, EIO, ENOTTY, MMIO, NO_FAULT, Result
from guestmem.contract.rows import (
    GUEST_MEMFD,
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
    vm,
)
from guestmem.contract.rows import PRIVATE_ATTRIBUTE as PRIVATE

P = PAGE_SIZE
SOURCE = f"{KVM}, kvm_vm_set_mem_attributes(); Documentation/virt/kvm/api.rst, 4.140"
FAULT = "Documentation/virt/kvm/api.rst, KVM_EXIT_MEMORY_FAULT; arch/x86/kvm/mmu/mmu.c, kvm_mmu_faultin_pfn()"
PAGES = 4


def attributed(host: Host) -> None:
    """The machine has the ioctl."""
    if not host.facts.attributes:
        raise Missing("KVM_SET_MEMORY_ATTRIBUTES")


def guest(host: Host, private: range = range(0)) -> tuple[Result, Result, Result, Result]:
    """A VM, its file at gpa 0, a mapping of other memory that is at userspace_addr and holds 11, 12, ..., and the vCPU."""
    owner, fd = protected(host, PAGES)
    _, _, mapping = shared(host, PAGES)
    for page in range(PAGES):
        ok(host.store(mapping, page * P, 11 + page))
    ok(host.set_user_memory_region2(owner, 0, GUEST_MEMFD, 0, PAGES * P, mapping, fd, 0))
    if private:
        ok(host.vm_memory_attributes(owner, private[0] * P, len(private) * P, PRIVATE, 0))
    return owner, fd, mapping, ok(host.create_vcpu(owner))


def seen(host: Host, vcpu: Result) -> list[Result]:
    """The first byte of each page, as the guest has it."""
    return [host.guest_load(vcpu, page * P) for page in range(PAGES)]


@table(
    "attributes are of whole pages, at least one, and only the private one is known",
    SOURCE,
    {
        "unaligned gpa": (1, P, PRIVATE, 0),
        "unaligned size": (0, P + 1, PRIVATE, 0),
        "nothing": (0, 0, PRIVATE, 0),
        "end wraps": ((1 << 64) - P, 2 * P, PRIVATE, 0),
        "end at 2^64": ((1 << 64) - P, P, PRIVATE, 0),
        "flag 1": (0, P, PRIVATE, 1),
        "flag 2^63": (0, P, PRIVATE, 1 << 63),
        "read": (0, P, 1, 0),
        "write": (0, P, 2, 0),
        "execute": (0, P, 4, 0),
        "private and read": (0, P, PRIVATE | 1, 0),
        "bit 4": (0, P, 16, 0),
        "bit 63": (0, P, 1 << 63, 0),
    },
)
def test_attributes_invalid(host: Host, gpa: int, size: int, attributes: int, flags: int) -> None:
    owner, _ = protected(host, 1)
    expect(host.vm_memory_attributes(owner, gpa, size, attributes, flags), EINVAL)
    expect(host.vm_memory_attributes(owner, 0, P, PRIVATE, 0), 0)


@row("a VM without private memory has no attributes to set", SOURCE)
def test_attributes_of_a_default_vm(host: Host) -> None:
    attributed(host)
    owner = vm(host)
    expect(host.vm_memory_attributes(owner, 0, P, PRIVATE, 0), EINVAL)
    expect(host.vm_memory_attributes(owner, 0, P, 0, 0), 0)


@row("attributes are a VM's", KVM)
def test_attributes_of_what_is_no_vm(host: Host) -> None:
    attributed(host)
    expect(host.vm_memory_attributes(ok(host.memfd_create(P)), 0, P, 0, 0), ENOTTY)
    expect(host.vm_memory_attributes(ok(host.create_vcpu(vm(host))), 0, P, 0, 0), EINVAL)


@row("a child does not set attributes of its parent's VM", f"{KVM}, kvm_vm_ioctl()")
def test_attributes_in_a_child(host: Host) -> None:
    owner, _ = protected(host, 1)
    expect(host.in_child("vm_memory_attributes", owner, 0, P, PRIVATE, 0), EIO)


@row("a page that is not private is at userspace_addr, and takes nothing of the file", SOURCE)
def test_shared_page(host: Host) -> None:
    _, fd, mapping, vcpu = guest(host)
    expect(seen(host, vcpu), [11, 12, 13, 14])
    expect(host.guest_store(vcpu, P + 1, 5), 0)
    expect(host.load(mapping, P + 1), 5)
    expect(host.cachestat(fd, 0, 0), 0)


@row("a private page is the file's, zero at first, and the host sees nothing of it", SOURCE)
def test_private_page(host: Host) -> None:
    _, fd, mapping, vcpu = guest(host, range(PAGES))
    expect(seen(host, vcpu), [0, 0, 0, 0])
    expect(host.guest_store(vcpu, P, 5), 0)
    expect(host.guest_load(vcpu, P), 5)
    expect(host.load(mapping, P), 12)
    expect(host.cachestat(fd, 0, 0), PAGES)


@table(
    "pages are made private, and no others",
    SOURCE,
    {
        "the first": (0, 1),
        "the last": (3, 1),
        "in the middle": (1, 2),
        "all": (0, 4),
        "past the slot": (2, 8),
        "before it": (4, 4),
    },
)
def test_private_range(host: Host, first: int, pages: int) -> None:
    _, fd, _, vcpu = guest(host, range(first, first + pages))
    private = range(first, min(first + pages, PAGES))
    expect(seen(host, vcpu), [0 if page in private else 11 + page for page in range(PAGES)])
    expect(host.cachestat(fd, 0, 0), len(private))


@row("both contents stay when a page is made private and shared again", SOURCE)
def test_attributes_keep_contents(host: Host) -> None:
    owner, fd, _, vcpu = guest(host, range(PAGES))
    ok(host.guest_store(vcpu, P, 5))
    ok(host.vm_memory_attributes(owner, P, P, 0, 0))
    expect(host.guest_load(vcpu, P), 12)
    ok(host.guest_store(vcpu, P, 6))
    ok(host.vm_memory_attributes(owner, P, P, PRIVATE, 0))
    expect(host.guest_load(vcpu, P), 5)
    expect(host.cachestat(fd, 0, 0), 1)


@row("a change takes the range from the guest, and nothing else", f"{KVM}, kvm_pre_set_memory_attributes()")
def test_attributes_zap(host: Host) -> None:
    owner, fd = protected(host, PAGES)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    ok(host.vm_memory_attributes(owner, 0, PAGES * P, PRIVATE, 0))
    vcpu = ok(host.create_vcpu(owner))
    expect(seen(host, vcpu), [0, 0, 0, 0])
    has_entries(host, owner, 4)
    ok(host.vm_memory_attributes(owner, P, 2 * P, PRIVATE, 0))
    has_entries(host, owner, 4)
    ok(host.vm_memory_attributes(owner, P, 2 * P, 0, 0))
    has_entries(host, owner, 2)
    expect(host.cachestat(fd, 0, 0), 4)


@row("a hole takes a private page from the guest, which gets zeros", SOURCE)
def test_private_punch(host: Host) -> None:
    _, fd, _, vcpu = guest(host, range(PAGES))
    for page in range(PAGES):
        ok(host.guest_store(vcpu, page * P, 21 + page))
    ok(host.fallocate(fd, PUNCH, P, 2 * P))
    expect(host.cachestat(fd, 0, 0), 2)
    expect(seen(host, vcpu), [21, 0, 0, 24])


@row("attributes are there before a slot is, and after", SOURCE)
def test_attributes_without_slot(host: Host) -> None:
    owner, fd = protected(host, 2)
    ok(host.vm_memory_attributes(owner, 0, P, PRIVATE, 0))
    ok(bind(host, owner, fd, 0, 0, 2))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.guest_store(vcpu, 0, 5), 0)
    ok(delete(host, owner, 0))
    ok(bind(host, owner, fd, 1, 0, 2))
    expect(host.guest_load(vcpu, 0), 5)
    expect(host.guest_load(vcpu, P), EFAULT)


@row("a range may span slots", SOURCE)
def test_attributes_of_two_slots(host: Host) -> None:
    owner, fd = protected(host, 4)
    ok(bind(host, owner, fd, 0, 0, 2, 2))
    ok(bind(host, owner, fd, 1, 2 * P, 2, 0))
    ok(host.vm_memory_attributes(owner, P, 2 * P, PRIVATE, 0))
    vcpu = ok(host.create_vcpu(owner))
    expect(seen(host, vcpu), [EFAULT, 0, 0, EFAULT])
    expect([host.cachestat(fd, page * P, P) for page in range(4)], [1, 0, 0, 1])


@row("attributes of one VM are not another's", SOURCE)
def test_attributes_of_two_vms(host: Host) -> None:
    _, _, _, one = guest(host, range(PAGES))
    _, _, _, other = guest(host)
    expect(host.guest_load(one, 0), 0)
    expect(host.guest_load(other, 0), 11)


@row("memory of a file that can be mapped is the file's, private or not", f"{KVM}; KVM_MEMSLOT_GMEM_ONLY")
def test_private_mappable(host: Host) -> None:
    owner, fd = protected(host, PAGES, MMAP)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    ok(host.vm_memory_attributes(owner, 0, P, PRIVATE, 0))
    vcpu = ok(host.create_vcpu(owner))
    expect(seen(host, vcpu), [0, 0, 0, 0])
    expect(host.cachestat(fd, 0, 0), PAGES)


# ---- memory faults


def told(host: Host) -> None:
    """The machine has exits that say where a memory fault is."""
    if not host.facts.memory_fault:
        raise Missing("KVM_CAP_MEMORY_FAULT_INFO")


def faults(host: Host, vcpu: Result, gpa: int, flags: int) -> None:
    """A load and a store end in a memory fault that says where."""
    told(host)
    for at in (gpa, gpa + 0x123):
        expect(host.guest_load(vcpu, at), EFAULT)
        expect(host.memory_fault(vcpu), (gpa, P, flags))
        expect(host.guest_store(vcpu, at, 1), EFAULT)
        expect(host.memory_fault(vcpu), (gpa, P, flags))


@row("a private page of a slot without a file is a private memory fault", FAULT)
def test_fault_private_ordinary(host: Host) -> None:
    owner, _ = protected(host, 1)
    ok(host.set_user_memory_region(owner, 0, 0, 0, 2 * P))
    ok(host.vm_memory_attributes(owner, P, P, PRIVATE, 0))
    faults(host, ok(host.create_vcpu(owner)), P, PRIVATE)


@row("a private page without a slot is a private memory fault, and no MMIO", f"{FAULT}, kvm_handle_noslot_fault()")
def test_fault_private_no_slot(host: Host) -> None:
    owner, _ = protected(host, 1)
    ok(host.vm_memory_attributes(owner, P, P, PRIVATE, 0))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.guest_load(vcpu, 0), MMIO)
    faults(host, vcpu, P, PRIVATE)


@row("a private page whose file was closed is a private memory fault", f"{FAULT}, kvm_gmem_get_pfn()")
def test_fault_private_closed(host: Host) -> None:
    _, fd, _, vcpu = guest(host, range(1, 2))
    ok(host.guest_store(vcpu, P, 5))
    ok(host.close(fd))
    faults(host, vcpu, P, PRIVATE)
    expect(host.guest_load(vcpu, 0), 11)


@row("where nothing is at userspace_addr, a page that is not private is EFAULT and no memory fault", FAULT)
def test_fault_shared(host: Host) -> None:
    owner, fd = protected(host, 2)
    ok(bind(host, owner, fd, 0, 0, 2))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.guest_load(vcpu, P), EFAULT)
    expect(host.memory_fault(vcpu), NO_FAULT)


@row("in a default VM, too, an exit says where the memory fault is", FAULT)
def test_fault_default_vm(host: Host) -> None:
    told(host)
    owner, fd = bindable(host, 2, MMAP)
    ok(bind(host, owner, fd, 0, 0, 2))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.guest_load(vcpu, 0), 0)
    expect(host.memory_fault(vcpu), NO_FAULT)
    ok(host.close(fd))
    faults(host, vcpu, P, 0)
