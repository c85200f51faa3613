# SPDX-License-Identifier: Apache-2.0
"""Hibernation: whether it may be, and how the image is made (kernel/power/hibernate.c, snapshot.c)."""

from __future__ import annotations

from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Frame
from guestmem.mm.direct_map import (
    flush_tlb_kernel_range,
    kernel_page_present,
    set_direct_map_default_noflush,
    set_direct_map_invalid_noflush,
)
from guestmem.mm.exception import kernel_load
from guestmem.mm.folio import Kernel
from guestmem.model import step

__all__ = ["hibernation_available", "safe_copy_page", "snapshot"]


def hibernation_available(kernel: Kernel) -> bool:
    """Whether nobody has memory that must not get into an image.

    Three questions, between which others run.  What is lost is asked last: a file that closes may leave it behind.
    """
    return not secretmem_active(kernel) and not guest_memfd_active(kernel) and not memory_lost(kernel)


@step
def secretmem_active(kernel: Kernel) -> bool:
    """Whether somebody has secret memory: one load of a counter."""
    return kernel.secretmem_users > 0


@step
def guest_memfd_active(kernel: Kernel) -> bool:
    """The same for guest memory."""
    return kernel.guest_memfd_users > 0


@step
def memory_lost(kernel: Kernel) -> bool:
    """Whether a page was given up, of which nobody knows who owns it: one load of a flag that stays."""
    return kernel.lost


def snapshot(kernel: Kernel, cpu: Cpu) -> None:
    """Copy all of memory, while no process runs and no other CPU (copy_data_pages).

    So nothing comes between what ``safe_copy_page`` asks and what it loads, though these are steps of their own.
    """
    for frame in kernel.machine.frames:
        safe_copy_page(kernel, cpu, frame)


def safe_copy_page(kernel: Kernel, cpu: Cpu, frame: Frame) -> None:
    """Copy a page.  One that the direct map does not have is not left out: it is mapped for the time."""
    if kernel_page_present(frame):
        kernel_load(kernel, cpu, frame)
    else:
        set_direct_map_default_noflush(kernel, frame, 0)
        kernel_load(kernel, cpu, frame)
        set_direct_map_invalid_noflush(kernel, frame, 0)
        flush_tlb_kernel_range(kernel.machine, frame, 0)
