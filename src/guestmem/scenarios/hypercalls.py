# SPDX-License-Identifier: Apache-2.0
"""Every hypercall a host can make, in any order: what a hypervisor answers, and what it lets the host and other guests have.

A driver that is right makes few of them.  Drivers stand on this: what it forbids, none of them can do.
"""

from __future__ import annotations

from errno import EBUSY, ENOMEM, EPERM

from guestmem.hypervisors.gunyah import Extent, Gunyah
from guestmem.hypervisors.pkvm import Pkvm
from guestmem.machine.frame import Content, Frame, Pfn
from guestmem.machine.guest import Gfn, Guest
from guestmem.machine.machine import Enforcement, Hypervisor, Machine
from guestmem.model import World, always, choose, may, part, require, step, thread
from guestmem.rules import CAUSE, DONE_OR_NOTHING, SINGLE_OWNER
from guestmem.scenarios.host import SECRETS

__all__ = ["GunyahHypercalls", "PkvmHypercalls"]


class Hypercalls(World):
    """A host that tries what it can, and guests that keep secrets; no kernel, no file."""

    geometry = {"frames": 2, "pages": 2, "cpus": 1, "vms": 2, "vcpus": 1, "block": 0, "table": 0, "order": 1}

    machine: Machine = part()

    def host(self) -> Hypervisor:
        """The hypervisor, ready; called by ``setup``."""
        raise NotImplementedError

    def setup(self) -> None:
        self.machine.hypervisor = self.host()
        self.machine.wire()
        for guest, secret in zip(self.machine.guests, SECRETS, strict=False):
            guest.secret = secret

    @thread
    def caller(self) -> None:
        """Make any hypercall, start and stop VMs, read and write what the host reaches."""
        while True:
            guest = self.machine.guests[choose(len(self.machine.guests), "VM")]
            frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
            what = choose(4, "make a hypercall, start or stop a VM, read, write")
            if what == 3:
                self.machine.store_mapped(frame, Content.ZERO)
            elif what == 2:
                self.machine.load_mapped(frame)
            elif what == 1:
                self.start_or_stop(guest)
            else:
                self.call(guest, Gfn(choose(len(guest.entries), "gfn")), frame)

    def call(self, guest: Guest, gfn: Gfn, frame: Frame) -> None:
        """Make any hypercall."""
        raise NotImplementedError

    @step
    def start_or_stop(self, guest: Guest) -> None:
        """End a VM; or start one, once nothing is left of the one before."""
        if guest.running:
            self.machine.hypervisor.vm_stop(guest)
        elif self.has_nothing(guest):
            guest.reset()
            guest.running = True

    def has_nothing(self, guest: Guest) -> bool:
        """Whether no page is a guest's."""
        return not any(guest.reaches(frame) for frame in self.machine.frames)

    def answer(self, must: int) -> int:
        """What a hypercall has to answer: an error for the state it found, or one that nobody can foresee, or 0."""
        refused = self.machine.refused()
        return -ENOMEM if refused and must == 0 else must

    @thread("vms")
    def vcpu(self, number: int) -> None:
        """A guest uses its pages, offers some, takes some back."""
        guest = self.machine.guests[number]
        while True:
            gfn = Gfn(choose(len(guest.entries), "gfn"))
            if may("a hypercall of the guest"):
                self.call_of_guest(guest, gfn)
            elif not guest.touch(gfn):
                guest.exited -= 1

    def call_of_guest(self, guest: Guest, gfn: Gfn) -> None:
        """Make any hypercall that is a guest's."""
        raise NotImplementedError

    @always(SINGLE_OWNER)
    def single_owner(self) -> bool:
        return not any(
            one is not other and one.holds_private(frame) and other.reaches(frame)
            for frame in self.machine.frames
            for one in self.machine.guests
            for other in self.machine.guests
        )


class GunyahHypercalls(Hypercalls):
    """Gunyah's: memory extents, address spaces, pages unlocked by guests.  Nothing is mapped over what is mapped."""

    hypervisor: Gunyah = part()

    def host(self) -> Hypervisor:
        self.hypervisor.enforcement = Enforcement.SEA
        self.hypervisor.machine = self.machine
        return self.hypervisor

    def call(self, guest: Guest, gfn: Gfn, frame: Frame) -> None:
        what = choose(4, "donate, take back, map, unmap")
        order = choose(2, "order")
        if what == 3:
            self.unmap(guest, gfn)
        elif what == 2:
            self.map(guest, gfn, frame, order, may("private"))
        elif what == 1:
            self.take_back(guest, frame)
        else:
            self.donate(guest, frame, order, may("private"))

    def fits(self, first: int, order: int) -> bool:
        """Whether 2^order pages can begin there."""
        return first % (1 << order) == 0

    def unmapped(self, guest: Guest, gfn: Gfn, order: int) -> bool:
        """Whether a guest has nothing in 2^order pages."""
        return all(guest.entries[at].frame is None for at in Gfn.span(gfn, gfn + (1 << order)))

    @step
    def donate(self, guest: Guest, frame: Frame, order: int, private: bool) -> None:
        """What is the host's goes to the guest, and if it is private the host has it no more."""
        if not self.fits(frame.pfn, order):
            return
        must = 0
        for pfn in Pfn.span(frame.pfn, frame.pfn + (1 << order)):
            if self.hypervisor.owners[pfn].extent is not Extent.HOST:
                must = -EPERM
        err = self.hypervisor.donate_to_guest(guest, frame, order, private)
        require(err == self.answer(must), CAUSE)
        if err == 0:
            for pfn in Pfn.span(frame.pfn, frame.pfn + (1 << order)):
                require(self.hypervisor.owners[pfn].guest is guest, DONE_OR_NOTHING)
                require(self.machine.frames[pfn].stage2 == (not private), DONE_OR_NOTHING)

    @step
    def take_back(self, guest: Guest, frame: Frame) -> None:
        """What the guest does not have mapped goes back to the host."""
        owner = self.hypervisor.owners[frame.pfn]
        must = 0
        if owner.guest is not guest:
            must = -EPERM
        elif guest.reaches(frame):
            must = -EBUSY
        err = self.hypervisor.donate_to_host(guest, frame)
        require(err == self.answer(must), CAUSE)
        require(err != 0 or (owner.guest is None and frame.stage2), DONE_OR_NOTHING)

    @step
    def map(self, guest: Guest, gfn: Gfn, frame: Frame, order: int, private: bool) -> None:
        """Only what the guest owns is mapped, as what it owns it."""
        if not (self.fits(gfn, order) and self.fits(frame.pfn, order) and self.unmapped(guest, gfn, order)):
            return
        must = 0
        for pfn in Pfn.span(frame.pfn, frame.pfn + (1 << order)):
            owner = self.hypervisor.owners[pfn]
            if owner.guest is not guest or (owner.extent is Extent.GUEST_PRIVATE) != private:
                must = -EPERM
        err = self.hypervisor.addrspace_map(guest, gfn, frame, order, private)
        require(err == self.answer(must), CAUSE)
        if err == 0:
            for at in Gfn.span(gfn, gfn + (1 << order)):
                require(guest.entries[at].live and guest.entries[at].private == private, DONE_OR_NOTHING)
                guest.gave[at] = False  # it is locked again

    @step
    def unmap(self, guest: Guest, gfn: Gfn) -> None:
        """What a running guest keeps for itself stays."""
        entry = guest.entries[gfn]
        kept = guest.running and entry.private and not guest.gave[gfn]
        err = self.hypervisor.addrspace_unmap(guest, gfn)
        require(err == self.answer(-EBUSY if kept else 0), CAUSE)
        require(err != 0 or entry.frame is None, DONE_OR_NOTHING)

    @step
    def call_of_guest(self, guest: Guest, gfn: Gfn) -> None:
        entry = guest.entries[gfn]
        mine = guest.running and entry.private
        before = entry.frame.content if entry.frame is not None else Content.ZERO
        gave = guest.gave[gfn]
        self.hypervisor.modify_pages(guest, gfn)
        require(guest.gave[gfn] == (mine or gave), DONE_OR_NOTHING)
        if entry.frame is not None:
            require(entry.frame.content is (Content.ZERO if mine else before), DONE_OR_NOTHING)

    def has_nothing(self, guest: Guest) -> bool:
        return super().has_nothing(guest) and not any(owner.guest is guest for owner in self.hypervisor.owners)

    @always(SINGLE_OWNER)
    def maps_what_it_owns(self) -> bool:
        return all(
            not guest.reaches(frame) or self.hypervisor.owners[frame.pfn].guest is guest
            for guest in self.machine.guests
            for frame in self.machine.frames
        )


class PkvmHypercalls(Hypercalls):
    """pKVM's: donations, reclaims, a reclaim by force, pages that guests share and take back."""

    hypervisor: Pkvm = part()

    def host(self) -> Hypervisor:
        self.hypervisor.enforcement = Enforcement.S1PTW
        self.hypervisor.machine = self.machine
        return self.hypervisor

    def call(self, guest: Guest, gfn: Gfn, frame: Frame) -> None:
        what = choose(4, "donate, reclaim, take by force, ask")
        if what == 3:
            self.ask(frame)
        elif what == 2:
            self.take_by_force(frame)
        elif what == 1:
            self.reclaim(guest, gfn)
        else:
            self.donate(guest, gfn, frame)

    @step
    def donate(self, guest: Guest, gfn: Gfn, frame: Frame) -> None:
        """What the host alone has goes to the guest, where it has nothing."""
        entry = guest.entries[gfn]
        allowed = frame.stage2 and not entry.live and not any(other.reaches(frame) for other in self.machine.guests)
        err = self.hypervisor.host_donate_guest(guest, gfn, frame)
        require(err == self.answer(0 if allowed else -EPERM), CAUSE)
        require(err != 0 or (entry.frame is frame and entry.private and not frame.stage2), DONE_OR_NOTHING)

    @step
    def reclaim(self, guest: Guest, gfn: Gfn) -> None:
        """A guest that runs loses nothing."""
        entry = guest.entries[gfn]
        frame = entry.frame
        err = self.hypervisor.host_reclaim_page_guest(guest, gfn)
        require(err == self.answer(-EBUSY if guest.running else 0), CAUSE)
        if err == 0 and frame is not None:
            require(frame.stage2 and not guest.reaches(frame), DONE_OR_NOTHING)

    @step
    def take_by_force(self, frame: Frame) -> None:
        """The host has the page, and no guest has it as its own."""
        there = frame.stage2
        require(self.hypervisor.force_reclaim(frame) == 0, CAUSE)
        require(frame.stage2 and (there or not any(guest.reaches(frame) for guest in self.machine.guests)), DONE_OR_NOTHING)

    @step
    def ask(self, frame: Frame) -> None:
        """The host may use what no guest has as its own."""
        allowed = not self.machine.private_to_guest(frame)
        require(self.hypervisor.host_may_access(frame) == self.answer(0 if allowed else -EPERM), CAUSE)

    def call_of_guest(self, guest: Guest, gfn: Gfn) -> None:
        if may("share"):
            self.share(guest, gfn)
        else:
            self.unshare(guest, gfn)

    @step
    def share(self, guest: Guest, gfn: Gfn) -> None:
        """A page that the guest has is the host's too."""
        self.hypervisor.guest_share_host(guest, gfn)
        frame = guest.entries[gfn].frame
        require(not guest.running or frame is None or frame.stage2, DONE_OR_NOTHING)

    @step
    def unshare(self, guest: Guest, gfn: Gfn) -> None:
        """A page that the guest has is its own again."""
        self.hypervisor.guest_unshare_host(guest, gfn)
        entry = guest.entries[gfn]
        require(not guest.running or entry.frame is None or (entry.private and not entry.frame.stage2), DONE_OR_NOTHING)

    @always(SINGLE_OWNER)
    def no_page_no_entry(self) -> bool:
        return all(
            entry.frame is not None or not (entry.live or entry.private)
            for guest in self.machine.guests
            for entry in guest.entries
        )
