# SPDX-License-Identifier: Apache-2.0
"""Punching while the host and a guest fault: everybody sees zeros or what somebody stored, and nothing is left over."""

from __future__ import annotations

from guestmem.contract.host import Host
from guestmem.contract.rows import GMEM, OBSERVED, bind, expect, ok, row, shared

PAGES = 16


@row("punching against the host's faults", f"{GMEM}, invalidate lock; {OBSERVED}")
def test_punch_against_fault(host: Host) -> None:
    _, fd, mapping = shared(host, PAGES)
    expect(host.race_punch("no guest", fd, mapping, PAGES), (0, 0))


@row("punching against a guest under KVM_RUN and the host's faults", f"{GMEM}, kvm_gmem_invalidate_begin(); {OBSERVED}")
def test_punch_against_guest(host: Host) -> None:
    owner, fd, mapping = shared(host, PAGES)
    ok(bind(host, owner, fd, 0, 0, PAGES))
    vcpu = ok(host.create_vcpu(owner))
    expect(host.race_punch(vcpu, fd, mapping, PAGES), (0, 0))
    expect(host.pages_4k(owner), 0)
