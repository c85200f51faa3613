# SPDX-License-Identifier: Apache-2.0
"""Punching while the host and a guest fault: everybody sees zeros or what somebody stored, and nothing is left over."""

from __future__ import annotations

from guestmem.contract.interface import Host
from guestmem.contract.rows import GMEM, OBSERVED, bind, expect, has_entries, ok, shared, table

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
