# SPDX-License-Identifier: Apache-2.0
"""Gunyah: a type-1 hypervisor that takes lent pages away from the host, and injects an external abort when it touches one.

Sources: quic/gunyah-hypervisor, memextent_sparse.c, memextent/hypercalls.c and addrspace.c; the driver posted as
"drivers: virt: Gunyah", its guest_memfd.c and vm_mgr_mem.c.
"""

from __future__ import annotations

from enum import Enum
from errno import EBUSY, ENOMEM, EPERM

from guestmem.guest_memfd.library import Driver, GuestMemfd
from guestmem.machine.cost import Cost
from guestmem.machine.frame import Content, Frame, Pfn
from guestmem.machine.guest import Gfn, Guest
from guestmem.machine.machine import Hypervisor, Machine
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio, folio_end, folio_page
from guestmem.model import Record, array, charge, choose, may, reached, step

__all__ = ["EagerGunyahDriver", "Gunyah", "GunyahDriver"]


class Extent(Enum):
    """The memory extent that owns a frame."""

    HOST = 0
    GUEST_PRIVATE = 1  # lent: the host has no access
    GUEST_SHARED = 2  # shared: both have


class Owner(Record):
    """Who owns a frame (memdb)."""

    extent: Extent = Extent.HOST
    guest: Guest | None = None


class Gunyah(Hypervisor):
    """The hypercalls of the host and of the guest.  Those of the host take locks and memory of EL2: each may be refused.

    Attributes:
        machine: whose frames these are.
        owners: by frame number, the extent that owns the frame.
        halfway: a call over several frames that is refused may have done some of them by then.
    """

    machine: Machine
    halfway: bool = False
    owners: list[Owner] = array("frames")

    @step
    def donate_to_guest(self, guest: Guest, frame: Frame, order: int, private: bool) -> int:
        """memextent_donate, DONATE_TO_PROTECTED (lend: the host loses its access) or DONATE_TO_SIBLING (share)."""
        charge(Cost.HYPERCALL)
        for pfn in Pfn.span(frame.pfn, frame.pfn + (1 << order)):
            if self.owners[pfn].extent is not Extent.HOST:
                return -EPERM
        err = 0
        done = 1 << order
        if may("memextent_donate to the guest is refused"):
            err = -ENOMEM
            done = self.done_when_refused(order)
        for pfn in Pfn.span(frame.pfn, frame.pfn + done):
            self.own(self.machine.frames[pfn], guest, private)
        return err

    def own(self, frame: Frame, guest: Guest | None, private: bool) -> None:
        """A frame goes to an extent of a guest, ``private`` or shared with the host; or to the host's, with no guest."""
        owner = self.owners[frame.pfn]
        owner.extent = Extent.GUEST_PRIVATE if private else Extent.GUEST_SHARED
        if guest is None:
            owner.extent = Extent.HOST
        owner.guest = guest
        frame.stage2 = not private

    def done_when_refused(self, order: int) -> int:
        """How many of 2^order frames a call has done that is refused."""
        self.machine.refuse()
        if order == 0 or not self.halfway:
            return 0
        done = choose(1 << order, "frames done before")
        if done > 0:
            reached("a hypercall fails half way")
        return done

    @step
    def donate_to_host(self, guest: Guest, frame: Frame) -> int:
        """memextent_donate, DONATE_FROM_PROTECTED or DONATE_TO_SIBLING back; -EBUSY while the guest has it mapped."""
        charge(Cost.HYPERCALL)
        owner = self.owners[frame.pfn]
        if owner.guest is not guest:
            return -EPERM
        if any(entry.live and entry.frame is frame for entry in guest.entries):
            return -EBUSY
        if may("memextent_donate from the guest is refused"):
            self.machine.refuse()
            return -ENOMEM
        self.own(frame, None, False)
        return 0

    @step
    def addrspace_map(self, guest: Guest, gfn: Gfn, frame: Frame, order: int, private: bool) -> int:
        """Map frames that an extent of the guest owns into its address space."""
        charge(Cost.HYPERCALL)
        for pfn in Pfn.span(frame.pfn, frame.pfn + (1 << order)):
            owner = self.owners[pfn]
            if owner.guest is not guest or private != (owner.extent is Extent.GUEST_PRIVATE):
                return -EPERM
        if may("addrspace_map is refused"):
            for page in range(self.done_when_refused(order)):
                guest.enter(Gfn(gfn + page), self.machine.frames[frame.pfn + page], 0, private)
            return -ENOMEM
        guest.enter(gfn, frame, order, private)
        return 0

    @step
    def addrspace_unmap(self, guest: Guest, gfn: Gfn) -> int:
        """Unmap and flush.  What is private to a running guest stays locked until it unlocks it."""
        charge(Cost.HYPERCALL)
        if guest.running and guest.entries[gfn].private and not guest.gave[gfn]:
            self.machine.refuse()
            return -EBUSY
        if may("addrspace_unmap is refused"):
            self.machine.refuse()
            return -ENOMEM
        self.unmapped(guest, gfn)
        return 0

    def unmapped(self, guest: Guest, gfn: Gfn) -> None:
        """What an unmap does to the tables and to TLBs."""
        guest.forget(gfn)

    @step
    def modify_pages(self, guest: Guest, gfn: Gfn) -> None:
        """addrspace_modify_pages(UNLOCK, SANITISE) by the guest: the host may have the page back, cleared."""
        if guest.running and guest.entries[gfn].private:
            guest.offer(gfn, Content.ZERO)

    @step
    def vm_stop(self, guest: Guest) -> None:
        """The resource manager ends the VM; on exit, what it had for itself is sanitised unconditionally.

        One step, as the driver goes on when it is notified of the exit, after both.
        """
        guest.stop()
        for entry in guest.entries:
            if entry.frame is not None and entry.private:
                entry.frame.content = Content.ZERO


class GunyahDriver(Driver):
    """Gunyah's driver as a client of the library: lends private pages, shares shared ones, on demand.

    Attributes:
        provided: by frame number, whether the folio was donated to a guest (the entries of ghvm->mm).
    """

    hypervisor: Gunyah
    provided: list[bool] = array("frames")

    def provide(self, file: GuestMemfd, guest: Guest, pgoff: Pgoff, folio: Folio) -> int:
        """gunyah_vm_provide_folio: donate, then map; where mapping fails, take the donation back.

        All of a large folio, unless the guest has some of it already.
        """
        if guest.entries[file.gfn[pgoff]].live:
            return 0  # another vCPU was faster
        order = file.mapping_order(pgoff, folio)
        if any(self.provided[pfn] for pfn in range(folio.frame.pfn, folio_end(folio))):
            order = 0
        gfn, frame = file.block(pgoff, folio, order)
        private = not file.shared[pgoff]
        err = self.donate(guest, frame, order, private)
        if err:
            return err
        err = self.hypervisor.addrspace_map(guest, gfn, frame, order, private)
        if err:
            for at in Gfn.span(gfn, gfn + (1 << order)):
                self.reclaim_page(guest, at, file.kernel.machine.frames[frame.pfn + at - gfn])
        return err

    def donate(self, guest: Guest, frame: Frame, order: int, private: bool) -> int:
        """Donate frames, if they are not donated from an attempt before; all or none of them.

        What a failed call has given away is taken back (-EPERM: it was not), or counts as provided, to come back later.
        """
        if self.provided[frame.pfn]:
            return 0
        err = self.hypervisor.donate_to_guest(guest, frame, order, private)
        for pfn in Pfn.span(frame.pfn, frame.pfn + (1 << order)):
            if err == 0:
                self.provided[pfn] = True
            elif order > 0:
                back = self.hypervisor.donate_to_host(guest, self.hypervisor.machine.frames[pfn])
                self.provided[pfn] = back != 0 and back != -EPERM
        return err

    def reclaim_page(self, guest: Guest, gfn: Gfn, frame: Frame) -> int:
        """gunyah_vm_reclaim_folio: unmap, take the donation back.  An error leaves the rest to the next attempt."""
        if guest.entries[gfn].live:
            err = self.hypervisor.addrspace_unmap(guest, gfn)
            if err:
                return err
        err = self.hypervisor.donate_to_host(guest, frame)
        if err == 0:
            self.provided[frame.pfn] = False
        return err

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        """Reclaim what was provided; -EBUSY where a running guest keeps a page."""
        for pgoff in Pgoff.span(start, end):
            err = self.prepare_accessible(file, pgoff, file.mapping.slots[pgoff])
            if err:
                return err, pgoff
        return 0, 0

    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio | None) -> int:
        """Reclaim a page, if it was provided."""
        guest = file.owner[pgoff]
        if folio is None or guest is None:
            return 0
        frame = folio_page(file.kernel, folio, pgoff)
        if not self.provided[frame.pfn]:
            return 0
        return self.reclaim_page(guest, file.gfn[pgoff], frame)


class EagerGunyahDriver(GunyahDriver):
    """Lends a page as soon as it becomes private, not when the guest first touches it."""

    def prepare_inaccessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """Lend the page to the guest that has it."""
        guest = file.owner[pgoff]
        if guest is None or not file.bound[pgoff]:
            return 0
        return self.donate(guest, folio_page(file.kernel, folio, pgoff), 0, True)
