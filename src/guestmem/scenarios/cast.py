# SPDX-License-Identifier: Apache-2.0
"""Who acts: a VMM, guests, users of its mapping, another user of memory, uninvited accessors on other CPUs.

Each is a world of its own, to be put together; ``Cast`` is the standard cast.
"""

from __future__ import annotations

from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content, Frame
from guestmem.machine.guest import Expects, Gfn, Guest
from guestmem.machine.machine import Fault
from guestmem.mm.exception import (
    copy_from_kernel_nofault,
    copy_oldmem_page,
    kernel_load,
    kernel_store,
    load_unaligned_zeropad,
    read_present_page,
)
from guestmem.mm.filemap import Pgoff, Pin, user_access
from guestmem.mm.folio import Folio, alloc_folio, folio_put
from guestmem.model import Index, alone, choose, may, part, reached, require, sometimes, step, thread, when
from guestmem.scenarios.host import GuestMemory, Host

__all__ = ["Cast", "CrashDump", "Kcore", "PlainRead", "Process", "RunningVm", "Tenant", "Vcpus", "Vmm", "Walker", "Zeropad"]

DONE_OR_NOTHING = "success means done, failure means nothing changed"
NO_LOCK_HELD = "no lock is held at return"


class Pages(Index, below="pages + 1"):
    """A number of pages of the file."""


class Vmm(GuestMemory):
    """A VMM that does any legal operation, in any order."""

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
        else:
            self.work_on_file(cpu, operation)
        require(not self.file.mapping.invalidate_lock.held(), NO_LOCK_HELD)

    def work_on_file(self, cpu: Cpu, operation: int) -> None:
        """Operations 0 to 3, on any pages."""
        if operation == 3:
            err = self.file.allocate(cpu, 0, len(self.file.shared))
            require(err != 0 or all(slot is not None for slot in self.file.mapping.slots), DONE_OR_NOTHING)
        else:
            start = choose(len(self.file.shared), "start")
            end = start + 1 + choose(len(self.file.shared) - start, "further pages")
            if operation == 2:
                self.punch(start, end)
            else:
                self.convert(start, end, operation == 1)

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
            self.conversion_failed()
            return
        for pgoff in Pgoff.span(start, end):
            require(self.file.shared[pgoff] == to_shared, DONE_OR_NOTHING)
            owner = self.file.owner[pgoff]
            if owner is not None and not to_shared:
                owner.gave[pgoff] = False

    def conversion_failed(self) -> None:
        """A conversion did not go through."""

    def shared_pages(self, start: int, end: int) -> Pages:
        """How many pages of a range are shared."""
        count = 0
        for pgoff in Pgoff.span(start, end):
            if self.file.shared[pgoff]:
                count += 1
        return Pages(count)


class RunningVm(Vmm):
    """A VM that has run from the beginning and does not end; its VMM converts, punches and allocates."""

    def setup(self) -> None:
        super().setup()
        with alone():
            self.file.create()
            self.file.bind(self.machine.guests[0], 0, len(self.file.bound))
        self.machine.guests[0].running = True

    def operate(self, cpu: Cpu) -> None:
        self.work_on_file(cpu, choose(4, "make private, make shared, punch, allocate"))


class Vcpus(GuestMemory):
    """Guests that touch pages, offer some, take some back."""

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

    @sometimes("a guest keeps a secret in its memory")
    def secret_kept(self) -> bool:
        return any(what is Expects.SECRET for guest in self.machine.guests for what in guest.expects)


class Tenant(Host):
    """Somebody who uses page frames.

    Attributes:
        rented: the folio that it has.
    """

    rented: Folio | None = None

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + (1 if self.rented is self.kernel.folios[pfn] else 0)

    def rent(self, cpu: Cpu) -> None:
        """Use a page frame for a while."""
        folio = alloc_folio(self.kernel, 0)
        if folio is not None:
            self.rented = folio
            kernel_store(self.kernel, cpu, folio.frame, Content.HOST)
            folio_put(self.kernel, folio)
            self.rented = None


class Process(Tenant, GuestMemory):
    """Another thread of the VMM uses its mapping; another process allocates memory, writes it, frees it.

    Attributes:
        pinned: what a user of the VMM's mapping holds (GUP).
    """

    pinned: Pin = part()

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + (1 if self.pinned.folio is self.kernel.folios[pfn] else 0)

    @thread
    def process(self) -> None:
        """Use the mapping, have the kernel use it, or allocate."""
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
        if self.pinned.gup_fast(self.kernel, self.file.mapping, pgoff):
            folio = self.pinned.folio
            if folio is not None:
                self.transfer(cpu, folio)
            self.pinned.unpin(self.kernel)

    def transfer(self, cpu: Cpu, folio: Folio) -> None:
        """The disk reads or writes the page."""
        if may("it was read from the disk"):
            kernel_store(self.kernel, cpu, folio.frame, Content.SHARED)
        else:
            kernel_load(self.kernel, cpu, folio.frame)

    @sometimes("a guest and the VMM use a page together")
    def shared_with_guest(self) -> bool:
        return any(
            entry.live and not entry.private and user.live and user.folio is not None and user.folio.frame is entry.frame
            for guest in self.machine.guests
            for entry in guest.entries
            for user in self.file.mapping.user
        )


class Zeropad(Host):
    """load_unaligned_zeropad() at the end of what the kernel may read."""

    @thread("cpus - 1")
    def zeropad(self, cpu: int) -> None:
        """The kernel looks up a name that ends where its page ends."""
        while True:
            self.look_up_name(self.machine.cpus[cpu + 1])

    @step
    def look_up_name(self, cpu: Cpu) -> None:
        """One step, though it may load twice: the first page is its reader's, who finds it whenever he comes back to it."""
        frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
        when(frame.content is Content.HOST)
        load_unaligned_zeropad(self.kernel, cpu, frame)


class Kcore(Host):
    """Reads of pages that may be anybody's."""

    @thread("cpus - 1")
    def kcore(self, cpu: int) -> None:
        """Somebody reads /proc/kcore."""
        while True:
            frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
            copy_from_kernel_nofault(self.kernel, self.machine.cpus[cpu + 1], frame)


class PlainRead(Host):
    """Reads of what the direct map has, by one who has stopped all others."""

    @thread("cpus - 1")
    def plain_read(self, cpu: int) -> None:
        """Somebody stops all other CPUs and reads what the direct map has, with loads that no exception table knows."""
        while True:
            frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
            self.read_stopped(self.machine.cpus[cpu + 1], frame)

    @step
    def read_stopped(self, cpu: Cpu, frame: Frame) -> None:
        """One step, as nobody else runs: stop_machine(), or the copy loop of hibernation on its last CPU."""
        read_present_page(self.kernel, cpu, frame)


class Walker(Host):
    """Reads of what the direct map had when it was asked."""

    @thread("cpus - 1")
    def walker(self, cpu: int) -> None:
        """Somebody walks memory: asks whether the direct map has a page, then reads it; no exception table knows the load."""
        while True:
            frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
            read_present_page(self.kernel, self.machine.cpus[cpu + 1], frame)


class CrashDump(Host):
    """Reads of all memory through mappings made for that."""

    @thread("cpus - 1")
    def crash_dump(self, cpu: int) -> None:
        """A dump of memory is taken, by somebody who knows of no guest memory."""
        while True:
            copy_oldmem_page(self.kernel, self.machine.frames[choose(len(self.machine.frames), "frame")])


class Cast(PlainRead, Kcore, Zeropad, Process, Vcpus, Vmm):
    """The standard cast."""

    def conversion_failed(self) -> None:
        reached("a conversion fails")
