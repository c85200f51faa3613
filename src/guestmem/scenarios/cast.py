# SPDX-License-Identifier: Apache-2.0
"""The standard cast: a VMM, guests, uninvited accessors on other CPUs, another user of memory; and what must hold.

A hypervisor's scenario names its driver and says what its guests can ask of it.
"""

from __future__ import annotations

from guestmem.guest_memfd.library import Driver, GuestMemfd, Protection
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content, Pfn
from guestmem.machine.guest import Expects, Gfn, Guest
from guestmem.machine.machine import Enforcement, Fault, Hypervisor, Machine
from guestmem.mm.exception import (
    copy_from_kernel_nofault,
    kernel_load,
    kernel_store,
    load_unaligned_zeropad,
    read_present_page,
)
from guestmem.mm.filemap import Pgoff, gup_fast, user_access
from guestmem.mm.folio import Folio, Kernel, alloc_folio, folio_put
from guestmem.model import (
    Index,
    Refused,
    World,
    always,
    array,
    choose,
    may,
    part,
    reached,
    require,
    sometimes,
    step,
    thread,
    when,
)

__all__ = ["CONTENTS_SURVIVE", "Cast"]

DONE_OR_NOTHING = "success means done, failure means nothing changed"
CONTENTS_SURVIVE = "contents survive where the contract says so"
FREE_FRAMES = "a free frame is in the direct map, owned by the host, mapped by no guest, flagged by nobody"
SINGLE_OWNER = "a page has at most one private owner"
COUNTERS = "counters equal the holders they count"
NO_LOCK_HELD = "no lock is held at return"
SECRETS = (Content.SECRET_0, Content.SECRET_1, Content.SECRET_2, Content.SECRET_3)


class Pages(Index, below="pages + 1"):
    """A number of pages of the file."""


class Cast(World):
    """One host, one file of guest memory.

    Attributes:
        protection: the library's policy.
        blocks: the direct map begins as a block entry.
        discarding: by page offset, the VMM is punching a hole there.
        rented: the folio that another user of memory has.
        pinned: the folio that a user of the VMM's mapping holds (GUP).
    """

    geometry = {"frames": 3, "pages": 2, "cpus": 2, "vms": 1}

    machine: Machine = part()
    kernel: Kernel = part()
    file: GuestMemfd = part()
    protection: Protection = Protection.NONE
    blocks: bool = False
    discarding: list[bool] = array("pages")
    rented: Folio | None = None
    pinned: Folio | None = None

    # ---- what a hypervisor's scenario says

    def host(self) -> tuple[Hypervisor, Driver]:
        """The hypervisor and the driver; called by ``setup``."""
        raise NotImplementedError

    def give(self, guest: Guest, gfn: Gfn) -> None:
        """The guest offers the host a page."""
        raise NotImplementedError

    @step
    def keep(self, guest: Guest, gfn: Gfn) -> None:
        """The guest takes back a page that it offered, where it can by itself."""

    def may_share(self, pgoff: Pgoff) -> bool:
        """Whether a VMM that means well makes a page shared."""
        return True

    def setup(self) -> None:
        hypervisor, driver = self.host()
        self.machine.hypervisor = hypervisor
        self.machine.wire()
        self.machine.block = self.blocks
        self.kernel.machine = self.machine
        self.kernel.wire()
        # Only do_sea() needs to learn it: the abort that pKVM injects is handled like any other.
        needs_fixup = hypervisor.enforcement is Enforcement.SEA
        self.kernel.fixup_stage2 = needs_fixup and self.protection in (Protection.FIXUP, Protection.UNMAP_FIXUP)
        self.file.kernel = self.kernel
        self.file.driver = driver
        self.file.protection = self.protection
        if len(self.machine.guests) > len(SECRETS):
            raise Refused(type(self).__name__, f"{len(self.machine.guests)} VMs", f"use at most {len(SECRETS)}")
        for guest, secret in zip(self.machine.guests, SECRETS, strict=False):
            guest.secret = secret

    # ---- the VMM

    @thread
    def vmm(self) -> None:
        """Any legal operation, in any order."""
        while True:
            self.operate(self.machine.cpus[0])

    def operate(self, cpu: Cpu) -> None:
        """One operation on the file or on a VM."""
        operation = choose(6, "make private, make shared, punch, allocate, start or stop a VM, open or release")
        if operation == 5:
            self.open_or_release()
        elif operation == 4:
            self.start_or_stop(self.machine.guests[choose(len(self.machine.guests), "VM")])
        elif operation == 3:
            self.file.allocate(cpu, 0, len(self.file.shared))
        else:
            start = choose(len(self.file.shared), "start")
            end = start + 1 + choose(len(self.file.shared) - start, "further pages")
            if operation == 2:
                self.punch(start, end)
            else:
                self.convert(start, end, operation == 1)
        require(not self.file.mapping.invalidate_lock.held(), NO_LOCK_HELD)

    def open_or_release(self) -> None:
        """Open the file, or have its last user go."""
        if not self.file.open:
            self.file.create()
        elif not any(guest.running for guest in self.machine.guests):
            self.file.release()

    def start_or_stop(self, guest: Guest) -> None:
        """Give a VM its memory and run it; or tear it down, and take its memory, again if the driver refused."""
        if guest.running or self.has_pages(guest):
            if guest.running:
                self.machine.hypervisor.vm_stop(guest)
            err = self.file.unbind(guest)
            require(self.has_pages(guest) == (err != 0), DONE_OR_NOTHING)
        elif self.file.open:
            if not guest.empty():
                guest.reset()
            before = self.file.owner[0]
            err = self.file.bind(guest, 0, len(self.file.bound))
            require(self.has_pages(guest) == (err == 0), DONE_OR_NOTHING)
            if err == 0:
                guest.running = True
                self.started(guest, before)

    def started(self, guest: Guest, before: Guest | None) -> None:
        """A VM runs on pages of which ``before`` last had the first."""

    def has_pages(self, guest: Guest) -> bool:
        """Whether a guest is bound to pages of the file."""
        return any(self.file.bound[pgoff] and self.file.owner[pgoff] is guest for pgoff in Pgoff.span(0, len(self.file.bound)))

    def punch(self, start: int, end: int) -> None:
        """Discard pages."""
        for pgoff in Pgoff.span(start, end):
            self.discarding[pgoff] = True
        err = self.file.punch_hole(start, end)
        for pgoff in Pgoff.span(start, end):
            self.discarding[pgoff] = False
            owner = self.file.owner[pgoff]
            if err == 0:
                require(self.file.mapping.slots[pgoff] is None, DONE_OR_NOTHING)
                if owner is not None:
                    owner.expects[pgoff] = Expects.NOTHING

    def convert(self, start: int, end: int, to_shared: bool) -> None:
        """Make pages shared or private."""
        if to_shared and not all(self.may_share(pgoff) for pgoff in Pgoff.span(start, end)):
            return
        before = self.shared_pages(start, end)
        err, at = self.file.convert(start, end, to_shared)
        if err:
            require(start <= at < end and self.shared_pages(start, end) == before, DONE_OR_NOTHING)
            reached("a conversion fails")
            return
        for pgoff in Pgoff.span(start, end):
            require(self.file.shared[pgoff] == to_shared, DONE_OR_NOTHING)
            owner = self.file.owner[pgoff]
            if owner is not None and not to_shared:
                owner.gave[pgoff] = False

    def shared_pages(self, start: int, end: int) -> Pages:
        """How many pages of a range are shared."""
        count = 0
        for pgoff in Pgoff.span(start, end):
            if self.file.shared[pgoff]:
                count += 1
        return Pages(count)

    # ---- guests

    @thread("vms")
    def vcpu(self, vm: int) -> None:
        """A guest touches its pages, offers some, takes some back."""
        guest = self.machine.guests[vm]
        while True:
            gfn = Gfn(choose(len(guest.entries), "gfn"))
            action = choose(3, "touch, offer, take back")
            if action == 2:
                self.keep(guest, gfn)
            elif action == 1:
                self.give(guest, gfn)
            elif not guest.touch(gfn):
                self.file.guest_fault(self.machine.cpus[0], guest, gfn)
                guest.exited = False

    # ---- others on the host

    @thread
    def process(self) -> None:
        """Another thread of the VMM uses its mapping; another process allocates memory, writes it, reads it, frees it."""
        mapping = self.file.mapping
        cpu = self.machine.cpus[len(self.machine.cpus) - 1]
        while True:
            what = choose(3, "use the mapping, have the kernel use it, allocate")
            if what == 2:
                self.rent(cpu)
            else:
                pgoff = Pgoff(choose(len(mapping.user), "pgoff"))
                if what == 1:
                    self.direct_io(cpu, pgoff)
                elif user_access(self.machine, mapping, pgoff, may("write")) is Fault.TRANSLATION:
                    self.file.fault(cpu, pgoff)

    def direct_io(self, cpu: Cpu, pgoff: Pgoff) -> None:
        """O_DIRECT: the kernel takes a reference to a page of the mapping and reads or writes it through the direct map."""
        folio = gup_fast(self.file.mapping, pgoff)
        if folio is not None:
            self.pinned = folio
            self.transfer(cpu, folio)
            self.pinned = None

    @step
    def transfer(self, cpu: Cpu, folio: Folio) -> None:
        """The disk is done with the page."""
        if may("it was read from the disk"):
            kernel_store(self.kernel, cpu, folio.frame, Content.SHARED)
        else:
            kernel_load(self.kernel, cpu, folio.frame)
        folio_put(self.kernel, folio)

    def rent(self, cpu: Cpu) -> None:
        """Use a page frame for a while."""
        folio = alloc_folio(self.kernel)
        if folio is not None:
            self.rented = folio
            self.write_and_free(cpu, folio)
            self.rented = None

    @step
    def write_and_free(self, cpu: Cpu, folio: Folio) -> None:
        """Its user is done with the page."""
        kernel_store(self.kernel, cpu, folio.frame, Content.HOST)
        folio_put(self.kernel, folio)

    @thread("cpus - 1")
    def zeropad(self, cpu: int) -> None:
        """The kernel looks up a name that ends where its page ends."""
        while True:
            self.look_up_name(self.machine.cpus[cpu + 1])

    @step
    def look_up_name(self, cpu: Cpu) -> None:
        frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
        when(frame.content is Content.HOST)
        load_unaligned_zeropad(self.kernel, cpu, frame)

    @thread("cpus - 1")
    def kcore(self, cpu: int) -> None:
        """Somebody reads /proc/kcore."""
        while True:
            frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
            copy_from_kernel_nofault(self.kernel, self.machine.cpus[cpu + 1], frame)

    @thread("cpus - 1")
    def plain_read(self, cpu: int) -> None:
        """Somebody walks memory and reads what the direct map has, with loads that no exception table knows.

        Stands for every such load; the one that was recorded on pKVM was a module's.
        """
        while True:
            frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
            read_present_page(self.kernel, self.machine.cpus[cpu + 1], frame)

    # ---- what must hold

    @always(FREE_FRAMES)
    def free_frames(self) -> bool:
        return all(
            not folio.free
            or (
                folio.frame.present
                and folio.frame.stage2
                and not folio.zapped
                and not folio.lost
                and not any(guest.reaches(folio.frame) for guest in self.machine.guests)
                and not any(entry.folio is folio for entry in self.file.mapping.user)
            )
            for folio in self.kernel.folios
        )

    @always(SINGLE_OWNER)
    def single_owner(self) -> bool:
        return all(self.owners(pfn) <= 1 for pfn in Pfn.span(0, len(self.machine.frames)))

    def owners(self, pfn: Pfn) -> int:
        """How many guests have a frame as their private page."""
        count = 0
        for guest in self.machine.guests:
            if guest.holds_private(self.machine.frames[pfn]):
                count += 1
        return count

    @always(COUNTERS)
    def references(self) -> bool:
        lock = self.file.mapping.invalidate_lock
        if lock.writer != 0 or any(lock.readers):
            return True
        return all(folio.refcount == self.holders(pfn) for pfn, folio in enumerate(self.kernel.folios))

    def holders(self, pfn: int) -> int:
        """How many hold a reference while nobody works on the file."""
        folio = self.kernel.folios[pfn]
        count = 0
        if pfn == 0 or folio.lost:
            count += 1
        if self.rented is folio:
            count += 1
        if self.pinned is folio:
            count += 1
        for slot in self.file.mapping.slots:
            if slot is folio:
                count += 1
        return count

    @always(CONTENTS_SURVIVE)
    def contents(self) -> bool:
        return all(
            guest.expects[gfn] is Expects.NOTHING or self.discarding[gfn] or self.keeps(guest, gfn)
            for guest in self.machine.guests
            for gfn in Gfn.span(0, len(guest.entries))
        )

    def keeps(self, guest: Guest, gfn: Gfn) -> bool:
        """Whether what a guest put into a page is still where it, or the host, will find it."""
        folio = self.file.mapping.slots[gfn]
        if folio is None or not self.file.bound[gfn]:
            return False
        if guest.expects[gfn] is Expects.SECRET:
            return folio.frame.content is guest.secret
        return folio.frame.content is Content.SHARED

    # ---- what must have been seen

    @sometimes("a guest keeps a secret in its memory")
    def secret_kept(self) -> bool:
        return any(what is Expects.SECRET for guest in self.machine.guests for what in guest.expects)

    @sometimes("a guest and the VMM use a page together")
    def shared_with_guest(self) -> bool:
        return any(
            entry.live and not entry.private and user.live and user.folio is not None and user.folio.frame is entry.frame
            for guest in self.machine.guests
            for entry in guest.entries
            for user in self.file.mapping.user
        )
