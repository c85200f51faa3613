# SPDX-License-Identifier: Apache-2.0
"""The machine as the host kernel meets it: accesses, faults, table entries, TLB maintenance.

Accesses are sequentially consistent; that locks and TLB invalidation are used so that this is enough is an assumption
(the wDRF condition), not something checked here.
"""

from __future__ import annotations

from enum import Enum
from errno import ENOMEM, EPERM

from guestmem.machine.cost import Cost
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content, Frame, Pfn, is_secret
from guestmem.machine.guest import Guest
from guestmem.model import Record, array, bounded, charge, current, may, require, step
from guestmem.rules import HOST_READS_SECRET, HOST_WRITES_PRIVATE

__all__ = ["Enforcement", "Fault", "Hypervisor", "Machine"]


HYP_PANIC = "HYP panic: BUG in handle_host_mem_abort, the host touched what it does not own"


class Enforcement(Enum):
    """What happens when the host touches a frame that its stage 2 does not map."""

    NONE = 0  # the host has no stage 2: nothing stops it (KVM)
    SEA = 1  # a synchronous external abort is injected (Gunyah)
    S1PTW = 2  # an ordinary abort is injected, marked by S1PTW in ESR_EL1 (pKVM as of 7.3)
    EL2_PANIC = 3  # the hypervisor panics (pKVM as of 6.12)
    RMP = 4  # stores fault; loads get what the guest enciphered (SNP)
    POISON = 5  # nothing faults: loads get no data, and what stores destroy the guest runs into (TDX)
    GPT = 6  # a granule protection fault (CCA)


class Fault(Enum):
    """How an access of the host ended."""

    NONE = 0
    TRANSLATION = 1  # stage 1 has no entry: ESR_EL1.FSC 0x04-0x07
    SEA = 2  # ESR_EL1.FSC 0x10
    S1PTW = 3  # translation fault class, S1PTW set
    EL2 = 4  # no fault arrives: the hypervisor is dead
    DENIED = 5  # the RMP bit of #PF's error code; ESR_EL1.FSC 0x23-0x28


class Hypervisor(Record):
    """What runs at EL2, as far as every host kernel meets it."""

    enforcement: Enforcement = Enforcement.NONE

    def enciphers(self) -> bool:
        """Whether the host sees nothing in what it can load of a guest's."""
        return self.enforcement is Enforcement.RMP or self.enforcement is Enforcement.POISON

    def force_reclaim(self, frame: Frame) -> int:
        """The host kernel faulted on a frame and wants it back, whatever becomes of the guest."""
        return -EPERM

    def vm_stop(self, guest: Guest) -> None:
        """The VM executes no more."""
        guest.stop()


class Machine(Record):
    """Frames, CPUs, and the hypervisor under them.

    Attributes:
        table: a table of the direct map has 2^table entries.
        refusals: by thread, it was refused something and has not been asked for it since.  No part of any machine: only
            the rules look at it.
    """

    hypervisor: Hypervisor
    table: int = bounded("table")
    frames: list[Frame] = array("frames")
    cpus: list[Cpu] = array("cpus")
    guests: list[Guest] = array("vms")
    refusals: list[bool] = array("threads")

    def wire(self) -> None:
        """Number the frames; call from ``setup``."""
        self.table = self._geometry["table"]
        for pfn, frame in enumerate(self.frames):
            frame.pfn = type(frame.pfn)(pfn)
            frame.next = self.frames[pfn + 1] if pfn + 1 < len(self.frames) else None

    def refuse(self) -> None:
        """The running thread cannot have something: memory, or what a hypervisor does not do for it.

        To be said where that is decided: an operation may then fail, and not without.
        """
        self.refusals[current()] = True

    def refused(self) -> bool:
        """Whether the running thread was refused anything since it last asked."""
        refused = self.refusals[current()]
        self.refusals[current()] = False
        return refused

    def translate(self, cpu: Cpu, frame: Frame, write: bool) -> Fault:
        """The fault that an access through the direct map takes."""
        if not frame.present:
            if not cpu.stale[frame.pfn] or not may("the TLB still holds the entry"):
                return Fault.TRANSLATION
        return self.stage2_fault(frame, write)

    def stage2_fault(self, frame: Frame, write: bool) -> Fault:
        """The fault that an access takes in the host's stage 2, or in what says whose frames are."""
        if frame.stage2 or self.hypervisor.enforcement is Enforcement.NONE:
            return Fault.NONE
        if self.hypervisor.enciphers():
            return Fault.DENIED if write and self.hypervisor.enforcement is Enforcement.RMP else Fault.NONE
        if self.hypervisor.enforcement is Enforcement.GPT:
            return Fault.DENIED
        if self.hypervisor.enforcement is Enforcement.SEA:
            return Fault.SEA
        if self.hypervisor.enforcement is Enforcement.S1PTW:
            return Fault.S1PTW
        return Fault.EL2

    def exposes(self, frame: Frame) -> bool:
        """Whether a load of a frame gives a guest's secret."""
        return is_secret(frame.content) and (frame.stage2 or not self.hypervisor.enciphers())

    def private_to_guest(self, frame: Frame) -> bool:
        """Whether some guest has the frame as its private page."""
        return any(guest.holds_private(frame) for guest in self.guests)

    @step
    def load(self, cpu: Cpu, frame: Frame) -> Fault:
        """Read from a frame through the direct map."""
        fault = self.translate(cpu, frame, False)
        if fault is Fault.NONE:
            require(not self.exposes(frame), HOST_READS_SECRET)
        return fault

    @step
    def load_mapped(self, frame: Frame) -> Fault:
        """Read from a frame through another mapping than the direct map: a process's, or one made for it (memremap)."""
        fault = self.stage2_fault(frame, False)
        if fault is Fault.NONE:
            require(not self.exposes(frame), HOST_READS_SECRET)
        return fault

    @step
    def store(self, cpu: Cpu, frame: Frame, content: Content) -> Fault:
        """Overwrite a frame through the direct map."""
        fault = self.translate(cpu, frame, True)
        if fault is Fault.NONE:
            require(not self.private_to_guest(frame), HOST_WRITES_PRIVATE)
            frame.content = content
        return fault

    @step
    def store_mapped(self, frame: Frame, content: Content) -> Fault:
        """Overwrite a frame through another mapping than the direct map: a process's, or one made for it (kmap_local)."""
        fault = self.stage2_fault(frame, True)
        if fault is Fault.NONE:
            require(not self.private_to_guest(frame), HOST_WRITES_PRIVATE)
            frame.content = content
        return fault

    # ---- the host's stage 1

    def leaf_start(self, frame: Frame) -> int:
        """The first frame that the entry of a frame maps."""
        return frame.pfn - frame.pfn % (1 << frame.order)

    def leaf_end(self, frame: Frame) -> int:
        """The end of the frames that the entry of a frame maps."""
        return min(self.leaf_start(frame) + (1 << frame.order), len(self.frames))

    @step
    def split_leaf(self, frame: Frame) -> int:
        """Put a table of entries of the next size in the place of a block entry, by one store; -ENOMEM: no table page."""
        if may("no page for the table"):
            self.refuse()
            return -ENOMEM
        self.enter_table(frame)
        return 0

    @step
    def break_leaf(self, frame: Frame) -> int:
        """The first half of break-before-make: clear a block entry, the page for its table at hand; -ENOMEM: none is."""
        if may("no page for the table"):
            self.refuse()
            return -ENOMEM
        self.set_leaf(frame, False)
        return 0

    @step
    def make_table(self, frame: Frame) -> None:
        """The second half of break-before-make, after the flush."""
        start = self.leaf_start(frame)
        end = self.leaf_end(frame)
        self.enter_table(frame)
        for pfn in Pfn.span(start, end):
            self.frames[pfn].present = True

    def enter_table(self, frame: Frame) -> None:
        """The entries of the next size say what the block entry said."""
        charge(Cost.TABLE_PAGE)
        charge(Cost.BLOCK_SPLIT)
        order = frame.order - self.table
        for pfn in Pfn.span(self.leaf_start(frame), self.leaf_end(frame)):
            self.frames[pfn].order = order

    @step
    def write_descriptor(self, frame: Frame, valid: bool) -> None:
        """Write the entry of a frame; what was valid may stay in TLBs."""
        self.set_leaf(frame, valid)

    def set_leaf(self, frame: Frame, valid: bool) -> None:
        """The part of ``write_descriptor`` that other steps have in them."""
        charge(Cost.DESCRIPTOR_WRITE)
        for pfn in Pfn.span(self.leaf_start(frame), self.leaf_end(frame)):
            page = self.frames[pfn]
            if page.present and not valid:
                for cpu in self.cpus:
                    cpu.stale[pfn] = True
            page.present = valid

    @step
    def tlbi_kernel(self, start: int, end: int) -> None:
        """Invalidate frames start <= pfn < end of the direct map on all CPUs: TLBI VAALE1IS; DSB ISH.

        CPUs lose entries one by one; as each may lack them before, the step is the moment at which the last is gone.
        """
        charge(Cost.KERNEL_FLUSH)
        for pfn in Pfn.span(start, end):
            for cpu in self.cpus:
                cpu.stale[pfn] = False
