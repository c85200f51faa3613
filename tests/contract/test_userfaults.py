# SPDX-License-Identifier: Apache-2.0
"""What the rows of userfaultfd and write(2) take for granted of the kernel's host, by an ordinary memfd."""

from __future__ import annotations

import platform

import pytest

from guestmem.contract.conform import kernel_host
from guestmem.contract.program import MISSING, parsed, perform
from guestmem.contract.results import EAGAIN, EEXIST, EFAULT, EINVAL, ENOENT, Result, Signal
from guestmem.linux.process import Worker
from requires import require

P = 0x1000


def results(program: str) -> list[Result]:
    """What the kernel gives; skipped where it lacks something."""
    require("kvm")
    with Worker(kernel_host, perform) as worker:
        found = [step.result for step in worker.do(parsed(program))]
    if MISSING in found:
        pytest.skip("userfaultfd is not allowed here")
    return found


def test_faults_are_signals_until_they_are_resolved() -> None:
    if platform.machine() != "x86_64":
        pytest.skip("loads and stores are a child's here")
    _, plain, mapping, _, *found = results(
        """
file = host.memfd_create(0x4000)
plain = host.mmap(file, 0x4000, 3, 1, 0)
mapping = host.mmap(file, 0x4000, 3, 1, 0)
faults = host.userfaultfd(mapping, 0, 0x4000, 5)
host.load(mapping, 8)
host.uffdio_copy(faults, mapping, 0, 0x1000, 7)
host.load(mapping, 0xfff)
host.uffdio_copy(faults, mapping, 0, 0x1000, 8)
host.store(plain, 0x1000, 5)
host.load(mapping, 0x1000)
host.write_pipe(mapping, 0x1000, 1)
host.uffdio_continue(faults, plain, 0x1000, 0x1000)
host.uffdio_continue(faults, mapping, 0x1000, 0x2000)
host.load(mapping, 0x1000)
host.uffdio_continue(faults, mapping, 0x1000, 0x1000)
host.uffdio_continue(faults, mapping, 0x2000, 0x1000)
host.uffdio_zeropage(faults, mapping, 0x2000, 0x1000)
host.in_page_table(mapping, 0x2000)
host.in_page_table(mapping, 0x3000)
host.in_child("load", mapping, 0x3000)
host.close(faults)
host.load(mapping, 0x3000)
"""
    )
    assert isinstance(plain, int) and isinstance(mapping, int)
    told = Signal("SIGBUS", 8), Signal("SIGBUS", P)
    there = [told[0], 0, 7, EEXIST, 0, told[1], EFAULT, ENOENT, EAGAIN, 5, EEXIST, EFAULT]
    assert found == [*there, 0, 1, 0, 0, 0, 0]


def test_writes_go_on_from_a_position() -> None:
    _, *found = results(
        """
file = host.memfd_create(0x4000)
host.write(file, 0x1000, 1)
host.pwrite(file, 0, 0x800, 2)
host.file_operation(file, "lseek cur")
host.file_operation(file, "lseek end")
host.file_operation(file, "lseek set", -1)
"""
    )
    assert found == [P, 0x800, P, 4 * P, EINVAL]
