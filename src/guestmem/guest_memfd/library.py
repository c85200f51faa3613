# SPDX-License-Identifier: Apache-2.0
"""Guest memory in a file: the page cache owns the pages, the library the direct map, a driver the guest's side.

A page of a file is private to the guest or shared with the host.  Where the protection unmaps, a private page is in
the file and not in the direct map; it leaves the direct map before any guest can reach it, and comes back after the
last guest has lost it and its content is gone.

Lock order: invalidate lock (shared to add pages, exclusive to remove or convert), the kernel's pm_lock, folio lock, the
driver's own.
"""

from __future__ import annotations

from enum import Enum
from errno import EAGAIN, EBADF, EBUSY, EEXIST, EFAULT, EINTR, EINVAL, ENODEV, EOPNOTSUPP, EPERM

from guestmem.machine.cost import Cost
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content, Frame
from guestmem.machine.guest import Gfn, Guest
from guestmem.mm.direct_map import (
    flush_tlb_all,
    flush_tlb_kernel_range,
    set_direct_map_default_noflush,
    set_direct_map_invalid_noflush,
)
from guestmem.mm.exception import kernel_store
from guestmem.mm.filemap import (
    AddressSpace,
    Pgoff,
    filemap_grab_folio,
    filemap_remove_folio,
    folio_start,
    map_user,
    merge_folios,
    split_folio,
    unmap_mapping_page,
)
from guestmem.mm.folio import EHWPOISON, Folio, Kernel, folio_end, folio_page, folio_put, folio_put_refs, has_hwpoison
from guestmem.mm.module import Module, module_put, try_module_get
from guestmem.mm.signal import signal_pending
from guestmem.model import Record, array, bounded, charge, guards, part, step

__all__ = ["Driver", "GuestMemfd", "Pm", "Protection"]


class Protection(Enum):
    """How uninvited accesses of the host are kept from doing harm."""

    NONE = 0
    UNMAP = 1  # private pages leave the direct map: stage 1 says what stage 2 says
    FIXUP = 2  # the direct map stays; handlers of stage-2 faults consult the exception table
    UNMAP_FIXUP = 3


class Pm(Enum):
    """What the library does about hibernation."""

    UNAWARE = 0
    AVAILABLE = 1  # hibernation_available() is false while a file is open, as for secretmem
    REFUSE = 2  # that, and no file is created once hibernation has begun
    FREEZE = 3  # files may stay open, but nothing becomes private once hibernation has begun, and nothing may be
    RECLAIM = 4  # that, and what is private and has no guest is discarded


class Driver(Record):
    """The operations of a driver: those of struct guest_memfd_operations as posted, and ``provide`` and ``reclaim``.

    All but ``provide`` are called with the invalidate lock held exclusively, ``provide`` with it held shared and the
    folio locked.  An error means that the guest may still have the page; the library then does not touch it.

    Attributes:
        module: the module that its code is in; None when it is built in.
        sanitises: the hypervisor hands pages back without what the guest kept in them.
    """

    module: Module | None = None
    sanitises: bool = False

    def provide(self, file: GuestMemfd, guest: Guest, pgoff: Pgoff, folio: Folio) -> int:
        """Let a guest reach a page, as its own or shared with the host as ``file.shared`` says."""
        order = file.mapping_order(pgoff, folio)
        gfn, frame = file.block(pgoff, folio, order)
        guest.map(gfn, frame, order, private=not file.shared[pgoff])
        return 0

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        """Let no guest reach the pages start <= pgoff < end; an error comes with the page it is about."""
        return 0, 0

    def invalidate_end(self, file: GuestMemfd, start: int, end: int) -> None:
        """Guests may fault the pages in again: ends what was begun for any of them, also where beginning failed."""

    def prepare_inaccessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """The page, already out of the host's reach, becomes the guest's alone; undone by ``prepare_accessible``."""
        return 0

    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """The host is about to use the page: have the hypervisor let it, if it does not."""
        return 0

    def reclaim(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """The page is about to lose its guest: have the hypervisor give it back for good."""
        return self.prepare_accessible(file, pgoff, folio)

    def holds(self, folio: Folio) -> int:
        """How many references to a folio the driver has taken and not dropped; the rule about counters asks."""
        return 0

    def holds_module(self) -> int:
        """How many references to its own module it has taken and not dropped, beside the one of each open file."""
        return 0


class GuestMemfd(Record):
    """One file (inode) of guest memory.

    Attributes:
        kernel, driver: where it lives, and whose guests use it.
        protection: the policy of the library on this host.
        order: private pages come as folios of 2^order, where all of these are private.
        batched: ``allocate`` flushes once for all its pages, not once for each.
        pm: what is done about hibernation.
        preserved: the next kernel gets the file as it is (live update); nothing comes or goes until that is cancelled.
        open: somebody has the file.
        shared: by page offset, whether the host may use the page; otherwise it is private to the guest.
        bound: by page offset, whether a guest has the page.
        owner: by page offset, which guest has it; after unbinding, whose secret may still be in it.
        gfn: by page offset, where the guest has the page that is bound.
    """

    kernel: Kernel
    driver: Driver
    protection: Protection = Protection.NONE
    order: int = bounded("order")
    batched: bool = False
    pm: Pm = Pm.REFUSE
    preserved: bool = False
    mapping: AddressSpace = part()
    open: bool = False
    shared: list[bool] = array("pages")
    bound: list[bool] = array("pages")
    owner: list[Guest | None] = array("pages")
    gfn: list[Gfn] = array("pages")

    @guards("shared", "bound", "owner", "gfn", "preserved")
    def converting(self) -> bool:
        """Nobody adds a page, or decides by these, meanwhile."""
        return self.mapping.invalidate_lock.writing()

    @guards("open")
    def opening(self) -> bool:
        """The last user closes the file, or nobody has it yet."""
        return self.mapping.invalidate_lock.writing() or self.kernel.pm_lock.held()

    def unmaps(self) -> bool:
        """Whether private pages leave the direct map."""
        return self.protection is Protection.UNMAP or self.protection is Protection.UNMAP_FIXUP

    # ---- creating, binding

    def create(self) -> int:
        """Create the file, all private.  -EOPNOTSUPP: no such protection here; -EBUSY: hibernating; -ENODEV: unloading."""
        if self.unmaps() and not self.kernel.can_set_direct_map():
            return -EOPNOTSUPP
        with self.kernel.pm_lock:
            if self.pm is Pm.REFUSE and self.kernel.hibernating:
                return -EBUSY
            if not try_module_get(self.driver.module):
                return -ENODEV
            if self.pm is Pm.AVAILABLE or self.pm is Pm.REFUSE:
                self.kernel.guest_memfd_users += 1
            self.open = True
        return 0

    def bind(self, guest: Guest, start: int, end: int, gfn: Gfn) -> int:
        """Give a guest the pages start <= pgoff < end, from ``gfn`` on.

        -EINVAL: none, or beyond the end of the file; -EBADF: no file; -EEXIST, -EBUSY: as ``may_bind``.
        """
        if start >= end or end > self.mapping.i_size:
            return -EINVAL
        with self.mapping.invalidate_lock.exclusive:
            if not self.open:
                return -EBADF
            for pgoff in Pgoff.span(start, end):
                err = self.may_bind(guest, pgoff, Gfn(gfn + pgoff - start))
                if err:
                    return err
            for pgoff in Pgoff.span(start, end):
                self.bound[pgoff] = True
                self.owner[pgoff] = guest
                self.gfn[pgoff] = Gfn(gfn + pgoff - start)
        return 0

    def may_bind(self, guest: Guest, pgoff: Pgoff, gfn: Gfn) -> int:
        """0, or -EEXIST: the page has a guest, or the gfn a page; -EBUSY: another guest may have left a secret in the page."""
        taken, _ = self.find(guest, gfn)
        if taken or self.bound[pgoff]:
            return -EEXIST
        before = self.owner[pgoff]
        if self.mapping.slots[pgoff] is not None and before is not None and before is not guest:
            return -EBUSY
        return 0

    def find(self, guest: Guest, gfn: Gfn) -> tuple[bool, Pgoff]:
        """Whether a guest has a page of the file at a gfn, and which."""
        for pgoff in Pgoff.span(0, len(self.bound)):
            if self.bound[pgoff] and self.owner[pgoff] is guest and self.gfn[pgoff] == gfn:
                return True, pgoff
        return False, Pgoff(0)

    def mapping_order(self, pgoff: Pgoff, folio: Folio) -> int:
        """The order of the entry by which a guest may have a page: its folio's, if it has all of that in one aligned piece."""
        start = folio_start(folio, pgoff)
        first = self.gfn[start]
        if first % (1 << folio.order) != 0:
            return 0
        for at in Pgoff.span(start, start + (1 << folio.order)):
            if not self.bound[at] or self.owner[at] is not self.owner[pgoff] or self.gfn[at] != first + at - start:
                return 0
        return folio.order

    def block(self, pgoff: Pgoff, folio: Folio, order: int) -> tuple[Gfn, Frame]:
        """Gfn and frame of the first of the 2^order pages that an entry has of which one is at ``pgoff``."""
        size = 1 << order
        gfn = self.gfn[pgoff]
        return Gfn(gfn - gfn % size), folio_page(self.kernel, folio, pgoff - pgoff % size)

    def unbind(self, guest: Guest, start: int, end: int) -> int:
        """Take those of the pages start <= pgoff < end from a guest that it has; they stay in the file.

        Where the driver fails, as Gunyah's and pKVM's do while the guest runs, all stay bound.
        """
        with self.mapping.invalidate_lock.exclusive:
            for pgoff in Pgoff.span(start, end):
                if self.bound[pgoff] and self.owner[pgoff] is guest:
                    err = self.take_back(pgoff)
                    if err:
                        return err
            for pgoff in Pgoff.span(start, end):
                if self.owner[pgoff] is guest:
                    self.bound[pgoff] = False
        return 0

    def take_back(self, pgoff: Pgoff) -> int:
        """Have the guest lose a page for good."""
        err, _ = self.driver.invalidate_begin(self, pgoff, pgoff + 1)
        folio = self.mapping.slots[pgoff]
        if err == 0 and folio is not None:
            err = self.driver.reclaim(self, pgoff, folio)
        self.driver.invalidate_end(self, pgoff, pgoff + 1)
        return err

    def take_back_folio(self, pgoff: Pgoff, folio: Folio) -> int:
        """Have the guest lose all pages of a folio for good."""
        first = folio_start(folio, pgoff)
        for at in Pgoff.span(first, first + (1 << folio.order)):
            err = self.take_back(at)
            if err:
                return err
        return 0

    # ---- pages coming

    def grab_folio(self, cpu: Cpu, pgoff: Pgoff, flush: bool) -> tuple[int, Folio | None]:
        """Find or create a page, initialised, in or out of the direct map as it must be; locked, with a reference.

        The invalidate lock is held shared.  ``flush``: no TLB may have it either, if it is out of the direct map.
        -ENOMEM; -EAGAIN when the caller should try again; -EPERM: the file is preserved; -EHWPOISON; -EBADF: no file.
        """
        if not self.open:
            return -EBADF, None
        if self.frozen() and not self.shared[pgoff]:
            return -EAGAIN, None
        if self.preserved and self.mapping.slots[pgoff] is None:
            return -EPERM, None
        err, folio = self.find_or_create(cpu, pgoff)
        if folio is None:
            return err, None
        if has_hwpoison(self.kernel, folio):
            self.put_folio(folio)
            return -EHWPOISON, None
        if not folio.uptodate:
            self.initialise(cpu, folio)
        if not self.shared[pgoff] and not folio.zapped:
            err = self.zap_direct_map(folio, flush)
            if err:
                self.put_folio(folio)
                return err, None
        return 0, folio

    def find_or_create(self, cpu: Cpu, pgoff: Pgoff) -> tuple[int, Folio | None]:
        """The folio at ``pgoff``, locked, with a reference; new if there is none.  -ENOMEM; -EAGAIN: a race was lost."""
        return filemap_grab_folio(self.kernel, self.mapping, pgoff, self.order_at(pgoff))

    def initialise(self, cpu: Cpu, folio: Folio) -> None:
        """Clear a new folio; it is locked."""
        for pfn in range(folio.frame.pfn, folio_end(folio)):
            charge(Cost.PAGE_ZEROED)
            kernel_store(self.kernel, cpu, self.kernel.machine.frames[pfn], Content.ZERO)
        folio.uptodate = True

    def order_at(self, pgoff: Pgoff) -> int:
        """The order of a new folio: that of the file, where all its pages are private and none is there."""
        start = pgoff - pgoff % (1 << self.order)
        for at in Pgoff.span(start, start + (1 << self.order)):
            if self.shared[at] or self.mapping.slots[at] is not None:
                return 0
        return self.order

    @step
    def put_folio(self, folio: Folio) -> None:
        """Let go of a page that was grabbed (folio_unlock, folio_put); one step, as the invalidate lock is held."""
        folio.lock.release()
        folio_put(self.kernel, folio)

    def allocate(self, cpu: Cpu, start: int, end: int) -> int:
        """fallocate: populate pages.  -EINVAL: beyond the end of the file.  A later error, as -EINTR, leaves what came before."""
        err = 0
        if end > self.mapping.i_size:
            return -EINVAL
        with self.mapping.invalidate_lock.shared:
            for pgoff in Pgoff.span(start, end):
                if err == 0 and signal_pending(self.kernel):
                    err = -EINTR
                if err == 0:
                    err, folio = self.grab_folio(cpu, pgoff, not self.batched)
                    if folio is not None:
                        self.put_folio(folio)
            if self.batched:
                flush_tlb_all(self.kernel.machine)
        return err

    def fault(self, cpu: Cpu, pgoff: Pgoff) -> int:
        """The VMM touches its mapping where it has no entry.  -EFAULT: it is private, or beyond the file's end (SIGBUS)."""
        charge(Cost.USER_FAULT)
        with self.mapping.invalidate_lock.shared:
            if pgoff >= self.mapping.i_size or not self.accessible(pgoff):
                return -EFAULT
            err, folio = self.grab_folio(cpu, pgoff, True)
            if folio is None:
                return err
            map_user(self.mapping, pgoff, folio)
            self.put_folio(folio)
        return 0

    def accessible(self, pgoff: Pgoff) -> bool:
        """Whether the host may map a page."""
        return self.shared[pgoff]

    def guest_fault(self, cpu: Cpu, guest: Guest, gfn: Gfn) -> int:
        """A guest touches a page that its stage 2 does not have.  -EFAULT: it has no such page."""
        charge(Cost.GUEST_FAULT)
        with self.mapping.invalidate_lock.shared:
            found, pgoff = self.find(guest, gfn)
            if not found:
                return -EFAULT
            return self.provide_page(cpu, guest, pgoff)

    def provide_page(self, cpu: Cpu, guest: Guest, pgoff: Pgoff) -> int:
        """Let a guest have a page, if it is bound to it; the invalidate lock is held."""
        if not self.bound[pgoff] or self.owner[pgoff] is not guest:
            return -EFAULT
        err, folio = self.grab_folio(cpu, pgoff, True)
        if folio is None:
            return err
        err = self.driver.provide(self, guest, pgoff, folio)
        self.put_folio(folio)
        return err

    def populate(self, cpu: Cpu, guest: Guest, pgoff: Pgoff) -> int:
        """Let a guest have a page before it runs, with what is in it (kvm_gmem_populate).  -EFAULT: it is not its page."""
        with self.mapping.invalidate_lock.exclusive:
            return self.provide_page(cpu, guest, pgoff)

    # ---- the direct map

    def zap_direct_map(self, folio: Folio, flush: bool) -> int:
        """Take a page out of the direct map, and out of all TLBs.  -ENOMEM: a block entry cannot be split."""
        if not self.unmaps():
            return 0
        err = set_direct_map_invalid_noflush(self.kernel, folio.frame, folio.order)
        if err:
            return err
        folio.zapped = True
        if flush:
            flush_tlb_kernel_range(self.kernel.machine, folio.frame, folio.order)
        return 0

    def restore_direct_map(self, folio: Folio) -> None:
        """Put a page back into the direct map.  It has entries of its own since it left, so this cannot fail."""
        if folio.zapped:
            set_direct_map_default_noflush(self.kernel, folio.frame, folio.order)
            folio.zapped = False

    # ---- large folios

    def split(self, pgoff: Pgoff) -> int:
        """Make a large folio pages, as one of them is to go its own way.

        Its direct-map entries are split first: later there is no way back.  -ENOMEM: they cannot be; -EAGAIN: somebody
        holds a reference.
        """
        folio = self.mapping.slots[pgoff]
        if folio is None or folio.order == 0:
            return 0
        err = self.split_direct_map(folio)
        if err:
            return err
        if folio.refcount != 1 << folio.order:
            self.kernel.lru_add_drain_all()
        return split_folio(self.kernel, self.mapping, folio, pgoff)

    def split_direct_map(self, folio: Folio) -> int:
        """Have each page of a folio that is out of the direct map return to it alone.  -ENOMEM."""
        if folio.zapped:
            for pfn in range(folio.frame.pfn, folio_end(folio)):
                err = self.kernel.split_kernel_leaf_mapping(self.kernel.machine.frames[pfn], 0)
                if err:
                    return err
        return 0

    def merge(self, start: int, end: int) -> None:
        """Make large folios again of the pages around start <= pgoff < end, where all are private and nobody objects."""
        size = 1 << self.order
        for pgoff in Pgoff.span(start, end):
            first = pgoff - pgoff % size
            if pgoff == max(first, start) and not any(self.shared[at] for at in Pgoff.span(first, first + size)):
                merge_folios(self.kernel, self.mapping, Pgoff(first), self.order)

    # ---- conversion in place

    def convert(self, start: int, end: int, to_shared: bool) -> tuple[int, int]:
        """Make pages shared or private, all or none; an error comes with the page that stood in the way.

        What is so already is not touched.  -EAGAIN: somebody still holds a reference to a page that is to become
        private.  -EINVAL: no pages, or beyond the end of the file.  -EBADF: no file.  -EPERM: the file is preserved.
        -EBUSY: hibernation has begun.
        """
        if start >= end or end > self.mapping.i_size:
            return -EINVAL, start
        if not self.open:
            return -EBADF, start
        with self.mapping.invalidate_lock.exclusive:
            if self.preserved:
                return -EPERM, start
            if self.frozen() and not to_shared:
                return -EBUSY, start
            if to_shared:
                err, at = self.make_shared(start, end)
            else:
                err, at = self.make_private(start, end)
            if err == 0:
                for pgoff in Pgoff.span(start, end):
                    self.shared[pgoff] = to_shared
            if self.order > 0:
                self.merge(start, end)
            self.invalidate_end(start, end)
        return err, at

    def invalidate_end(self, start: int, end: int) -> None:
        """End what ``invalidate_changing`` began."""
        self.driver.invalidate_end(self, start, end)

    def make_private(self, start: int, end: int) -> tuple[int, int]:
        """Take pages from the host.  Until the last check has passed, only mappings that can be faulted in again go."""
        for pgoff in Pgoff.span(start, end):
            if self.shared[pgoff]:
                unmap_mapping_page(self.mapping, pgoff)
        for pgoff in Pgoff.span(start, end):
            folio = self.mapping.slots[pgoff]
            if folio is not None and self.shared[pgoff] and self.in_use(pgoff, folio):
                return -EAGAIN, pgoff
        err, at = self.invalidate_changing(start, end, False)
        if err:
            return err, at
        for pgoff in Pgoff.span(start, end):
            folio = self.mapping.slots[pgoff]
            if folio is not None and self.shared[pgoff]:
                err = self.take_from_host(pgoff, folio)
                if err:
                    self.stay_shared(start, end)
                    return err, pgoff
        return 0, 0

    def in_use(self, pgoff: Pgoff, folio: Folio) -> bool:
        """Whether anybody but the page cache has a reference to a page that no process has mapped any more.

        A batch of new folios of some CPU does not count: it is drained, and the file gets no new page meanwhile.
        """
        if folio.refcount != 1 << folio.order:
            self.kernel.lru_add_drain_all()
        return folio.refcount != 1 << folio.order

    def take_from_host(self, pgoff: Pgoff, folio: Folio) -> int:
        """A page leaves the host, then the hypervisor is told.  An error leaves what was done to ``stay_shared``."""
        err = self.zap_direct_map(folio, True)
        if err:
            return err
        return self.driver.prepare_inaccessible(self, pgoff, folio)

    def stay_shared(self, start: int, end: int) -> None:
        """Undo the preparation of pages that are still shared.  What a driver does not give back is lost."""
        for pgoff in Pgoff.span(start, end):
            folio = self.mapping.slots[pgoff]
            if folio is not None and self.shared[pgoff]:
                self.undo(pgoff, folio)

    def undo(self, pgoff: Pgoff, folio: Folio) -> None:
        """Give a page back to the host that was to become private, or lose it."""
        if self.driver.prepare_accessible(self, pgoff, folio) == 0:
            self.restore_direct_map(folio)
        else:
            self.lose(pgoff, folio)

    def invalidate_changing(self, start: int, end: int, to_shared: bool) -> tuple[int, int]:
        """Let no guest reach the pages that a conversion changes."""
        for pgoff in Pgoff.span(start, end):
            if self.shared[pgoff] != to_shared:
                err, at = self.driver.invalidate_begin(self, pgoff, pgoff + 1)
                if err:
                    return err, at
        return 0, 0

    def make_shared(self, start: int, end: int) -> tuple[int, int]:
        """Give pages to the host, once the hypervisor has let go of all of them.

        Folios are split first, which may fail: on TDX and CCA a page that a guest loses has lost what was in it.
        """
        for pgoff in Pgoff.span(start, end):
            err = self.split(pgoff)
            if err:
                return err, pgoff
        err, at = self.invalidate_changing(start, end, True)
        if err:
            return err, at
        for pgoff in Pgoff.span(start, end):
            folio = self.mapping.slots[pgoff]
            if folio is not None and not self.shared[pgoff]:
                err = self.give_to_host(pgoff, folio)
                if err:
                    return err, pgoff
        for pgoff in Pgoff.span(start, end):
            folio = self.mapping.slots[pgoff]
            if folio is not None:
                self.restore_direct_map(folio)
        return 0, 0

    def give_to_host(self, pgoff: Pgoff, folio: Folio) -> int:
        """The hypervisor lets go of a page; it returns to the direct map when all of a range have come so far."""
        return self.driver.prepare_accessible(self, pgoff, folio)

    # ---- pages going

    def punch_hole(self, start: int, end: int) -> int:
        """Discard pages, all or none; the driver may refuse.  -EINVAL: no pages; -EBADF: no file; -EPERM: it is preserved."""
        if start >= end:
            return -EINVAL
        if not self.open:
            return -EBADF
        with self.mapping.invalidate_lock.exclusive:
            if self.preserved:
                return -EPERM
            err = self.revoke(start, end)
            if err == 0:
                for pgoff in Pgoff.span(start, end):
                    self.discard(pgoff)
            self.driver.invalidate_end(self, start, end)
        return err

    def revoke(self, start: int, end: int) -> int:
        """Have guests lose pages for good, all or none; what is split is split first, as in ``make_shared``."""
        err = 0
        for pgoff in Pgoff.span(start, end):
            folio = self.mapping.slots[pgoff]
            if folio is not None and err == 0 and not self.within(folio, pgoff, start, end):
                err = self.split(pgoff)
        if err == 0:
            err, _ = self.driver.invalidate_begin(self, start, end)
        for pgoff in Pgoff.span(start, end):
            folio = self.mapping.slots[pgoff]
            if folio is not None and err == 0:
                err = self.driver.reclaim(self, pgoff, folio)
        return err

    def within(self, folio: Folio, pgoff: Pgoff, start: int, end: int) -> bool:
        """Whether all of the folio at ``pgoff`` is in a range."""
        first = folio_start(folio, pgoff)
        return start <= first and first + (1 << folio.order) <= end

    def discard(self, pgoff: Pgoff) -> None:
        """Remove a folio that no guest reaches any more, and what is in it.

        It is cleared before it returns to the direct map: in the other order, that of secretmem_free_folio(), everybody
        can read it for a moment.  Broken memory cannot be cleared, and does not return.
        """
        folio = self.mapping.slots[pgoff]
        if folio is None:
            return
        unmap_mapping_page(self.mapping, pgoff)
        if not has_hwpoison(self.kernel, folio):
            if not self.shared[pgoff] and not self.driver.sanitises:
                for pfn in range(folio.frame.pfn, folio_end(folio)):
                    charge(Cost.PAGE_ZEROED)
                    self.kernel.machine.store_mapped(self.kernel.machine.frames[pfn], Content.ZERO)
            self.restore_direct_map(folio)
        filemap_remove_folio(self.mapping, folio, pgoff)
        folio_put_refs(self.kernel, folio, 1 << folio.order)

    def lose(self, pgoff: Pgoff, folio: Folio) -> None:
        """Give up a page that may still be a guest's: it leaves the file, and nobody ever uses it again.

        No image of memory can be made any more, and no other kernel can follow this one.
        """
        folio.lost = True
        if self.pm is not Pm.UNAWARE:
            self.kernel.lost = True
        unmap_mapping_page(self.mapping, pgoff)
        filemap_remove_folio(self.mapping, folio, pgoff)

    def release(self) -> None:
        """The last user is gone, and no guest runs: discard everything.  What a driver cannot get back is lost."""
        with self.mapping.invalidate_lock.exclusive:
            for pgoff in Pgoff.span(0, len(self.bound)):
                folio = self.mapping.slots[pgoff]
                if folio is not None:
                    if self.take_back_folio(pgoff, folio) == 0:
                        self.discard(pgoff)
                    else:
                        self.lose(pgoff, folio)
                self.bound[pgoff] = False
                self.owner[pgoff] = None
                self.gfn[pgoff] = Gfn(0)
                self.shared[pgoff] = False
            self.open = False
            self.preserved = False
            module_put(self.driver.module)
            if self.pm is Pm.AVAILABLE or self.pm is Pm.REFUSE:
                self.kernel.guest_memfd_users -= 1

    # ---- hibernation, live update, memory failure

    def frozen(self) -> bool:
        """Whether no page may be private for now."""
        return self.kernel.hibernating and (self.pm is Pm.FREEZE or self.pm is Pm.RECLAIM)

    def hibernation_prepare(self) -> int:
        """The PM notifier, before processes are frozen.  -EBUSY: there must be no image now."""
        if self.pm is Pm.UNAWARE or self.pm is Pm.AVAILABLE:
            return 0
        with self.mapping.invalidate_lock.exclusive:
            if self.pm is Pm.RECLAIM:
                self.discard_unbound()
            with self.kernel.pm_lock:
                if self.kernel.lost or (self.pm is Pm.REFUSE and self.open) or self.has_private():
                    return -EBUSY
                self.kernel.hibernating = True
        return 0

    def post_hibernation(self) -> None:
        """The PM notifier, when processes run again, or when there was no image."""
        with self.kernel.pm_lock:
            self.kernel.hibernating = False

    def has_private(self) -> bool:
        """Whether a page is there that the host must not use."""
        return any(self.mapping.slots[pgoff] is not None and not self.shared[pgoff] for pgoff in Pgoff.span(0, len(self.shared)))

    def discard_unbound(self) -> None:
        """Discard private pages that no guest has any more."""
        for pgoff in Pgoff.span(0, len(self.bound)):
            if not self.bound[pgoff] and not self.shared[pgoff]:
                self.discard(pgoff)

    def preserve(self) -> int:
        """Freeze the file for the next kernel.  -EOPNOTSUPP: a page may be private, or is large; -EHWPOISON; -EBADF."""
        with self.mapping.invalidate_lock.exclusive:
            if not self.open:
                return -EBADF
            for pgoff in Pgoff.span(0, len(self.shared)):
                folio = self.mapping.slots[pgoff]
                if not self.shared[pgoff] or (folio is not None and folio.order > 0):
                    return -EOPNOTSUPP
                if folio is not None and has_hwpoison(self.kernel, folio):
                    return -EHWPOISON
            self.preserved = True
        return 0

    def unpreserve(self) -> None:
        """The live update was cancelled."""
        with self.mapping.invalidate_lock.exclusive:
            self.preserved = False

    def error_remove_folio(self, pgoff: Pgoff, folio: Folio) -> int:
        """The memory of a folio is broken: no guest and no process is to reach it.  It stays, so that it is not replaced.

        An error of the driver: a guest still reaches it.
        """
        with self.mapping.invalidate_lock.exclusive:
            if self.mapping.slots[pgoff] is not folio:
                return 0
            unmap_mapping_page(self.mapping, pgoff)
            err, _ = self.driver.invalidate_begin(self, pgoff, pgoff + 1)
            self.driver.invalidate_end(self, pgoff, pgoff + 1)
        return err
