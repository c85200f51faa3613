# SPDX-License-Identifier: Apache-2.0
"""The direct map and the calls that change it, with the values they really return.

arm64, with page entries from boot on (rodata=full) or block entries that are split when needed (BBML2):
arch/arm64/mm/pageattr.c.
"""

from guestmem.machine.frame import Frame
from guestmem.machine.machine import Machine
from guestmem.mm.folio import Kernel

__all__ = [
    "can_set_direct_map",
    "flush_tlb_kernel_range",
    "kernel_page_present",
    "set_direct_map_default_noflush",
    "set_direct_map_invalid_noflush",
]


def can_set_direct_map(kernel: Kernel) -> bool:
    """Whether single pages of the direct map can be changed; if not, the calls below return 0 and do nothing."""
    return kernel.rodata_full


def set_direct_map_invalid_noflush(kernel: Kernel, frame: Frame) -> int:
    """Make the entry of a page invalid; TLBs may keep it.

    0, also where nothing was done.  -ENOMEM: its block entry cannot be split.
    """
    if not can_set_direct_map(kernel):
        return 0
    if kernel.machine.block:
        err = kernel.machine.split_block()
        if err:
            return err
    kernel.machine.write_descriptor(frame, False)
    return 0


def set_direct_map_default_noflush(kernel: Kernel, frame: Frame) -> int:
    """Make the entry of a page valid again.  Needs no flush: an invalid entry is never in a TLB on arm64."""
    if not can_set_direct_map(kernel):
        return 0
    kernel.machine.write_descriptor(frame, True)
    return 0


def flush_tlb_kernel_range(machine: Machine, frame: Frame) -> None:
    """Let no CPU use the entry of a page any more."""
    machine.tlbi_kernel(frame)


def kernel_page_present(frame: Frame) -> bool:
    """Whether the direct map has a page (asked by hibernation and other walkers of memory before they touch it)."""
    return frame.present
