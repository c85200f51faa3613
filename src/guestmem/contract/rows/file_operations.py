# SPDX-License-Identifier: Apache-2.0
"""Files of guest memory have no read, no write and no position; most of what works on files does not work on them."""

from __future__ import annotations

from guestmem.contract.interface import Host
from guestmem.contract.operations import FILE_OPERATIONS
from guestmem.contract.results import EINVAL, failed
from guestmem.contract.rows import OBSERVED, SELFTEST, expect, fullest, gmem, ok, row, table

FACTS = {name: facts for name, facts in FILE_OPERATIONS.items() if name != "ftruncate"}


@table(
    "a file of guest memory does not have the operation",
    f"{SELFTEST}, test_file_read_write(); virt/kvm/guest_memfd.c, kvm_gmem_fops; {OBSERVED}",
    {name.replace(" ", "_"): name for name, facts in FACTS.items() if failed(facts.gmem)},
)
def test_file_operation_refused(host: Host, operation: str) -> None:
    _, fd = fullest(host, 1)
    expect(host.file_operation(fd, operation), FACTS[operation].on_gmem(host.facts))
    expect(host.cachestat(fd, 0, 0), 0)


@table(
    "the operation is accepted and does nothing to the memory",
    OBSERVED,
    {name.replace(" ", "_"): name for name, facts in FACTS.items() if not failed(facts.gmem)},
)
def test_file_operation_without_effect(host: Host, operation: str) -> None:
    _, fd = fullest(host, 2)
    expect(host.fallocate(fd, 1, 0, 0x1000), 0)
    expect(host.file_operation(fd, operation), FACTS[operation].gmem)
    expect(host.cachestat(fd, 0, 0), 1)


@table(
    "the size of a file of guest memory is for good",
    "virt/kvm/guest_memfd.c, kvm_gmem_setattr()",
    {"0": 0, "smaller": 0x1000, "the same": 0x2000, "larger": 0x3000, "unaligned": 0x1001, "negative": -1},
)
def test_ftruncate(host: Host, size: int) -> None:
    _, fd = gmem(host, 2)
    expect(host.file_operation(fd, "ftruncate", size), EINVAL)
    expect(host.fstat(fd), (0x2000, 0o100600, 0x1000, 0))


@row("st_size is the size, st_blksize the page size, st_blocks always 0", f"{SELFTEST}, test_file_size(); {OBSERVED}")
def test_file_size(host: Host) -> None:
    _, fd = gmem(host, 4)
    expect(host.fstat(fd), (0x4000, 0o100600, 0x1000, 0))
    ok(host.fallocate(fd, 1, 0, 0x4000))
    expect(host.fstat(fd), (0x4000, 0o100600, 0x1000, 0))


@table("a negative position is refused before the file is asked", "fs/read_write.c", {"pread": "pread", "pwrite": "pwrite"})
def test_negative_position(host: Host, operation: str) -> None:
    _, fd = gmem(host, 1)
    expect(host.file_operation(fd, operation, (1 << 64) - 1), EINVAL)
