# SPDX-License-Identifier: Apache-2.0
"""Who acts: a VMM, guests, users of its mapping, another user of memory, uninvited accessors on other CPUs.

Each is a world of its own, to be put together; ``Cast`` is the standard cast.
"""

from __future__ import annotations

from errno import EAGAIN, EBADF, EBUSY, EEXIST, EFAULT, EINTR, EINVAL, EOPNOTSUPP, EPERM
from typing import Any, ClassVar

from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content, Frame, Pfn
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
from guestmem.mm.folio import EHWPOISON, Folio, alloc_folio, folio_put, has_hwpoison
from guestmem.model import Index, alone, array, choose, may, part, reached, require, sometimes, step, thread, when
from guestmem.rules import CAUSE, DONE_OR_NOTHING, NO_LOCK_HELD
from guestmem.scenarios.host import GuestMemory, Host

__all__ = [
    "Beyond",
    "Caller",
    "Cast",
    "CrashDump",
    "FileUser",
    "Kcore",
    "OpenFile",
    "Parts",
    "PlainRead",
    "Process",
    "RunningVm",
    "Slots",
    "Strays",
    "Tenant",
    "TwoThreads",
    "Vcpus",
    "VmOwner",
    "Vmm",
    "Walker",
    "Zeropad",
]


COME_AND_GO = ["pages are allocated", "an allocation fails", "a page is discarded"]


class Pages(Index, below="pages + 1"):
    """A number of pages of the file."""


class Caller(GuestMemory):
    """Who calls the library: what its answers may be, and why."""

    def caused(self, err: int) -> bool:
        """Whether the operation that the running thread has just ended, with this error or 0, had a cause to end so.

        What is looked at cannot have changed since the library looked at it: the last step was to drop the lock.
        """
        refused = self.machine.refused()
        if err == -EBADF:
            return not self.file.open
        if err == -EOPNOTSUPP:
            return self.file.unmaps() and not self.kernel.can_set_direct_map()
        if err == -EHWPOISON:
            return any(slot is not None and has_hwpoison(self.kernel, slot) for slot in self.file.mapping.slots)
        if err == -EPERM and self.file.preserved:
            return True
        if err == -EINVAL or err == -EEXIST or err == -EINTR:
            return False  # these belong to some operations only, which look for their causes
        return err == 0 or refused or self.interfered(err)

    def range_taken(self, err: int, good: bool) -> bool:
        """Whether an operation on a range of pages ended as it must: -EINVAL is for one that is not good, and only for that."""
        return (err == -EINVAL) != good and (err == -EINVAL or self.caused(err))

    def in_file(self, start: int, end: int) -> bool:
        """Whether a range has pages, and none beyond the end of the file."""
        return start < end <= self.file.mapping.i_size

    def may_fault(self, err: int, pgoff: Pgoff, given: bool) -> bool:
        """The same of a page fault, at a page that is there for whoever took it, or not."""
        first = pgoff - pgoff % (1 << self.file.order)
        return self.may_add(err, first, first + (1 << self.file.order)) or (err == -EFAULT and not given)

    def may_add(self, err: int, start: int, end: int) -> bool:
        """The same of what adds pages to a range: it is to be tried again where another was faster, and else not."""
        if err == -EAGAIN:
            return self.pages_there(start, end) > 0 or self.postponed()
        return self.caused(err)

    def postponed(self) -> bool:
        """Whether something may have kept pages from being added for a while, and be over by now."""
        return False

    def pages_there(self, start: int, end: int) -> int:
        """How many pages of a range are in the file."""
        return sum(1 for pgoff in Pgoff.span(start, end) if self.file.mapping.slots[pgoff] is not None)

    def locked(self) -> bool:
        """Whether the running thread holds a lock."""
        if self.file.mapping.invalidate_lock.held() or self.kernel.pm_lock.held() or self.kernel.pgtable_split_lock.held():
            return True
        return any(folio.lock.held() for folio in self.kernel.folios)

    def user_fault(self, cpu: Cpu, pgoff: Pgoff) -> int:
        """The VMM, or the kernel for it, takes a page fault on its mapping."""
        err = self.file.fault(cpu, pgoff)
        given = self.file.shared[pgoff] and self.in_file(pgoff, pgoff + 1)
        require(self.may_fault(err, pgoff, given), CAUSE)
        require(err != 0 or self.file.mapping.user[pgoff].live, DONE_OR_NOTHING)
        require(not self.locked(), NO_LOCK_HELD)
        return err


class Vcpus(Caller):
    """Guests that touch pages, offer some, take some back."""

    must_show = ["a guest cannot have a page"]

    @thread("vms * vcpus")
    def vcpu(self, number: int) -> None:
        """A guest touches its pages and those that are not its own, offers some, takes some back."""
        guest = self.machine.guests[number % len(self.machine.guests)]
        while True:
            gfn = Gfn(choose(len(guest.entries), "gfn"))
            action = choose(3, "touch, offer, take back")
            if action == 2:
                self.keep(guest, gfn)
            elif action == 1:
                self.give(guest, gfn)
            elif not self.touch_page(guest, gfn):
                self.exit(guest, gfn)

    def touch_page(self, guest: Guest, gfn: Gfn) -> bool:
        """A guest touches a page; False: its stage 2 has none, and the vCPU exits."""
        return guest.touch(gfn)

    def exit(self, guest: Guest, gfn: Gfn) -> None:
        """The vCPU is in the host until its fault is handled."""
        err = self.file.guest_fault(self.machine.cpus[0], guest, gfn)
        given, pgoff = self.file.find(guest, gfn)
        require(self.may_fault(err, pgoff, given), CAUSE)
        require(err != 0 or guest.entries[gfn].live or guest.entries[gfn].poison, DONE_OR_NOTHING)
        require(not self.locked(), NO_LOCK_HELD)
        guest.exited -= 1
        if err:
            reached("a guest cannot have a page")
        if not given:
            self.strayed()

    def strayed(self) -> None:
        """A guest touched what it was not given."""

    @sometimes("a guest keeps a secret in its memory")
    def secret_kept(self) -> bool:
        return any(what is Expects.SECRET for guest in self.machine.guests for what in guest.expects)


class Strays(Vcpus):
    """Guests that touch what is not theirs."""

    must_show = ["a guest touches what it was not given"]

    def strayed(self) -> None:
        reached("a guest touches what it was not given")


class FileUser(Caller):
    """A VMM that does with pages of its file what is legal, in any order."""

    must_show = ["a private page becomes shared", "a shared page becomes private"]

    @thread
    def vmm(self) -> None:
        """Any legal operation, in any order."""
        while True:
            self.operate(self.machine.cpus[0])

    def operate(self, cpu: Cpu) -> None:
        """One operation."""
        self.work_on_file(cpu, choose(4, "make private, make shared, punch, allocate"))
        require(not self.locked(), NO_LOCK_HELD)

    def work_on_file(self, cpu: Cpu, operation: int) -> None:
        """Operations 0 to 3, on any pages."""
        if operation == 3:
            self.allocate(cpu, 0, len(self.file.shared))
        elif operation == 2:
            self.punch_some()
        else:
            self.convert_some(operation == 1)

    def end_after(self, start: int) -> int:
        """The end of a range of pages that begins at ``start``."""
        return start + 1 + choose(len(self.file.shared) - start, "further pages")

    def punch_some(self) -> None:
        """Discard any pages."""
        start = choose(len(self.file.shared), "start")
        self.punch(start, self.end_after(start))

    def convert_some(self, to_shared: bool) -> None:
        """Make any pages shared or private."""
        start = choose(len(self.file.shared), "start")
        self.convert(start, self.end_after(start), to_shared)

    def allocate(self, cpu: Cpu, start: int, end: int) -> None:
        """Populate pages."""
        err = self.file.allocate(cpu, start, end)
        beyond = end > self.file.mapping.i_size
        require((err == -EINVAL) == beyond, CAUSE)
        require(beyond or self.may_add(err, start, end) or (err == -EINTR and self.signals), CAUSE)
        if err:
            reached("an allocation fails")
            self.allocation_failed(err)
        else:
            require(self.pages_there(start, end) == end - start, DONE_OR_NOTHING)
            reached("pages are allocated")

    def allocation_failed(self, err: int) -> None:
        """An allocation ended early."""

    def punch(self, start: int, end: int) -> None:
        """Discard pages."""
        there = self.file.mapping.slots[start] is not None
        for pgoff in Pgoff.span(start, end):
            self.discarding[pgoff] = True
        err = self.file.punch_hole(start, end)
        require(self.range_taken(err, start < end), CAUSE)
        for pgoff in Pgoff.span(start, end):
            self.discarding[pgoff] = False
            owner = self.file.owner[pgoff]
            if err == 0:
                require(self.file.mapping.slots[pgoff] is None, DONE_OR_NOTHING)
                if owner is not None and self.file.bound[pgoff]:
                    owner.expects[self.file.gfn[pgoff]] = Expects.NOTHING
        if err == 0 and there:
            reached("a page is discarded")
        if err:
            self.punching_failed(err, start, end)

    def punching_failed(self, err: int, start: int, end: int) -> None:
        """Pages could not be discarded."""

    def convert(self, start: int, end: int, to_shared: bool) -> None:
        """Make pages shared or private."""
        if to_shared and not all(self.may_share(pgoff) for pgoff in Pgoff.span(start, end)):
            return
        before = self.shared_pages(start, end)
        err, at = self.file.convert(start, end, to_shared)
        require(self.range_taken(err, self.in_file(start, end)), CAUSE)
        if err:
            require(start <= at < max(end, start + 1) and self.shared_pages(start, end) == before, DONE_OR_NOTHING)
            self.conversion_failed()
            return
        if self.file.mapping.slots[start] is not None and self.shared_pages(start, end) != before:
            if to_shared:
                reached("a private page becomes shared")
            else:
                reached("a shared page becomes private")
        for pgoff in Pgoff.span(start, end):
            require(self.file.shared[pgoff] == to_shared, DONE_OR_NOTHING)
            owner = self.file.owner[pgoff]
            if owner is not None and self.file.bound[pgoff]:
                require(self.agrees(owner, self.file.gfn[pgoff], to_shared), DONE_OR_NOTHING)
                if not to_shared:
                    owner.gave[self.file.gfn[pgoff]] = False

    def conversion_failed(self) -> None:
        """A conversion did not go through."""

    def shared_pages(self, start: int, end: int) -> Pages:
        """How many pages of a range are shared."""
        count = 0
        for pgoff in Pgoff.span(start, end):
            if self.file.shared[pgoff]:
                count += 1
        return Pages(count)

    def start_with_memory(self, guest: Guest) -> None:
        """Give a VM the file, and run it."""
        further = 1 if self.shifted else 0
        last = len(self.file.bound) - further
        self.start(guest, 0, last, Gfn(further))
        if self.shifted:
            self.start(guest, last, last + 1, Gfn(0))

    def start(self, guest: Guest, start: int, end: int, gfn: Gfn) -> None:
        """Give a VM the pages start <= pgoff < end of the file, from ``gfn`` on, and run it."""
        raise NotImplementedError


class VmOwner(FileUser):
    """A VMM that starts and stops VMs as well."""

    must_show = ["a guest's pages come back when it is torn down"]

    def start_or_stop(self, guest: Guest) -> None:
        """Give a VM memory and run it; or tear it down, and take its memory, again if the driver refused."""
        if guest.running or self.pages_of(guest) > 0:
            if guest.running:
                self.machine.hypervisor.vm_stop(guest)
            reaches = not guest.empty()
            err = self.file.unbind(guest, 0, len(self.file.bound))
            require(self.caused(err), CAUSE)
            require((self.pages_of(guest) > 0) == (err != 0), DONE_OR_NOTHING)
            if err:
                self.unbinding_failed()
            elif reaches:
                reached("a guest's pages come back when it is torn down")
        elif self.file.open:
            if not guest.empty():
                guest.reset()
            self.start_with_memory(guest)

    def start(self, guest: Guest, start: int, end: int, gfn: Gfn) -> None:
        before = self.file.owner[start]
        had = self.pages_of(guest)
        err = self.file.bind(guest, start, end, gfn)
        given = err == -EEXIST and self.given(guest, start, end, gfn)
        secret = err == -EBUSY and self.has_secret_of_another(guest, start, end)
        require(self.range_taken(err, self.in_file(start, end)) or given or secret, CAUSE)
        require(self.pages_of(guest) == had + (end - start if err == 0 else 0), DONE_OR_NOTHING)
        if err == 0:
            for pgoff in Pgoff.span(start, end):
                found, at = self.file.find(guest, Gfn(gfn + pgoff - start))
                require(found and at == pgoff, DONE_OR_NOTHING)
            guest.running = True
            self.started(guest, before)

    def unbinding_failed(self) -> None:
        """A driver kept some of a VM's memory."""

    def started(self, guest: Guest, before: Guest | None) -> None:
        """A VM runs on pages of which ``before`` last had the first."""

    def has_secret_of_another(self, guest: Guest, start: int, end: int) -> bool:
        """Whether a page of the range was left there by another guest."""
        for pgoff in Pgoff.span(start, end):
            owner = self.file.owner[pgoff]
            if owner is not None and owner is not guest and self.file.mapping.slots[pgoff] is not None:
                return True
        return False

    def given(self, guest: Guest, start: int, end: int, gfn: Gfn) -> bool:
        """Whether a page of the range has a guest, or the guest a page where one would be."""
        for pgoff in Pgoff.span(start, end):
            taken, _ = self.file.find(guest, Gfn(gfn + pgoff - start))
            if taken or self.file.bound[pgoff]:
                return True
        return False

    def pages_of(self, guest: Guest) -> Pages:
        """How many pages of the file a guest has."""
        count = 0
        for pgoff in Pgoff.span(0, len(self.file.bound)):
            if self.file.bound[pgoff] and self.file.owner[pgoff] is guest:
                count += 1
        return Pages(count)


class Vmm(VmOwner):
    """A VMM that opens its file, and has the last user of it go, as well."""

    must_show = [*COME_AND_GO, "a file goes, and its pages are free again"]

    def operate(self, cpu: Cpu) -> None:
        operation = choose(6, "make private, make shared, punch, allocate, start or stop a VM, open or release")
        if operation == 5:
            self.open_or_release()
        elif operation == 4:
            self.start_or_stop(self.machine.guests[choose(len(self.machine.guests), "VM")])
        else:
            self.work_on_file(cpu, operation)
        require(not self.locked(), NO_LOCK_HELD)

    def open_or_release(self) -> None:
        """Open the file, or have its last user go."""
        if not self.file.open:
            err = self.file.create()
            require(self.caused(err), CAUSE)
            require(self.file.open == (err == 0), DONE_OR_NOTHING)
            require(not any(self.file.shared) and not any(self.file.bound), DONE_OR_NOTHING)
        elif not any(guest.running for guest in self.machine.guests):
            self.close()

    def close(self) -> None:
        """Have the last user of the file go."""
        there = self.pages_there(0, len(self.file.shared)) > 0
        lost = self.lost_pages()
        self.file.release()
        require(self.machine.refused() or self.lost_pages() == lost, CAUSE)
        if there and self.lost_pages() == lost:
            reached("a file goes, and its pages are free again")

    def lost_pages(self) -> Pfn:
        """How many page frames were given up; the first is the kernel's for good."""
        count = 0
        for folio in self.kernel.folios:
            if folio.lost:
                count += 1
        return Pfn(count)


class OpenFile(VmOwner, Vcpus):
    """A VMM whose file is open from the beginning, and stays."""

    def setup(self) -> None:
        super().setup()
        with alone():
            self.file.create()

    def operate(self, cpu: Cpu) -> None:
        operation = choose(3, "make private, make shared, start or stop a VM")
        if operation == 2:
            self.start_or_stop(self.machine.guests[choose(len(self.machine.guests), "VM")])
        else:
            self.convert_some(operation == 1)
        require(not self.locked(), NO_LOCK_HELD)


class Parts(Strays, OpenFile):
    """A VMM that gives VMs parts of a file, or none of it, and guests that touch what is not theirs."""

    must_show = ["a page is discarded"]

    def operate(self, cpu: Cpu) -> None:
        if choose(2, "punch, another operation") == 0:
            self.punch_some()
        else:
            super().operate(cpu)

    def end_after(self, start: int) -> int:
        return start + choose(len(self.file.shared) - start + 1, "pages")

    def start_with_memory(self, guest: Guest) -> None:
        start = choose(len(self.file.bound), "start")
        self.start(guest, start, self.end_after(start), Gfn(start))

    @sometimes("two VMs run on parts of one file")
    def parts(self) -> bool:
        return sum(1 for guest in self.machine.guests if guest.running) > 1


class Slots(OpenFile):
    """A VMM that gives a VM parts of its file at any gfn, and takes parts back while the VM runs.

    Attributes:
        unplugged: by gfn, the VMM is taking the page there from its guest.
    """

    must_show = ["a page is discarded", "a page is taken from a running guest"]
    ladder: ClassVar[list[dict[str, Any]]] = [rung for rung in GuestMemory.ladder if not {"vms", "shifted"} & {*rung}]

    unplugged: list[bool] = array("pages")

    def keeps(self, guest: Guest, gfn: Gfn) -> bool:
        return self.unplugged[gfn] or super().keeps(guest, gfn)

    def end_after(self, start: int) -> int:
        return start + choose(len(self.file.shared) - start + 1, "pages")

    def start_with_memory(self, guest: Guest) -> None:
        start = choose(len(self.file.bound), "start")
        end = self.end_after(start)
        self.start(guest, start, end, Gfn(choose(len(self.file.bound) - max(end - start, 1) + 1, "gfn")))

    def operate(self, cpu: Cpu) -> None:
        guest = self.machine.guests[0]
        what = choose(4, "add a slot, delete a slot, punch, another operation")
        if what == 3:
            super().operate(cpu)
        elif what == 2:
            self.punch_some()
        elif guest.running and what == 1:
            start = choose(len(self.file.bound), "start")
            self.delete(guest, start, self.end_after(start))
        elif guest.running:
            self.start_with_memory(guest)
        require(not self.locked(), NO_LOCK_HELD)

    def delete(self, guest: Guest, start: int, end: int) -> None:
        """Take pages from a guest; what it kept there stays in the file, for when it has them again."""
        had = self.pages_of(guest)
        for pgoff in Pgoff.span(start, end):
            if self.file.bound[pgoff] and self.file.owner[pgoff] is guest:
                self.unplugged[self.file.gfn[pgoff]] = True
        err = self.file.unbind(guest, start, end)
        require(self.caused(err), CAUSE)
        for gfn in Gfn.span(0, len(self.unplugged)):
            if self.unplugged[gfn]:
                self.forgotten(guest, gfn, err)
        if err == 0 and self.pages_of(guest) != had:
            reached("a page is taken from a running guest")

    def forgotten(self, guest: Guest, gfn: Gfn, err: int) -> None:
        """A page was taken from a guest, or was not."""
        found, _ = self.file.find(guest, gfn)
        require(found == (err != 0), DONE_OR_NOTHING)
        if err == 0:
            require(guest.entries[gfn].frame is None, DONE_OR_NOTHING)
            guest.expects[gfn] = Expects.NOTHING
            guest.gave[gfn] = False
        self.unplugged[gfn] = False


class Beyond(OpenFile):
    """A VMM that asks for pages that its file has and for those beyond its end, which is before the last page.

    The file was all shared when it was created (GUEST_MEMFD_FLAG_INIT_SHARED), so beyond its end nothing says private.
    """

    geometry = {"pages": 2, "frames": 3}
    must_show = [*COME_AND_GO, "a fault beyond the end is refused", "pages beyond the end are asked for"]

    def setup(self) -> None:
        super().setup()
        self.file.mapping.i_size = len(self.file.shared) - 1
        for pgoff in Pgoff.span(0, len(self.file.shared)):
            self.file.shared[pgoff] = True

    def end_after(self, start: int) -> int:
        end = start + choose(len(self.file.shared) - start + 1, "pages")
        if end > self.file.mapping.i_size:
            reached("pages beyond the end are asked for")
        return end

    def start_with_memory(self, guest: Guest) -> None:
        start = choose(len(self.file.bound), "start")
        self.start(guest, start, self.end_after(start), Gfn(start))

    def operate(self, cpu: Cpu) -> None:
        what = choose(4, "touch the mapping, punch, allocate, another operation")
        if what == 3:
            super().operate(cpu)
        elif what == 2:
            start = choose(len(self.file.shared), "start")
            self.allocate(cpu, start, self.end_after(start))
        elif what == 1:
            self.punch_some()
        else:
            self.touch_mapping(cpu, Pgoff(choose(len(self.file.shared), "pgoff")))
        require(not self.locked(), NO_LOCK_HELD)

    def touch_mapping(self, cpu: Cpu, pgoff: Pgoff) -> None:
        """The VMM uses its mapping of a page."""
        if user_access(self.machine, self.file.mapping, pgoff, may("write")) is Fault.TRANSLATION:
            if self.user_fault(cpu, pgoff) == -EFAULT and not self.in_file(pgoff, pgoff + 1):
                reached("a fault beyond the end is refused")


class TwoThreads(OpenFile):
    """A VMM of two threads: one starts and stops VMs and converts, while the other discards and allocates."""

    must_show = COME_AND_GO

    @thread
    def vmm_thread(self) -> None:
        """The other thread."""
        while True:
            self.work_on_file(self.machine.cpus[1], 2 + choose(2, "punch, allocate"))
            require(not self.locked(), NO_LOCK_HELD)


class RunningVm(FileUser):
    """A VM that has run from the beginning and does not end; its VMM converts, punches and allocates."""

    must_show = COME_AND_GO
    ladder: ClassVar[list[dict[str, Any]]] = [rung for rung in GuestMemory.ladder if "vms" not in rung]  # others never run

    def setup(self) -> None:
        super().setup()
        with alone():
            self.file.create()
            self.start_with_memory(self.machine.guests[0])

    def start(self, guest: Guest, start: int, end: int, gfn: Gfn) -> None:
        self.file.bind(guest, start, end, gfn)
        guest.running = True


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
        require(folio is not None or self.machine.refused(), CAUSE)
        if folio is not None:
            self.rented = folio
            kernel_store(self.kernel, cpu, folio.frame, Content.HOST)
            folio_put(self.kernel, folio)
            self.rented = None


class Process(Tenant, Caller):
    """Another thread of the VMM uses its mapping; another process allocates memory, writes it, frees it.

    Attributes:
        pinned: what a user of the VMM's mapping holds (GUP).
    """

    must_show = ["the VMM cannot have a page"]

    pinned: Pin = part()

    def interfered(self, err: int) -> bool:
        return err == -EAGAIN or super().interfered(err)

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
                    if self.user_fault(cpu, pgoff):
                        reached("the VMM cannot have a page")

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
        loaded = load_unaligned_zeropad(self.kernel, cpu, frame)
        if frame.next is not None:
            self.met(frame.next, loaded)


class Kcore(Host):
    """Reads of pages that may be anybody's."""

    @thread("cpus - 1")
    def kcore(self, cpu: int) -> None:
        """Somebody reads /proc/kcore."""
        while True:
            frame = self.machine.frames[choose(len(self.machine.frames), "frame")]
            self.met(frame, copy_from_kernel_nofault(self.kernel, self.machine.cpus[cpu + 1], frame))


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
            self.read_dead(self.machine.frames[choose(len(self.machine.frames), "frame")])

    @step
    def read_dead(self, frame: Frame) -> None:
        """One step, as nobody else runs: the kernel whose memory it is has crashed."""
        copy_oldmem_page(self.kernel, frame)


class Cast(PlainRead, Kcore, Zeropad, Process, Vcpus, Vmm):
    """The standard cast."""

    must_show = ["a conversion fails"]

    def conversion_failed(self) -> None:
        reached("a conversion fails")
