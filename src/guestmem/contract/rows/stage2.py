# SPDX-License-Identifier: Apache-2.0
"""Which pages a guest has (KVM's statistic pages_4k), and what it sees there; a guest runs under KVM_RUN."""

from __future__ import annotations

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Advice, Host, Missing
from guestmem.contract.results import EEXIST, EFAULT, MMIO, Result
from guestmem.contract.rows import (
    GMEM,
    INIT_SHARED,
    KEEP,
    KVM,
    MMAP,
    OBSERVED,
    PUNCH,
    SLOT_SELFTEST,
    bind,
    bindable,
    delete,
    expect,
    has_entries,
    ok,
    row,
    shared,
    table,
)
from guestmem.linux.uapi import KVM_EXIT_INTERNAL_ERROR

P = PAGE_SIZE
SOURCE = f"{GMEM}; arch/x86/kvm/mmu/mmu.c; {OBSERVED}"


def guest(host: Host, pages: int, touched: int, flags: int = MMAP | INIT_SHARED) -> tuple[Result, Result, Result]:
    """A VM with a file at gpa 0, the file, and a vCPU whose guest has stored 1, 2, ... into the first pages."""
    owner, fd = bindable(host, pages, flags)
    ok(bind(host, owner, fd, 0, 0, pages))
    vcpu = ok(host.create_vcpu(owner))
    for page in range(touched):
        ok(host.guest_store(vcpu, page * P, page + 1))
    return owner, fd, vcpu


@row("a guest has the pages it touched", SOURCE)
def test_touched_pages(host: Host) -> None:
    owner, fd, vcpu = guest(host, 16, 0)
    expect(host.pages_4k(owner), 0)
    for page in range(5):
        ok(host.guest_load(vcpu, page * P))
        expect(host.pages_4k(owner), page + 1)
    ok(host.guest_load(vcpu, 0))
    expect(host.pages_4k(owner), 5)
    expect(host.cachestat(fd, 0, 0), 5)


@row("allocating gives a guest nothing before it asks", SOURCE)
def test_allocated_pages(host: Host) -> None:
    owner, fd, _ = guest(host, 8, 0)
    ok(host.fallocate(fd, KEEP, 0, 8 * P))
    expect(host.pages_4k(owner), 0)


@table(
    "a hole takes its pages from the guest, and no others",
    SOURCE,
    {"a page": (0, 1, 7), "four": (2, 4, 4), "all": (0, 8, 0), "untouched": (8, 8, 8), "past the end": (16, 16, 8)},
)
def test_punch_hole(host: Host, page: int, pages: int, left: int) -> None:
    owner, fd, _ = guest(host, 16, 8)
    ok(host.fallocate(fd, PUNCH, page * P, pages * P))
    has_entries(host, owner, left)
    expect(host.cachestat(fd, 0, 0), left)


@row("a guest takes a page again after a hole, and it is zero", SOURCE)
def test_touch_after_punch(host: Host) -> None:
    owner, fd, vcpu = guest(host, 4, 4)
    ok(host.fallocate(fd, PUNCH, P, 2 * P))
    expect([host.guest_load(vcpu, page * P) for page in range(4)], [1, 0, 0, 4])
    has_entries(host, owner, 4)


@row("deleting a slot takes everything from the guest", f"{KVM}; arch/x86/kvm/mmu/mmu.c, kvm_arch_flush_shadow_memslot()")
def test_delete_slot(host: Host) -> None:
    owner, fd, vcpu = guest(host, 4, 4)
    ok(delete(host, owner, 0))
    has_entries(host, owner, 0)
    expect(host.guest_load(vcpu, 0), MMIO)
    ok(bind(host, owner, fd, 0, 0, 4))
    expect(host.guest_load(vcpu, P), 2)


@row("deleting one slot takes everything from the guest", "arch/x86/kvm/x86.c, KVM_X86_QUIRK_SLOT_ZAP_ALL")
def test_delete_one_slot(host: Host) -> None:
    owner, _, vcpu = guest(host, 4, 4)
    other = ok(host.create_guest_memfd(owner, P, MMAP | INIT_SHARED))
    ok(bind(host, owner, other, 1, 16 * P, 1))
    ok(host.guest_store(vcpu, 16 * P, 9))
    expect(host.pages_4k(owner), 5)
    ok(delete(host, owner, 1))
    expect(host.pages_4k(owner), 0)
    expect(host.guest_load(vcpu, P), 2)


@row("what one VM has is not counted for another", KVM)
def test_two_vms(host: Host) -> None:
    one, _, _ = guest(host, 4, 4)
    other, _, _ = guest(host, 2, 1)
    expect(host.pages_4k(one), 4)
    expect(host.pages_4k(other), 1)


@row("a guest sees what the host stores, and the other way round", SOURCE)
def test_coherent(host: Host) -> None:
    owner, fd, mapping = shared(host, 2)
    ok(bind(host, owner, fd, 0, 0, 2))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.store(mapping, 9, 4))
    expect(host.guest_load(vcpu, 9), 4)
    ok(host.guest_store(vcpu, 10, 5))
    expect(host.load(mapping, 10), 5)


@row("slots put pages of a file where they say", SOURCE)
def test_slots_in_another_order(host: Host) -> None:
    owner, fd, mapping = shared(host, 4)
    for page in range(4):
        ok(host.store(mapping, page * P, page + 1))
        ok(bind(host, owner, fd, page, (3 - page) * P, 1, page))
    vcpu = ok(host.create_vcpu(owner))
    expect([host.guest_load(vcpu, page * P) for page in range(4)], [4, 3, 2, 1])


@row("two files of a VM are two memories", SOURCE)
def test_two_files(host: Host) -> None:
    owner, one, vcpu = guest(host, 2, 2)
    other = ok(host.create_guest_memfd(owner, 2 * P, MMAP | INIT_SHARED))
    ok(bind(host, owner, other, 1, 16 * P, 2))
    expect(host.guest_load(vcpu, 16 * P), 0)
    ok(host.guest_store(vcpu, 16 * P, 9))
    expect(host.guest_load(vcpu, 0), 1)
    has_entries(host, owner, 3)
    ok(host.fallocate(one, PUNCH, 0, 2 * P))
    has_entries(host, owner, 1)
    expect(host.guest_load(vcpu, 16 * P), 9)


@row("where no slot is, a guest meets MMIO", KVM)
def test_no_slot(host: Host) -> None:
    _, _, vcpu = guest(host, 2, 0)
    expect(host.guest_load(vcpu, 2 * P), MMIO)
    expect(host.guest_store(vcpu, 2 * P, 1), MMIO)


@row("memory that the host may not see is the guest's", SOURCE)
def test_private_memory(host: Host) -> None:
    owner, _, vcpu = guest(host, 4, 3, MMAP)
    expect([host.guest_load(vcpu, page * P) for page in range(4)], [1, 2, 3, 0])
    has_entries(host, owner, 4)


@row("dropping the host's mapping takes nothing from a guest", OBSERVED)
def test_madvise_dontneed(host: Host) -> None:
    owner, fd, mapping = shared(host, 4)
    ok(bind(host, owner, fd, 0, 0, 4))
    vcpu = ok(host.create_vcpu(owner))
    for page in range(4):
        ok(host.guest_store(vcpu, page * P, 1))
    ok(host.madvise(mapping, 0, 4 * P, Advice.DONTNEED))
    expect(host.pages_4k(owner), 4)


@row("a guest's memory is the file's, whatever is mapped at userspace_addr", f"{GMEM}; KVM_MEMSLOT_GMEM_ONLY")
def test_memory_is_of_the_file(host: Host) -> None:
    owner, other, mapping = shared(host, 2)
    private = ok(host.create_guest_memfd(owner, 2 * P, MMAP))
    ok(host.fallocate(other, KEEP, 0, 2 * P))
    expect(host.load(mapping, 0), 0)
    ok(host.set_user_memory_region2(owner, 0, 4, 0, 2 * P, mapping, private, 0))
    vcpu = ok(host.create_vcpu(owner))
    ok(host.guest_load(vcpu, P))
    ok(host.guest_store(vcpu, 0, 0x53))
    expect(host.load(mapping, 0), 0)
    expect(host.cachestat(private, 0, 0), 2)


@row("a VM has one vCPU of a number", KVM)
def test_second_vcpu(host: Host) -> None:
    owner, _, _ = guest(host, 1, 0)
    expect(host.create_vcpu(owner), EEXIST)


@row("a vCPU whose slots are elsewhere leaves and can do nothing, and takes nothing of the file", f"{SLOT_SELFTEST}; {KVM}")
def test_run_away_from_slots(host: Host) -> None:
    owner, fd = bindable(host, 2)
    ok(bind(host, owner, fd, 0, 0, 2))
    expect(host.run_bare(owner), KVM_EXIT_INTERNAL_ERROR)
    expect(host.cachestat(fd, 0, 0), 0)


# ---- above 4 GiB

FOUR_GIB = 1 << 32


@table(
    "a guest has memory at any address: what it stores is there, is counted, and goes with a hole",
    SOURCE,
    {"3 GiB": 3 << 30, "4 GiB": FOUR_GIB, "far above": FOUR_GIB + (700 << 20)},
)
def test_high_memory(host: Host, gpa: int) -> None:
    owner, fd = bindable(host, 4, MMAP | INIT_SHARED)
    ok(bind(host, owner, fd, 0, gpa, 4))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.guest_load(vcpu, gpa), 0)
    expect(host.guest_store(vcpu, gpa + 3 * P + 5, 7), 0)
    expect(host.guest_load(vcpu, gpa + 3 * P + 5), 7)
    has_entries(host, owner, 2)
    expect([host.cachestat(fd, page * P, P) for page in range(4)], [1, 0, 0, 1])
    ok(host.fallocate(fd, PUNCH, 3 * P, P))
    has_entries(host, owner, 1)
    expect(host.guest_load(vcpu, gpa + 3 * P + 5), 0)


@row("a slot may lie on both sides of 4 GiB, and its pages are the file's in their order", f"{KVM}; {SOURCE}")
def test_slot_across_4gib(host: Host) -> None:
    owner, fd, mapping = shared(host, 4)
    start = FOUR_GIB - 2 * P
    ok(bind(host, owner, fd, 0, start, 4))
    vcpu = ok(host.create_vcpu(owner))
    for page in range(4):
        ok(host.guest_store(vcpu, start + page * P, page + 1))
    expect([host.load(mapping, page * P) for page in range(4)], [1, 2, 3, 4])
    has_entries(host, owner, 4)
    ok(host.fallocate(fd, PUNCH, P, 2 * P))
    has_entries(host, owner, 2)
    expect([host.guest_load(vcpu, start + page * P) for page in range(4)], [1, 0, 0, 4])


@row("addresses that are equal below 4 GiB are two memories", f"{KVM}; {SOURCE}")
def test_high_and_low_memory(host: Host) -> None:
    owner, low, vcpu = guest(host, 2, 2)
    high = ok(host.create_guest_memfd(owner, 2 * P, MMAP | INIT_SHARED))
    expect(host.guest_load(vcpu, FOUR_GIB), MMIO)
    ok(bind(host, owner, high, 1, FOUR_GIB, 2))
    expect(host.guest_load(vcpu, FOUR_GIB), 0)
    ok(host.guest_store(vcpu, FOUR_GIB + P, 9))
    expect([host.guest_load(vcpu, page * P) for page in range(2)], [1, 2])
    has_entries(host, owner, 4)
    ok(host.fallocate(low, PUNCH, 0, 2 * P))
    has_entries(host, owner, 2)
    expect(host.guest_load(vcpu, FOUR_GIB + P), 9)


@row("around a slot above 4 GiB a guest meets MMIO, and everywhere when it is deleted", KVM)
def test_no_slot_above_4gib(host: Host) -> None:
    owner, fd = bindable(host, 2, MMAP | INIT_SHARED)
    ok(bind(host, owner, fd, 0, FOUR_GIB, 2))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.guest_load(vcpu, FOUR_GIB - 1), MMIO)
    expect(host.guest_store(vcpu, FOUR_GIB + 2 * P, 1), MMIO)
    ok(host.guest_store(vcpu, FOUR_GIB + 2 * P - 1, 1))
    ok(delete(host, owner, 0))
    expect(host.guest_load(vcpu, FOUR_GIB + 2 * P - 1), MMIO)
    has_entries(host, owner, 0)


# ---- memory through userspace_addr


def through_userspace(host: Host, flags: int = 0, prot: int = 3) -> tuple[Result, Result, Result]:
    """A file, a mapping of it, and the vCPU of a VM whose ordinary slot is another."""
    owner, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 5))
    window = ok(host.mmap(fd, 2 * P, prot, 1, 0))
    ok(host.set_user_memory_region2(owner, 0, flags, 0, 2 * P, window, -1, 0))
    return fd, mapping, ok(host.create_vcpu(owner))


@row("ordinary memory of a guest is what is mapped at userspace_addr", f"{KVM}, hva_to_pfn(); {OBSERVED}")
def test_userspace_memory(host: Host) -> None:
    fd, mapping, vcpu = through_userspace(host)
    expect(host.guest_load(vcpu, 0), 5)
    expect(host.guest_store(vcpu, P, 6), 0)
    expect(host.load(mapping, P), 6)
    ok(host.fallocate(fd, PUNCH, 0, 2 * P))
    expect(host.guest_load(vcpu, P), 0)


@row("a store to a read-only slot leaves the guest, and the memory as it is", f"{KVM}, KVM_MEM_READONLY; {OBSERVED}")
def test_userspace_read_only_slot(host: Host) -> None:
    _, mapping, vcpu = through_userspace(host, flags=2)
    expect(host.guest_load(vcpu, 0), 5)
    expect(host.guest_store(vcpu, 0, 9), MMIO)
    expect(host.load(mapping, 0), 5)


@row("a store through a mapping for reading is a fault", f"{KVM}, hva_to_pfn(); {OBSERVED}")
def test_userspace_read_only_mapping(host: Host) -> None:
    _, mapping, vcpu = through_userspace(host, prot=1)
    expect(host.guest_load(vcpu, 0), 5)
    expect(host.guest_store(vcpu, 0, 9), EFAULT)
    expect(host.load(mapping, 0), 5)


@row(
    "without GUEST_MEMFD_FLAG_MMAP what is not private is at userspace_addr, where VMs say what is private, and not files",
    f"{KVM}; {OBSERVED}; {citations.IN_PLACE}",
)
def test_file_that_cannot_be_mapped(host: Host) -> None:
    if 0 not in host.facts.bindable:
        raise Missing("a VM whose slots take guest_memfd without GUEST_MEMFD_FLAG_MMAP")
    owner, _, mapping = shared(host, 1)
    ok(host.store(mapping, 0, 5))
    private = ok(host.create_guest_memfd(owner, P, 0))
    ok(host.set_user_memory_region2(owner, 0, 4, 0, P, mapping, private, 0))
    expect(host.guest_load(ok(host.create_vcpu(owner)), 0), 0 if host.facts.file_only else 5)
    expect(host.cachestat(private, 0, 0), int(host.facts.file_only))


@row("where nothing is mapped at userspace_addr, a guest's access fails", KVM)
def test_userspace_nothing(host: Host) -> None:
    owner, _, vcpu = guest(host, 1, 0)
    ok(host.set_user_memory_region(owner, 1, 0, 16 * P, P))
    expect(host.guest_load(vcpu, 16 * P), EFAULT)


@row("moving a slot takes everything from the guest", "arch/x86/kvm/x86.c, KVM_X86_QUIRK_SLOT_ZAP_ALL")
def test_move_slot(host: Host) -> None:
    owner, _, _ = guest(host, 1, 1)
    ok(host.set_user_memory_region(owner, 1, 0, 16 * P, P))
    expect(host.pages_4k(owner), 1)
    ok(host.set_user_memory_region(owner, 1, 0, 32 * P, P))
    expect(host.pages_4k(owner), 0)


@row("what is left of a file that was closed is nobody's", f"{GMEM}, kvm_gmem_release()")
def test_closed_file(host: Host) -> None:
    owner, fd, _ = guest(host, 2, 2)
    ok(host.close(fd))
    other, _, _ = guest(host, 2, 2)
    expect(host.pages_4k(owner), 0)
    expect(host.pages_4k(other), 2)
