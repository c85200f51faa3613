# SPDX-License-Identifier: Apache-2.0
"""Memory cgroups and signals."""

from __future__ import annotations

from guestmem.contract.interface import Host
from guestmem.contract.results import EINTR, Signal
from guestmem.contract.rows import GMEM, OBSERVED, expect, gmem, row, vm

MIB = 1 << 20


@row("a signal ends a large allocation, and what was allocated stays", f"{GMEM}, kvm_gmem_allocate(); {OBSERVED}")
def test_fallocate_signalled(host: Host) -> None:
    _, fd = gmem(host, 1 << 16)
    expect(host.fallocate_signalled(fd, 256 * MIB), (EINTR, 1))


@row("pages are charged to the memory cgroup of who allocates: over its limit it is killed", OBSERVED)
def test_memory_cgroup_over_limit(host: Host) -> None:
    vm(host)
    expect(host.allocate_limited(8 * MIB, 9 * MIB), Signal("SIGKILL"))


@row("below the limit of a memory cgroup nothing happens", OBSERVED)
def test_memory_cgroup_below_limit(host: Host) -> None:
    vm(host)
    expect(host.allocate_limited(8 * MIB, 1 * MIB), 0)


@row(
    "the pages of a file count as page cache of the cgroup of who allocates, and no more after a hole",
    f"mm/filemap.c; {OBSERVED}",
)
def test_memory_cgroup_charge(host: Host) -> None:
    vm(host)
    expect(host.charge(4 * MIB), (1024, 0))
