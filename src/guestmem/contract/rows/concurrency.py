# SPDX-License-Identifier: Apache-2.0
"""Punching and taking slots while others fault: everybody sees zeros or what somebody stored, and nothing is left over."""

from __future__ import annotations

from guestmem.contract.interface import PAGE_SIZE, Host
from guestmem.contract.results import MMIO
from guestmem.contract.rows import (
    GMEM,
    INIT_SHARED,
    KVM,
    MMAP,
    OBSERVED,
    SLOT_SELFTEST,
    bind,
    bindable,
    expect,
    has_entries,
    ok,
    shared,
    table,
)

SIZES = {"few pages": 2, "many pages": 16}


@table("punching against the host's faults", f"{GMEM}, invalidate lock; {OBSERVED}", SIZES)
def test_punch_against_fault(host: Host, pages: int) -> None:
    _, fd, mapping = shared(host, pages)
    expect(host.race_punch(None, fd, mapping, pages), (0, 0))


@table("punching against a guest under KVM_RUN and the host's faults", f"{GMEM}, kvm_gmem_invalidate_begin(); {OBSERVED}", SIZES)
def test_punch_against_guest(host: Host, pages: int) -> None:
    owner, fd, mapping = shared(host, pages)
    ok(bind(host, owner, fd, 0, 0, pages))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.race_punch(vcpu, fd, mapping, pages), (0, 0))
    has_entries(host, owner, 0)


@table(
    "a slot that is deleted and made again under a running guest has what the guest stored, or is not there",
    f"{KVM}, kvm_swap_active_memslots(); {SLOT_SELFTEST}, test_delete_memory_region()",
    SIZES,
)
def test_delete_slot_under_guest(host: Host, pages: int) -> None:
    owner, fd = bindable(host, pages, MMAP | INIT_SHARED)
    vcpu = ok(host.create_vcpu(owner))
    expect(host.race_slot(owner, vcpu, "delete", fd, pages), 0)
    has_entries(host, owner, 0)
    expect(host.cachestat(fd, 0, 0), pages)
    expect(host.guest_load(vcpu, 0), MMIO)
    expect(bind(host, owner, fd, 1, 0, pages), 0)


@table(
    "a slot whose file is closed under a running guest has zeros or what the guest stored, or is not there",
    f"{GMEM}, kvm_gmem_release(); {KVM}, kvm_swap_active_memslots()",
    SIZES,
)
def test_close_file_under_guest(host: Host, pages: int) -> None:
    owner, _ = bindable(host, 1, MMAP | INIT_SHARED)
    vcpu = ok(host.create_vcpu(owner))
    expect(host.race_slot(owner, vcpu, "close", MMAP | INIT_SHARED, pages), 0)
    has_entries(host, owner, 0)
    expect(host.guest_load(vcpu, 0), MMIO)


@table(
    "a slot that is moved under a running guest has what the guest stored, or is not there",
    f"{KVM}, kvm_swap_active_memslots(); {SLOT_SELFTEST}, test_move_memory_region()",
    SIZES,
)
def test_move_slot_under_guest(host: Host, pages: int) -> None:
    owner, _, mapping = shared(host, pages)
    vcpu = ok(host.create_vcpu(owner))
    expect(host.race_slot(owner, vcpu, "move", mapping, pages), 0)
    has_entries(host, owner, 0)
    expect([host.guest_load(vcpu, page * PAGE_SIZE) for page in (0, pages)], [MMIO, MMIO])
