# SPDX-License-Identifier: Apache-2.0
"""Gunyah: a type-1 hypervisor that takes lent pages away from the host, and injects an external abort when it touches one.

Sources: quic/gunyah-hypervisor hyp/mem/memextent, and the driver posted as "drivers: virt: Gunyah".
"""

from __future__ import annotations

from errno import EBUSY, ENOMEM, EPERM

from guestmem.guest_memfd.library import Driver, GuestMemfd
from guestmem.machine.cost import Cost
from guestmem.machine.frame import Content, Frame
from guestmem.machine.guest import Gfn, Guest
from guestmem.machine.machine import Hypervisor
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import array, charge, may, step

__all__ = ["Gunyah", "GunyahDriver"]


class Gunyah(Hypervisor):
    """The hypercalls of the host.  Each may be refused, as every one of them allocates or takes locks of the hypervisor."""

    @step
    def donate_to_protected(self, frame: Frame) -> int:
        """memextent_donate(DONATE_TO_PROTECTED): the frame leaves the host's memory extent, and its stage 2."""
        charge(Cost.HYPERCALL)
        if not frame.stage2:
            return -EPERM
        if may("memextent_donate to the guest is refused"):
            return -ENOMEM
        frame.stage2 = False
        return 0

    @step
    def donate_from_protected(self, guest: Guest, frame: Frame) -> int:
        """memextent_donate(DONATE_FROM_PROTECTED): the frame comes back to the host, sanitised."""
        charge(Cost.HYPERCALL)
        if guest.reaches(frame):
            return -EBUSY
        if may("memextent_donate from the guest is refused"):
            return -ENOMEM
        frame.content = Content.ZERO
        frame.stage2 = True
        return 0

    @step
    def addrspace_map(self, guest: Guest, gfn: Gfn, frame: Frame, private: bool) -> int:
        """Map a frame of one of the guest's memory extents into its address space."""
        charge(Cost.HYPERCALL)
        if may("addrspace_map is refused"):
            return -ENOMEM
        guest.enter(gfn, frame, private)
        return 0

    @step
    def addrspace_unmap(self, guest: Guest, gfn: Gfn) -> int:
        """Unmap and flush; what the guest holds as its own only when it has relinquished it, or does not run any more."""
        charge(Cost.HYPERCALL)
        if guest.running and guest.entries[gfn].private and not guest.gave[gfn]:
            return -EBUSY
        guest.forget(gfn)
        return 0

    @step
    def relinquish(self, guest: Guest, gfn: Gfn) -> None:
        """The guest lets the host have a page back, without what it kept there."""
        if guest.running and guest.entries[gfn].private:
            guest.offer(gfn, Content.ZERO)


class GunyahDriver(Driver):
    """Gunyah's driver as a client of the library: lends private pages, shares shared ones, on demand.

    Attributes:
        lent: by frame number, whether the folio was donated to a guest (PG_private).
    """

    hypervisor: Gunyah
    lent: list[bool] = array("frames")

    def provide(self, file: GuestMemfd, guest: Guest, pgoff: Pgoff, folio: Folio) -> int:
        """gunyah_vm_provide_folio: donate, then map; where mapping fails, take the donation back."""
        if guest.entries[pgoff].live:
            return 0  # another vCPU was faster
        private = not file.shared[pgoff]
        if private and not self.lent[folio.frame.pfn]:
            err = self.hypervisor.donate_to_protected(folio.frame)
            if err:
                return err
            self.lent[folio.frame.pfn] = True
        err = self.hypervisor.addrspace_map(guest, Gfn(pgoff), folio.frame, private)
        if err and private:
            self.take_back(guest, pgoff, folio)
        return err

    def take_back(self, guest: Guest, pgoff: Pgoff, folio: Folio) -> int:
        """End a loan.  An error leaves the page lent; the next fault or invalidation goes on from there."""
        err = self.hypervisor.donate_from_protected(guest, folio.frame)
        if err == 0:
            self.lent[folio.frame.pfn] = False
        return err

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        """Unmap what is mapped; -EBUSY where a running guest keeps a page."""
        for pgoff in Pgoff.span(start, end):
            guest = file.owner[pgoff]
            if guest is not None and guest.entries[pgoff].live:
                err = self.hypervisor.addrspace_unmap(guest, Gfn(pgoff))
                if err:
                    return err, pgoff
        return 0, 0

    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """End the loan of a page, if it is lent."""
        guest = file.owner[pgoff]
        if guest is None or not self.lent[folio.frame.pfn]:
            return 0
        return self.take_back(guest, pgoff, folio)
