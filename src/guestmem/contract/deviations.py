# SPDX-License-Identifier: Apache-2.0
"""What kernels do otherwise than the contract: data, each with where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from guestmem.contract import citations
from guestmem.contract.results import EEXIST, EINVAL, Result, Signal
from guestmem.linux.facts import Facts

__all__ = ["DEVIATIONS", "Deviation", "known"]


class Deviation(NamedTuple):
    """Of a rule of the contract, a kernel gives ``observed`` where ``expected`` is.

    Attributes:
        kernels: which, in words.
        operation, rule: in a fuzzed program, the operation and the rule that the simulated host names; "" if programs
            are made so that they do not meet it.
        rows: names of rows, or how they begin.
        source: the change upstream, or the code.
        program: the shortest program that shows it: its last operation gives ``shows``.
        state_differs: the kernel did something, so what follows is not comparable.
        cause: which machines have it, if that can be said without running the program.
    """

    kernels: str
    operation: str
    rule: str
    rows: tuple[str, ...]
    expected: Result
    observed: Result
    explanation: str
    source: str
    program: str
    shows: Result
    state_differs: bool = False
    cause: Callable[[Facts], bool] | None = None


DEVIATIONS = (
    Deviation(
        kernels="before 7.2, seen on 6.18",
        operation="set_user_memory_region2",
        rule="a range of a file has one slot",
        rows=("memslot.test_guest_memfd_range_overlap",),
        expected=EEXIST,
        observed=EINVAL,
        explanation="a range of a file that another slot has is refused with EINVAL instead of EEXIST",
        source=f"virt/kvm/guest_memfd.c, kvm_gmem_bind(); {citations.EEXIST_FOR_OVERLAP}",
        program="""\
r0 = host.create_vm()
r1 = host.create_guest_memfd(r0, 0x1000, 0x1)
host.set_user_memory_region2(r0, 0, 4, 0x0, 0x1000, None, r1, 0x0)
host.set_user_memory_region2(r0, 1, 4, 0x1000, 0x1000, None, r1, 0x0)
""",
        shows=EINVAL,
    ),
    Deviation(
        kernels="before 7.2, seen on 6.18",
        operation="set_user_memory_region2",
        rule="the range of a slot ends below 2^63",
        rows=("memslot.test_add_guest_memfd_region_offset_overflow",),
        expected=EINVAL,
        observed=0,
        explanation="a slot whose range ends at 2^63 or above is bound to a smaller file; the guest gets pages past its end",
        source=f"virt/kvm/guest_memfd.c, kvm_gmem_bind(): offset + size is signed; {citations.UNSIGNED}",
        program="""\
r0 = host.create_vm()
r1 = host.create_guest_memfd(r0, 0x1000, 0x3)
host.set_user_memory_region2(r0, 0, 4, 0x0, 0x1000, None, r1, 0x7ffffffffffff000)
r2 = host.create_vcpu(r0)
host.guest_store(r2, 0x0, 1)
host.fallocate(r1, 3, 0, 0x7ffffffffffff000)
host.cachestat(r1, 0, 0)
""",
        shows=1,
        state_differs=True,
    ),
    Deviation(
        kernels="seen on 6.18",
        operation="",
        rule="",
        rows=("mapping.test_mremap_past_largest_offset",),
        expected=Signal("SIGBUS", 0x2000),
        observed=0,
        explanation="a mapping that mremap has grown past offset 2^63 gives pages past the end of the file, "
        "which no hole takes away",
        source="virt/kvm/guest_memfd.c, kvm_gmem_fault_user_mapping(): (loff_t)pgoff << PAGE_SHIFT is negative there, "
        "and so below i_size; mm/mremap.c grows a mapping without a look at the largest offset; no report or change "
        "upstream was found",
        program="""\
r0 = host.create_vm()
r1 = host.create_guest_memfd(r0, 0x1000, 0x3)
r2 = host.mmap(r1, 0x1000, 3, 1, 0x7ffffffffffff000 - 0x1000)
host.mremap(r2, 0x3000)
host.load(r2, 0x2000)
""",
        shows=0,
        state_differs=True,
    ),
    Deviation(
        kernels="KVM with shadow paging, seen on 6.18 with KVM_PVM",
        operation="",
        rule="",
        rows=("stage2.test_memory_is_of_the_file",),
        expected=0,
        observed=0x53,
        explanation="pages next to one that a guest touches come from userspace_addr instead of the file: "
        "what the guest stores to private memory, the host reads",
        source="arch/x86/kvm/mmu/mmu.c, kvm_mmu_prefetch_sptes(), by what it does; no report or change upstream was found",
        program="""\
r0 = host.create_vm()
r1 = host.create_guest_memfd(r0, 0x2000, 0x3)
r2 = host.mmap(r1, 0x2000, 3, 1, 0)
r3 = host.create_guest_memfd(r0, 0x2000, 0x1)
host.load(r2, 0)
host.set_user_memory_region2(r0, 0, 4, 0, 0x2000, r2, r3, 0)
r4 = host.create_vcpu(r0)
host.guest_load(r4, 0x1000)
host.guest_store(r4, 0, 0x53)
host.load(r2, 0)
""",
        shows=0x53,
        state_differs=True,
        cause=lambda facts: facts.shadow_paging,
    ),
)


def known(
    got: object, expected: object, among: Iterable[Deviation], *, row: str = "", operation: str = "", rule: str = ""
) -> Deviation | None:
    """The deviation, of those that a kernel has, that explains a result, of a row or of an operation in a program."""
    for deviation in among:
        here = row.startswith(deviation.rows) if row else (operation, rule) == (deviation.operation, deviation.rule)
        if here and (expected, got) == (deviation.expected, deviation.observed):
            return deviation
    return None
