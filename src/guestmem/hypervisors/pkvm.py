# SPDX-License-Identifier: Apache-2.0
"""pKVM: EL2 of the host's own kernel, which takes donated pages out of the host's stage 2.

Source: arch/arm64/kvm/hyp/nvhe/mem_protect.c.  A guest shares pages with the host and takes them back by hypercalls of
its own; the host learns of it, and has no say.
"""

from __future__ import annotations

from errno import EBUSY, EFAULT, ENOMEM, EPERM

from guestmem.guest_memfd.library import Driver, GuestMemfd
from guestmem.machine.cost import Cost
from guestmem.machine.frame import Content, Frame
from guestmem.machine.guest import Gfn, Guest
from guestmem.machine.machine import Hypervisor, Machine
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio, folio_page
from guestmem.model import charge, may, step

__all__ = ["Pkvm", "PkvmDriver"]


class Pkvm(Hypervisor):
    """The hypercalls of the host and of the guest.

    Attributes:
        machine: to find the guest that has a page (the annotation in the host's stage 2).
        asks: guests take a page back only after the host has answered that it does not use it any more.
    """

    machine: Machine
    asks: bool = False

    @step
    def host_donate_guest(self, guest: Guest, gfn: Gfn, frame: Frame) -> int:
        """Give a page that only the host has to a protected VM; -ENOMEM when the memcache for its stage 2 is too small."""
        charge(Cost.HYPERCALL)
        if not frame.stage2 or guest.entries[gfn].live or any(other.reaches(frame) for other in self.machine.guests):
            return -EPERM
        if may("the memcache of the VM is too small"):
            self.machine.refuse()
            return -ENOMEM
        frame.stage2 = False
        guest.enter(gfn, frame, 0, True)
        return 0

    @step
    def guest_share_host(self, guest: Guest, gfn: Gfn) -> None:
        """The guest lets the host use one of its pages as well."""
        entry = guest.entries[gfn]
        if guest.running and entry.frame is not None and entry.private:
            guest.offer(gfn, Content.SHARED)
            entry.frame.stage2 = True
            entry.private = False

    @step
    def guest_unshare_host(self, guest: Guest, gfn: Gfn) -> None:
        """The guest takes back a page that it shared."""
        entry = guest.entries[gfn]
        if guest.running and entry.frame is not None and not entry.private and not (self.asks and guest.gave[gfn]):
            entry.frame.stage2 = False
            entry.private = True
            guest.gave[gfn] = False

    @step
    def host_may_access(self, frame: Frame) -> int:
        """0, or -EPERM for a page that belongs to a guest and is not shared: what the exits of the guest have told."""
        if not frame.stage2:
            self.machine.refuse()
            return -EPERM
        return 0

    @step
    def host_reclaim_page_guest(self, guest: Guest, gfn: Gfn) -> int:
        """Take a page from a VM that is being torn down; zeroed, if the guest did not share it."""
        charge(Cost.HYPERCALL)
        if guest.running:
            self.machine.refuse()
            return -EBUSY
        entry = guest.entries[gfn]
        if entry.frame is not None:
            if entry.private:
                entry.frame.content = Content.ZERO
            entry.frame.stage2 = True
            guest.forget(gfn)
        return 0

    @step
    def force_reclaim(self, frame: Frame) -> int:
        """The host kernel faulted: zero the page, give it to the host, poison the guest's entry.

        0 also where another CPU was faster (-EAGAIN in the kernel, which tries again either way).
        """
        charge(Cost.HYPERCALL)
        if frame.stage2:
            return 0
        for guest in self.machine.guests:
            for entry in guest.entries:
                if entry.frame is frame and entry.private:
                    frame.content = Content.ZERO
                    frame.stage2 = True
                    entry.frame = None
                    entry.live = False
                    entry.private = False
                    entry.poison = True
                    return 0
        return -EPERM


class PkvmDriver(Driver):
    """pKVM as a client of the library.  Until a VM is torn down, its pages stay in its stage 2."""

    hypervisor: Pkvm

    def provide(self, file: GuestMemfd, guest: Guest, pgoff: Pgoff, folio: Folio) -> int:
        """Donate the page.  -EFAULT: the VMM has it as shared, or the guest lost it to a forced reclaim."""
        entry = guest.entries[file.gfn[pgoff]]
        if entry.live:
            return 0
        if file.shared[pgoff] or entry.poison:
            file.kernel.machine.refuse()
            return -EFAULT
        return self.hypervisor.host_donate_guest(guest, file.gfn[pgoff], folio_page(file.kernel, folio, pgoff))

    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """Nothing to do for what the guest has shared or never had; -EPERM otherwise."""
        return self.hypervisor.host_may_access(folio_page(file.kernel, folio, pgoff))

    def reclaim(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """Take the page for good; -EBUSY while the VM runs, unless the guest has lost it before."""
        guest = file.owner[pgoff]
        if guest is None or not file.bound[pgoff]:
            return 0
        entry = guest.entries[file.gfn[pgoff]]
        if not (entry.live or (entry.poison and not guest.running)):
            return 0
        return self.hypervisor.host_reclaim_page_guest(guest, file.gfn[pgoff])
