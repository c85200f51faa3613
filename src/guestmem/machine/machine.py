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
from guestmem.machine.frame import Content, Frame, is_secret
from guestmem.machine.guest import Guest
from guestmem.model import Record, array, charge, may, require, step

__all__ = ["Enforcement", "Fault", "Hypervisor", "Machine"]

HOST_READS_SECRET = "the host never reads a guest's secret"
HOST_WRITES_PRIVATE = "the host never writes a guest's private page"


HYP_PANIC = "HYP panic: BUG in handle_host_mem_abort, the host touched what it does not own"


class Enforcement(Enum):
    """What happens when the host touches a frame that its stage 2 does not map."""

    NONE = 0  # the host has no stage 2: nothing stops it (KVM)
    SEA = 1  # a synchronous external abort is injected (Gunyah)
    S1PTW = 2  # an ordinary abort is injected, marked by S1PTW in ESR_EL1 (pKVM as of 7.3)
    EL2_PANIC = 3  # the hypervisor panics (pKVM as of 6.12)


class Fault(Enum):
    """How an access of the host ended."""

    NONE = 0
    TRANSLATION = 1  # stage 1 has no entry: ESR_EL1.FSC 0x04-0x07
    SEA = 2  # ESR_EL1.FSC 0x10
    S1PTW = 3  # translation fault class, S1PTW set
    EL2 = 4  # no fault arrives: the hypervisor is dead


class Hypervisor(Record):
    """What runs at EL2, as far as every host kernel meets it."""

    enforcement: Enforcement = Enforcement.NONE

    def force_reclaim(self, frame: Frame) -> int:
        """The host kernel faulted on a frame and wants it back, whatever becomes of the guest."""
        return -EPERM

    def vm_stop(self, guest: Guest) -> None:
        """The VM executes no more."""
        guest.stop()


class Machine(Record):
    """Frames, CPUs, and the hypervisor under them.

    Attributes:
        block: one block entry of stage 1 maps all frames; ``Frame.present`` says what it maps.
    """

    hypervisor: Hypervisor
    block: bool = False
    frames: list[Frame] = array("frames")
    cpus: list[Cpu] = array("cpus")
    guests: list[Guest] = array("vms")

    def wire(self) -> None:
        """Number the frames; call from ``setup``."""
        for pfn, frame in enumerate(self.frames):
            frame.pfn = type(frame.pfn)(pfn)
            frame.next = self.frames[pfn + 1] if pfn + 1 < len(self.frames) else None

    def translate(self, cpu: Cpu, frame: Frame) -> Fault:
        """The fault that an access through the direct map takes."""
        if not frame.present:
            if not cpu.stale[frame.pfn] or not may("the TLB still holds the entry"):
                return Fault.TRANSLATION
        return self.stage2_fault(frame)

    def stage2_fault(self, frame: Frame) -> Fault:
        """The fault that an access takes in the host's stage 2."""
        if frame.stage2 or self.hypervisor.enforcement is Enforcement.NONE:
            return Fault.NONE
        if self.hypervisor.enforcement is Enforcement.SEA:
            return Fault.SEA
        if self.hypervisor.enforcement is Enforcement.S1PTW:
            return Fault.S1PTW
        return Fault.EL2

    def private_to_guest(self, frame: Frame) -> bool:
        """Whether some guest has the frame as its private page."""
        return any(guest.holds_private(frame) for guest in self.guests)

    @step
    def load(self, cpu: Cpu, frame: Frame) -> Fault:
        """Read from a frame through the direct map."""
        fault = self.translate(cpu, frame)
        if fault is Fault.NONE:
            require(not is_secret(frame.content), HOST_READS_SECRET)
        return fault

    @step
    def store(self, cpu: Cpu, frame: Frame, content: Content) -> Fault:
        """Overwrite a frame through the direct map."""
        fault = self.translate(cpu, frame)
        if fault is Fault.NONE:
            require(not self.private_to_guest(frame), HOST_WRITES_PRIVATE)
            frame.content = content
        return fault

    @step
    def store_local(self, frame: Frame, content: Content) -> Fault:
        """Overwrite a frame through a mapping that only this CPU has and drops at once (kmap_local)."""
        fault = self.stage2_fault(frame)
        if fault is Fault.NONE:
            require(not self.private_to_guest(frame), HOST_WRITES_PRIVATE)
            frame.content = content
        return fault

    @step
    def split_block(self) -> int:
        """Replace the block entry by a table of page entries (BBML2: no break before make); -ENOMEM without a table page."""
        if may("no page for the table"):
            return -ENOMEM
        charge(Cost.TABLE_PAGE)
        charge(Cost.BLOCK_SPLIT)
        self.block = False
        return 0

    @step
    def write_descriptor(self, frame: Frame, valid: bool) -> None:
        """Write the page entry of a frame in the direct map; what was valid may stay in TLBs."""
        charge(Cost.DESCRIPTOR_WRITE)
        if frame.present and not valid:
            for cpu in self.cpus:
                cpu.stale[frame.pfn] = True
        frame.present = valid

    @step
    def tlbi_kernel(self, frame: Frame) -> None:
        """Invalidate one page of the direct map on all CPUs: TLBI VAALE1IS; DSB ISH."""
        charge(Cost.KERNEL_FLUSH)
        for cpu in self.cpus:
            cpu.stale[frame.pfn] = False
