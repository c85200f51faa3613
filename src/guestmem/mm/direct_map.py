# SPDX-License-Identifier: Apache-2.0
"""The direct map and the calls that change it, with the values they really return.

arch/arm64/mm/pageattr.c and mmu.c, arch/x86/mm/pat/set_memory.c.  A call is for a folio: 2^order frames, aligned.
What they do is the kernel's (``Kernel``), so that a world can have another.  Drivers get the library's functions and not
these, which are too sharp for modules: answers to "[PATCH v17 19/35] arch/mm:
Export direct {un,}map functions".
"""

from guestmem.machine.frame import Frame
from guestmem.machine.machine import Machine
from guestmem.mm.folio import Kernel
from guestmem.model import exported_to, step

__all__ = [
    "flush_tlb_all",
    "flush_tlb_kernel_range",
    "kernel_page_present",
    "set_direct_map_default_noflush",
    "set_direct_map_invalid_noflush",
]


@exported_to("guestmem.mm", "guestmem.guest_memfd")
def set_direct_map_invalid_noflush(kernel: Kernel, frame: Frame, order: int) -> int:
    """Make the entries of a folio invalid; TLBs may keep them.

    0, also where nothing was done.  -ENOMEM: a block entry cannot be split; nothing was done.
    """
    return kernel.set_direct_map_valid(frame, order, False)


@exported_to("guestmem.mm", "guestmem.guest_memfd")
def set_direct_map_default_noflush(kernel: Kernel, frame: Frame, order: int) -> int:
    """Make the entries of a folio valid again.  Needs no flush: an invalid entry is never in a TLB on arm64 and x86.

    -ENOMEM: the folio is part of a larger one that was made invalid as a block, which cannot be split.
    """
    return kernel.set_direct_map_valid(frame, order, True)


def flush_tlb_kernel_range(machine: Machine, frame: Frame, order: int) -> None:
    """Let no CPU use the entries of a folio any more."""
    machine.tlbi_kernel(frame.pfn, frame.pfn + (1 << order))


def flush_tlb_all(machine: Machine) -> None:
    """Let no CPU use an entry that is not valid any more."""
    machine.tlbi_kernel(0, len(machine.frames))


@step
def kernel_page_present(frame: Frame) -> bool:
    """Whether the direct map has a page now: one load, of its entry.  Nothing keeps the answer true.

    Asked by hibernation and other walkers of memory before they touch a page.
    """
    return frame.present
