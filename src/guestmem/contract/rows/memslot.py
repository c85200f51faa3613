# SPDX-License-Identifier: Apache-2.0
"""KVM_SET_USER_MEMORY_REGION2 with KVM_MEM_GUEST_MEMFD: which part of which file a VM has where."""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Host, Missing
from guestmem.contract.results import EBADF, EEXIST, EINVAL, ENOENT, Errno, Result
from guestmem.contract.rows import (
    GMEM,
    GUEST_MEMFD,
    INIT_SHARED,
    KVM,
    MMAP,
    OBSERVED,
    SLOT_SELFTEST,
    bind,
    bindable,
    delete,
    expect,
    ok,
    row,
    shared,
    table,
    vm,
)
from guestmem.linux.uapi import KVM_EXIT_INTERNAL_ERROR

P = PAGE_SIZE
TOP = 1 << 63
LOG_DIRTY, READONLY = 1, 2
SOME_SLOTS = 40  # the last ones: the simulated host's files have few pages, and a slot takes one


@table(
    "a file with any flags can be bound",
    SLOT_SELFTEST,
    {"none": 0, "MMAP": MMAP, "INIT_SHARED": INIT_SHARED, "MMAP|INIT_SHARED": MMAP | INIT_SHARED},
)
def test_add_guest_memfd_region(host: Host, flags: int) -> None:
    owner, fd = bindable(host, 4, flags)
    expect(bind(host, owner, fd, 0, 0, 4), 0)
    expect(host.cachestat(fd, 0, 0), 0)
    expect(delete(host, owner, 0), 0)


@row("the mapping of the file can be the slot's other memory", OBSERVED)
def test_add_guest_memfd_region_with_its_mapping(host: Host) -> None:
    owner, fd, mapping = shared(host, 4)
    expect(host.set_user_memory_region2(owner, 0, GUEST_MEMFD, 0, 4 * P, mapping, fd, 0), 0)


@table(
    "a slot takes a file of guest memory of its own VM",
    f"{SLOT_SELFTEST}, test_invalid_guest_memfd(); {GMEM}, kvm_gmem_bind()",
    {"-1": ("closed", EBADF), "a VM": ("vm", EINVAL), "a memfd": ("memfd", EINVAL), "of another VM": ("other", EINVAL)},
)
def test_add_guest_memfd_region_invalid_fd(host: Host, what: str, expected: Result) -> None:
    owner, fd = bindable(host, 1)
    made: Result = -1
    if what == "vm":
        made = owner
    elif what == "memfd":
        made = ok(host.memfd_create(P))
    elif what == "other":
        _, made = bindable(host, 1)
    expect(bind(host, owner, made, 0, 0, 1), expected)
    expect(bind(host, owner, fd, 0, 0, 1), 0)


@table(
    "the range of a slot is whole pages inside the file",
    f"{SLOT_SELFTEST}; {GMEM}, kvm_gmem_bind()",
    {
        "unaligned offset": (P, 1),
        "offset at the end": (P, 4 * P),
        "offset past the end": (P, 5 * P),
        "across the end": (2 * P, 3 * P),
        "larger than the file": (5 * P, 0),
        "negative offset": (P, -P),
        "offset 2^63": (P, TOP),
        "offset wraps": (4 * P, (1 << 64) - 2 * P),
    },
)
def test_add_guest_memfd_region_invalid_range(host: Host, size: int, offset: int) -> None:
    owner, fd = bindable(host, 4)
    expect(host.set_user_memory_region2(owner, 0, GUEST_MEMFD, 0, size, None, fd, offset), EINVAL)
    expect(bind(host, owner, fd, 0, 0, 4), 0)


@table(
    "a slot's size, guest-physical address and offset in the file are whole pages",
    f"{KVM}, kvm_set_memory_region()",
    {
        **{f"gpa 2^{bit}": (1 << bit, P, 0) for bit in range(12)},
        **{f"size 2^{bit}": (0, 1 << bit, 0) for bit in range(12)},
        **{f"offset 2^{bit}": (0, P, 1 << bit) for bit in range(12)},
    },
)
def test_add_guest_memfd_region_unaligned(host: Host, gpa: int, size: int, offset: int) -> None:
    owner, fd = bindable(host, 4)
    expect(host.set_user_memory_region2(owner, 0, GUEST_MEMFD, gpa, size, None, fd, offset), EINVAL)
    expect(bind(host, owner, fd, 0, 0, 4), 0)


@table(
    "the range of a slot ends below 2^63",
    f"{GMEM}, kvm_gmem_bind(); {citations.UNSIGNED}",
    {"at 2^63": (P, TOP - P), "above 2^63": (4 * P, TOP - 2 * P)},
)
def test_add_guest_memfd_region_offset_overflow(host: Host, size: int, offset: int) -> None:
    owner, fd = bindable(host, 4)
    expect(host.set_user_memory_region2(owner, 0, GUEST_MEMFD, 0, size, None, fd, offset), EINVAL)


@table(
    "a slot's size and guest-physical address are whole pages and within limits",
    f"{KVM}, kvm_set_memory_region()",
    {
        "unaligned size": (0, 0, P + 1),
        "unaligned gpa": (0, 1, P),
        "gpa wraps": (0, (1 << 64) - P, P),
        "gpa wraps further": (0, (1 << 64) - P, 2 * P),
        "2^31 pages": (0, 0, P << 31),
        "size 2^63": (0, 0, TOP),
        "slot 2^32-1": ((1 << 32) - 1, 0, P),
    },
)
def test_add_region_invalid_arguments(host: Host, slot: int, gpa: int, size: int) -> None:
    owner, fd = bindable(host, (TOP - P) // P)
    expect(host.set_user_memory_region2(owner, slot, GUEST_MEMFD, gpa, size, None, fd, 0), EINVAL)


@row("a slot is one of KVM_CAP_NR_MEMSLOTS, in one of KVM_CAP_MULTI_ADDRESS_SPACE", f"{KVM}, kvm_set_memory_region()")
def test_add_region_last_slot(host: Host) -> None:
    owner, fd = bindable(host, 4)
    slots, spaces = host.facts.slots, host.facts.address_spaces
    expect(bind(host, owner, fd, slots - 1, 0, 1, 0), 0)
    expect(bind(host, owner, fd, slots, P, 1, 1), EINVAL)
    expect(bind(host, owner, fd, (spaces - 1) << 16 | 1, 2 * P, 1, 2), 0)
    expect(bind(host, owner, fd, spaces << 16, 3 * P, 1, 3), EINVAL)


@row("an address space has its own guest-physical memory", f"{KVM}, kvm_check_memslot_overlap()")
def test_address_spaces(host: Host) -> None:
    if host.facts.address_spaces < 2:
        raise Missing("KVM_CAP_MULTI_ADDRESS_SPACE")
    owner, fd = bindable(host, 2)
    ok(bind(host, owner, fd, 0, 0, 1))
    expect(bind(host, owner, fd, 1 << 16, 0, 1, 1), 0)
    expect(bind(host, owner, fd, 1 << 16 | 1, 0, 1, 1), EEXIST)


@row(
    "a slot ends below the largest guest-physical address: EINVAL on x86, EFAULT on arm64",
    "kvm_arch_prepare_memory_region(), arch/x86/kvm/x86.c, arch/arm64/kvm/mmu.c",
)
def test_add_region_last_gpa(host: Host) -> None:
    owner, fd = bindable(host, 4)
    limit = 1 << host.facts.gpa_bits
    expect(bind(host, owner, fd, 0, limit - P, 1, 0), 0)
    for gpa in (limit, limit - P, 1 << 52):
        expect(bind(host, owner, fd, 1, gpa, 2, 1), Errno(host.facts.gpa_error) if gpa >= limit else EEXIST)
    expect(delete(host, owner, 0), 0)
    expect(bind(host, owner, fd, 1, limit - P, 2, 1), Errno(host.facts.gpa_error))


@table(
    "a slot's size and guest-physical address reach far",
    f"{KVM}, kvm_set_memory_region(); {OBSERVED}",
    {"gpa 2^35": (0, 1 << 35, P), "1G": (0, 0, 1 << 30)},
)
def test_add_region_large_arguments(host: Host, slot: int, gpa: int, size: int) -> None:
    owner, fd = bindable(host, (TOP - P) // P)
    expect(host.set_user_memory_region2(owner, slot, GUEST_MEMFD, gpa, size, None, fd, 0), 0)


@table(
    "userspace_addr is a user-space address, whole pages; nothing has to be there",
    f"{KVM}, kvm_set_memory_region()",
    {
        "nothing there": ("0x10000", 0),
        "unaligned": ("0x10001", EINVAL),
        "of the kernel": ("0xffff888000000000", EINVAL),
        "past the last": ("", EINVAL),
    },
)
def test_add_region_userspace_addr(host: Host, address: str, expected: Result) -> None:
    owner, fd = bindable(host, 1)
    past = hex(1 << host.facts.user_bits)
    expect(host.set_user_memory_region2(owner, 0, GUEST_MEMFD, 0, P, address or past, fd, 0), expected)


@table(
    "a slot with guest memory is neither read-only nor dirty-logged, and unknown flags are refused",
    f"{KVM}, check_memory_region_flags()",
    {
        "log dirty": GUEST_MEMFD | LOG_DIRTY,
        "readonly": GUEST_MEMFD | READONLY,
        "8": GUEST_MEMFD | 8,
        "2^31": GUEST_MEMFD | 1 << 31,
    },
)
def test_add_guest_memfd_region_flags(host: Host, flags: int) -> None:
    owner, fd = bindable(host, 1)
    expect(host.set_user_memory_region2(owner, 0, flags, 0, P, None, fd, 0), EINVAL)


@row("KVM_SET_USER_MEMORY_REGION knows nothing of guest_memfd", f"{SLOT_SELFTEST}; {KVM}")
def test_add_region_version_1(host: Host) -> None:
    owner, _ = bindable(host, 1)
    expect(host.set_user_memory_region(owner, 0, GUEST_MEMFD, 0, P), EINVAL)
    expect(host.set_user_memory_region(owner, 0, 0, 0, P), 0)


@table(
    "a slot with guest memory can only be deleted",
    f"{KVM}, kvm_set_memory_region(); {OBSERVED}",
    {
        "identical": (GUEST_MEMFD, 0, 2 * P, 0),
        "move": (GUEST_MEMFD, 8 * P, 2 * P, 0),
        "grow": (GUEST_MEMFD, 0, 3 * P, 0),
        "shrink": (GUEST_MEMFD, 0, P, 0),
        "other offset": (GUEST_MEMFD, 0, 2 * P, 2 * P),
        "no guest_memfd": (0, 0, 2 * P, 0),
        "log dirty": (LOG_DIRTY, 0, 2 * P, 0),
    },
)
def test_modify_guest_memfd_region(host: Host, flags: int, gpa: int, size: int, offset: int) -> None:
    owner, fd = bindable(host, 4)
    ok(bind(host, owner, fd, 0, 0, 2))
    expect(host.set_user_memory_region2(owner, 0, flags, gpa, size, None, fd, offset), EINVAL)


@row("an ordinary slot does not become one with guest memory", KVM)
def test_modify_ordinary_region(host: Host) -> None:
    owner, fd = bindable(host, 1)
    ok(host.set_user_memory_region2(owner, 0, 0, 0, P, None, -1, 0))
    expect(bind(host, owner, fd, 0, 0, 1), EINVAL)
    expect(host.set_user_memory_region2(owner, 0, 0, 0x8000, P, None, -1, 0), 0)
    expect(delete(host, owner, 0), 0)
    expect(bind(host, owner, fd, 0, 0, 1), 0)


@table("a slot is deleted by size 0, whatever else is said", KVM, {"no flag": 0, "flag": GUEST_MEMFD})
def test_delete_guest_memfd_region(host: Host, flags: int) -> None:
    owner, fd = bindable(host, 2)
    ok(bind(host, owner, fd, 3, 0, 2))
    expect(host.set_user_memory_region2(owner, 3, flags, 0, 0, None, fd, 0), 0)
    expect(delete(host, owner, 3), EINVAL)
    expect(bind(host, owner, fd, 3, 0, 2), 0)


@row("a slot that is not there cannot be deleted", KVM)
def test_delete_missing_region(host: Host) -> None:
    expect(delete(host, vm(host), 0), EINVAL)


@table(
    "guest-physical memory is in one slot",
    f"{SLOT_SELFTEST}, test_add_overlapping_private_memory_regions(); {KVM}",
    {"same": (4, 2), "start": (3, 2), "end": (5, 2), "inside": (5, 1), "around": (3, 4)},
)
def test_gpa_overlap(host: Host, page: int, pages: int) -> None:
    owner, fd = bindable(host, 8)
    ok(bind(host, owner, fd, 0, 4 * P, 2))
    expect(bind(host, owner, fd, 1, page * P, pages, 4), EEXIST)
    expect(host.set_user_memory_region2(owner, 1, 0, page * P, pages * P, None, -1, 0), EEXIST)


@row("guest-physical memory is looked at before the file, the range's alignment before both", KVM)
def test_gpa_overlap_first(host: Host) -> None:
    owner, fd = bindable(host, 4)
    ok(bind(host, owner, fd, 0, 0, 1))
    expect(bind(host, owner, -1, 1, 0, 1), EEXIST)
    expect(host.set_user_memory_region2(owner, 1, GUEST_MEMFD, 0, P, None, fd, 1), EINVAL)


@table(
    "a range of a file has one slot",
    f"{SLOT_SELFTEST}, test_add_overlapping_private_memory_regions(); {citations.EEXIST_FOR_OVERLAP}",
    {"same": (2, 2), "start": (1, 2), "end": (3, 2), "inside": (3, 1), "around": (1, 4)},
)
def test_guest_memfd_range_overlap(host: Host, pgoff: int, pages: int) -> None:
    owner, fd = bindable(host, 8)
    ok(bind(host, owner, fd, 0, 0, 2, 2))
    expect(bind(host, owner, fd, 1, 0x100000, pages, pgoff), EEXIST)


@row("a range of a file has one slot, through whichever descriptor", citations.EEXIST_FOR_OVERLAP)
def test_guest_memfd_range_overlap_dup(host: Host) -> None:
    owner, fd = bindable(host, 4)
    ok(bind(host, owner, fd, 0, 0, 4))
    expect(bind(host, owner, ok(host.dup(fd)), 1, 0x100000, 4), EEXIST)


@row("ranges next to each other are bound at any addresses", SLOT_SELFTEST)
def test_guest_memfd_range_adjacent(host: Host) -> None:
    owner, fd = bindable(host, 6)
    expect(bind(host, owner, fd, 0, 0x100000, 2, 2), 0)
    expect(bind(host, owner, fd, 1, 0x200000, 2, 0), 0)
    expect(bind(host, owner, fd, 2, 0x102000, 2, 4), 0)


@row("a range is free again when its slot is deleted", GMEM)
def test_guest_memfd_range_reused(host: Host) -> None:
    owner, fd = bindable(host, 4)
    ok(bind(host, owner, fd, 0, 0, 4))
    ok(delete(host, owner, 0))
    expect(bind(host, owner, fd, 5, 0x400000, 3, 1), 0)


@table(
    "an ordinary slot can be moved, and neither resized nor made read-only",
    f"{KVM}, kvm_set_memory_region()",
    {"the same": (0, 0, 2, 0), "moved": (0, 8, 2, 0), "resized": (0, 0, 3, EINVAL), "read-only": (2, 0, 2, EINVAL)},
)
def test_modify_region(host: Host, flags: int, page: int, pages: int, expected: Result) -> None:
    owner = vm(host)
    ok(host.set_user_memory_region(owner, 0, 0, 0, 2 * P))
    expect(host.set_user_memory_region(owner, 0, flags, page * P, pages * P), expected)


@row("an ordinary slot keeps its userspace_addr", f"{KVM}, kvm_set_memory_region()")
def test_modify_address(host: Host) -> None:
    owner, _, mapping = shared(host, 2)
    ok(host.set_user_memory_region2(owner, 0, 0, 0, P, mapping, -1, 0))
    expect(host.set_user_memory_region2(owner, 0, 0, 0, P, None, -1, 0), EINVAL)


@row("a range stays bound when a neighbour's slot is deleted", GMEM)
def test_guest_memfd_range_overlap_after_delete(host: Host) -> None:
    owner, fd = bindable(host, 4)
    ok(bind(host, owner, fd, 0, 0, 2))
    ok(bind(host, owner, fd, 1, 0x100000, 2, 2))
    ok(delete(host, owner, 0))
    expect(bind(host, owner, fd, 2, 0x200000, 1, 0), 0)
    expect(bind(host, owner, fd, 3, 0x300000, 1, 2), EEXIST)


@row("what fails to be bound leaves nothing bound", GMEM)
def test_guest_memfd_bind_fails(host: Host) -> None:
    owner, fd = bindable(host, 4)
    expect(bind(host, owner, fd, 0, 1 << host.facts.gpa_bits, 4), Errno(host.facts.gpa_error))
    expect(bind(host, owner, fd, 0, 0, 4), 0)


@row("a VM knows KVM_SET_MEMORY_ATTRIBUTES, or says that it does not", KVM)
def test_no_attributes(host: Host) -> None:
    expected = 0 if host.facts.attributes else Errno(host.facts.unknown_vm_ioctl)
    expect(host.vm_memory_attributes(vm(host), 0, P, 0, 0), expected)


@row("a vCPU that cannot pre-fault says so, after it has looked at the range", f"{KVM}, kvm_vcpu_pre_fault_memory()")
def test_no_pre_fault(host: Host) -> None:
    vcpu = ok(host.create_vcpu(vm(host)))
    expect(host.pre_fault(vcpu, 0, 0, 0), EINVAL)
    expect(host.pre_fault(vcpu, 0, P, 0), ENOENT if host.facts.pre_faults else Errno(host.facts.no_pre_fault))


@row(
    "the last slots of a VM can be used, each for a page of one file, and none more",
    f"{SLOT_SELFTEST}, test_add_max_memory_regions()",
)
def test_add_max_guest_memfd_regions(host: Host) -> None:
    slots = min(host.facts.slots, SOME_SLOTS)
    owner, fd = bindable(host, slots + 1)
    first = host.facts.slots - slots
    for number in range(slots):
        expect(bind(host, owner, fd, first + number, number * P, 1, number), 0)
    expect(bind(host, owner, fd, first + slots, slots * P, 1, slots), EINVAL)
    expect(bind(host, owner, fd, 0, (slots - 1) * P, 1, slots), EEXIST)
    expect(delete(host, owner, first + 1), 0)
    expect(bind(host, owner, fd, first + 1, P, 1, slots), 0)


@row("a vCPU of a VM without slots leaves, and KVM says that it can do nothing", f"{SLOT_SELFTEST}, test_zero_memory_regions()")
def test_zero_memory_regions(host: Host) -> None:
    owner = vm(host)
    expect(host.run_bare(owner), KVM_EXIT_INTERNAL_ERROR)
    expect(host.create_vcpu(owner), EEXIST)
    expect(host.run_bare(owner), EEXIST)
