# SPDX-License-Identifier: Apache-2.0
"""The exception path, and who touches memory uninvited.

Which fault reaches the exception table and which kills is as arm64 has it: arch/arm64/mm/fault.c, do_mem_abort.
"""

from __future__ import annotations

from enum import Enum

from guestmem.machine.cost import Cost
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content, Frame
from guestmem.machine.machine import HYP_PANIC, Fault
from guestmem.mm.direct_map import kernel_page_present
from guestmem.mm.folio import Kernel
from guestmem.model import charge, panic

__all__ = [
    "Loaded",
    "copy_from_kernel_nofault",
    "copy_oldmem_page",
    "do_mem_abort",
    "kernel_load",
    "kernel_store",
    "load_unaligned_zeropad",
    "load_with_fixup",
    "read_present_page",
]


class Loaded(Enum):
    """What a load that may be fixed up gave."""

    DATA = 0  # what is there
    PADDED = 1  # zeros for what could not be reached, or -EFAULT


def fixup_exception() -> None:
    """Continue at the fixup of the faulting instruction (arch/arm64/mm/extable.c)."""
    charge(Cost.FIXUP)


def do_mem_abort(kernel: Kernel, fault: Fault, frame: Frame, has_entry: bool) -> Loaded:
    """Handle the fault of an access through the direct map; DATA means: try again.

    ``has_entry``: the faulting instruction has an entry in the exception table.
    """
    # do_translation_fault -> do_bad_area -> __do_kernel_fault, for S1PTW too; bad_area_nosemaphore -> kernelmode_fixup_or_oops
    # on x86; do_gpf ("arm64: mm: Handle Granule Protection Faults").
    consults = fault is Fault.TRANSLATION or fault is Fault.S1PTW or fault is Fault.DENIED
    # do_sea does not consult the exception table; the protection "fixup" makes it do so.
    if has_entry and (consults or (fault is Fault.SEA and kernel.fixup_stage2)):
        fixup_exception()
        return Loaded.PADDED
    if fault is Fault.TRANSLATION:
        panic("unable to handle kernel paging request: the direct map has no entry for the page")
    if fault is Fault.SEA:
        panic("synchronous external abort: the hypervisor gave the page to a guest, and do_sea finds no fixup")
    if fault is Fault.DENIED:
        panic("the host ran into a page that its RMP or granule protection table gives to a guest")
    if fault is Fault.S1PTW:
        # A spurious fault to stage 1, as AT S1E1R succeeds: the handler asks EL2 for the page.
        if kernel.machine.hypervisor.force_reclaim(frame) == 0:
            return Loaded.DATA
        panic("unable to handle kernel access to hypervisor-protected memory")
    panic(HYP_PANIC)


def kernel_load(kernel: Kernel, cpu: Cpu, frame: Frame) -> None:
    """A plain load of the kernel from a page: no exception-table entry."""
    fault = kernel.machine.load(cpu, frame)
    while fault is not Fault.NONE:
        do_mem_abort(kernel, fault, frame, has_entry=False)
        fault = kernel.machine.load(cpu, frame)


def kernel_store(kernel: Kernel, cpu: Cpu, frame: Frame, content: Content) -> None:
    """A plain store of the kernel that overwrites a page."""
    fault = kernel.machine.store(cpu, frame, content)
    while fault is not Fault.NONE:
        do_mem_abort(kernel, fault, frame, has_entry=False)
        fault = kernel.machine.store(cpu, frame, content)


def load_with_fixup(kernel: Kernel, cpu: Cpu, frame: Frame) -> Loaded:
    """A load of the kernel whose instruction has an exception-table entry."""
    fault = kernel.machine.load(cpu, frame)
    if fault is Fault.NONE:
        return Loaded.DATA
    return do_mem_abort(kernel, fault, frame, has_entry=True)


def load_unaligned_zeropad(kernel: Kernel, cpu: Cpu, frame: Frame) -> Loaded:
    """Load eight bytes that begin at the end of ``frame``, which the caller may read, and run into the next.

    Word-at-a-time string code (path lookup) does this; the bytes of the next page do not matter to it.  The fixup reads
    what lies in ``frame`` once more, and that read has no fixup.
    arch/arm64/include/asm/word-at-a-time.h, arch/arm64/mm/extable.c: ex_handler_load_unaligned_zeropad
    """
    if frame.next is None:
        return Loaded.DATA
    loaded = load_with_fixup(kernel, cpu, frame.next)
    if loaded is Loaded.PADDED:
        kernel_load(kernel, cpu, frame)
    return loaded


def copy_from_kernel_nofault(kernel: Kernel, cpu: Cpu, frame: Frame) -> Loaded:
    """Read a page that may be anybody's (/proc/kcore, kgdb): PADDED is -EFAULT."""
    return load_with_fixup(kernel, cpu, frame)


def copy_oldmem_page(kernel: Kernel, frame: Frame) -> None:
    """Read a page through a mapping made for it, as a crash dump does; no exception-table entry."""
    fault = kernel.machine.load_mapped(frame)
    while fault is not Fault.NONE:
        do_mem_abort(kernel, fault, frame, has_entry=False)
        fault = kernel.machine.load_mapped(frame)


def read_present_page(kernel: Kernel, cpu: Cpu, frame: Frame) -> None:
    """Read a page if the direct map has it; no exception-table entry.

    As careful as code can be that knows of the direct map and of no hypervisor: stage 1 is asked, stage 2 cannot be.  The
    page can leave the direct map after the question, unless the caller has stopped all other CPUs.
    """
    if kernel_page_present(frame):
        kernel_load(kernel, cpu, frame)
