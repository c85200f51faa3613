# SPDX-License-Identifier: Apache-2.0
"""Confidential computing: SNP, TDX and CCA as clients of the library, told apart by what their firmware does differently.

As far as their public architectures say: AMD APM volume 2, 15.36 (the RMP); Intel TDX module ABI (TDH.MEM.PAGE.*); Arm RMM
specification (RMI_GRANULE_*, RMI_DATA_*).  What a guest has as private, only its own accesses can decipher or reach.
"""

from __future__ import annotations

from errno import ENOMEM, EPERM

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.machine.cost import Cost
from guestmem.machine.frame import Content, Frame
from guestmem.machine.guest import Gfn, Guest
from guestmem.machine.machine import Hypervisor, Machine
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio, folio_page
from guestmem.model import array, charge, may, step

__all__ = ["Confidential", "ConfidentialDriver"]


class Confidential(Hypervisor):
    """What the host asks of the firmware.

    Attributes:
        zap_destroys: what leaves a guest's private stage 2 is gone, and its page zero when it is there again (TDX: PAGE.REMOVE,
            PAGE.AUG and the guest's ACCEPT; CCA: DATA_DESTROY).  Otherwise it is as it was when mapped again (SNP, whose nested
            page tables are the host's and say nothing of whose a page is).
        accepted: by frame, whether the guest that has it said so (SNP: PVALIDATE; TDX: PAGE.ACCEPT; CCA: RIPAS is RAM).  It does
            not use a page before, and is told when it runs into one that is not, or not any more.
        owner: which guest has a frame (its entry of the RMP or the PAMT, the state of its granule); None: it is the host's.
        demotes: a block entry is made entries of pages before one of them goes (TDX: PAGE.DEMOTE; CCA: RTT_CREATE).
    """

    machine: Machine
    zap_destroys: bool = False
    demotes: bool = True
    owner: list[Guest | None] = array("frames")
    accepted: list[bool] = array("frames")

    @step
    def assign(self, guest: Guest, gfn: Gfn, frame: Frame, order: int) -> int:
        """Give a guest 2^order frames, or what is its own once more.  -ENOMEM: no page for a table; -EPERM: another's.

        SNP: RMPUPDATE, and an entry in the nested page table; TDX: PAGE.AUG; CCA: GRANULE_DELEGATE, DATA_CREATE_UNKNOWN.
        """
        charge(Cost.HYPERCALL)
        for pfn in range(frame.pfn, frame.pfn + (1 << order)):
            owner = self.owner[pfn]
            if owner is not None and owner is not guest:
                return -EPERM
        if may("no page for a table of the guest"):
            self.machine.refuse()
            return -ENOMEM
        for pfn in range(frame.pfn, frame.pfn + (1 << order)):
            if self.owner[pfn] is None:
                self.accepted[pfn] = False
            self.owner[pfn] = guest
            self.machine.frames[pfn].stage2 = False
        guest.enter(gfn, frame, order, True)
        return 0

    @step
    def destroy(self, guest: Guest, gfn: Gfn) -> None:
        """Take an entry out of a guest's private stage 2, all of a block, and what is in it.

        TDX: RANGE.BLOCK, TRACK, PAGE.REMOVE; one step, as faults of the guest wait for the host, and REMOVE for TRACK.
        CCA: DATA_DESTROY.
        """
        charge(Cost.HYPERCALL)
        charge(Cost.GUEST_FLUSH)
        start = guest.block_start(gfn)
        for at in Gfn.span(start, start + (1 << guest.entries[gfn].order)):
            frame = guest.entries[at].frame
            if frame is not None:
                frame.content = Content.ZERO
                self.accepted[frame.pfn] = False
                guest.forget(at)

    @step
    def demote(self, guest: Guest, gfn: Gfn) -> int:
        """Put a table of entries of pages in the place of a block entry.  -ENOMEM: there is no page for it."""
        charge(Cost.HYPERCALL)
        if may("no page for a table of the guest"):
            self.machine.refuse()
            return -ENOMEM
        start = guest.block_start(gfn)
        for at in Gfn.span(start, start + (1 << guest.entries[gfn].order)):
            guest.entries[at].order = 0
        return 0

    @step
    def release(self, frame: Frame) -> None:
        """The host has a frame again: noise if it reads what a guest left, or zeros.

        SNP: RMPUPDATE; TDX: PHYMEM.PAGE.WBINVD and a clear by MOVDIR64B; CCA: GRANULE_UNDELEGATE, which has wiped it.
        """
        charge(Cost.HYPERCALL)
        self.owner[frame.pfn] = None
        self.accepted[frame.pfn] = False
        frame.content = Content.ZERO
        frame.stage2 = True


class ConfidentialDriver(KvmDriver):
    """KVM's part for VMs of these kinds (kvm_gmem_prepare, kvm_gmem_invalidate and their like)."""

    hypervisor: Confidential

    def provide(self, file: GuestMemfd, guest: Guest, pgoff: Pgoff, folio: Folio) -> int:
        """A private page becomes the guest's when it touches it, at the size of the folio."""
        if file.shared[pgoff]:
            return super().provide(file, guest, pgoff, folio)
        if guest.entries[file.gfn[pgoff]].live:
            return 0
        order = file.mapping_order(pgoff, folio)
        gfn, frame = file.block(pgoff, folio, order)
        return self.hypervisor.assign(guest, gfn, frame, order)

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        """As KVM does.  All blocks are demoted before anything is zapped: conversions ask for pages one by one."""
        for pgoff in Pgoff.span(start, end):
            guest = file.owner[pgoff]
            if guest is not None and self.hypervisor.demotes and guest.entries[file.gfn[pgoff]].order > 0:
                err = self.hypervisor.demote(guest, file.gfn[pgoff])
                if err:
                    return err, pgoff
        return super().invalidate_begin(file, start, end)

    def unmap(self, guest: Guest, gfn: Gfn) -> None:
        """Zap a page, which may be the end of what is in it."""
        if guest.entries[gfn].private and self.hypervisor.zap_destroys:
            self.hypervisor.destroy(guest, gfn)
        else:
            super().unmap(guest, gfn)

    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """Have the firmware give the page back: when it is converted, and when it is freed (kvm_gmem_free_folio)."""
        frame = folio_page(file.kernel, folio, pgoff)
        if not frame.stage2:
            self.hypervisor.release(frame)
        return 0
