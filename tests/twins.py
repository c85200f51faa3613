# SPDX-License-Identifier: Apache-2.0
"""Bad twins: the library, a driver or a VMM with one line changed, which the marked line names."""

from __future__ import annotations

from guestmem.guest_memfd.library import Driver, GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.machine.cost import Cost
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content
from guestmem.machine.guest import Gfn, Guest
from guestmem.machine.machine import Hypervisor
from guestmem.mm.direct_map import set_direct_map_invalid_noflush
from guestmem.mm.exception import kernel_store
from guestmem.mm.filemap import Pgoff, filemap_grab_folio, filemap_remove_folio, unmap_mapping_page
from guestmem.mm.folio import Folio, folio_put
from guestmem.model import charge, choose, part, thread
from guestmem.scenarios.hypervisors import OnGunyah, OnKvm

# ---- no host access ends in a panic


class NoFlush(GuestMemfd):
    def zap_direct_map(self, folio: Folio) -> int:
        if not self.unmaps():
            return 0
        err = set_direct_map_invalid_noflush(self.kernel, folio.frame)
        if err:
            return err
        folio.zapped = True  # BUG: no flush_tlb_kernel_range()
        return 0


class GunyahNoFlush(OnGunyah):
    file: NoFlush = part()


# ---- the host never reads a guest's secret


class RestoreFirst(GuestMemfd):
    def discard(self, pgoff: Pgoff) -> None:
        folio = self.mapping.slots[pgoff]
        if folio is None:
            return
        unmap_mapping_page(self.mapping, pgoff)
        owner = self.owner[pgoff]
        if owner is not None:
            owner.wrote[pgoff] = False
        self.restore_direct_map(folio)  # BUG: before the page is cleared, as secretmem_free_folio() does
        if not self.shared[pgoff] and not self.driver.sanitises:
            self.kernel.machine.store_local(folio.frame, Content.ZERO)
        filemap_remove_folio(self.mapping, pgoff)
        folio_put(self.kernel, folio)


class KvmRestoreFirst(OnKvm):
    file: RestoreFirst = part()


# ---- the host never writes a guest's private page


class NoGuestFlush(KvmDriver):
    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        for pgoff in Pgoff.span(start, end):
            guest = file.owner[pgoff]
            if guest is not None and guest.entries[pgoff].live:
                guest.zap(Gfn(pgoff))  # BUG: no guest.flush()
        return 0, 0


class KvmNoGuestFlush(OnKvm):
    driver: NoGuestFlush = part()


# ---- a frame given to a guest holds no host data


class NotCleared(GuestMemfd):
    def grab_folio(self, cpu: Cpu, pgoff: Pgoff) -> tuple[int, Folio | None]:
        err, folio = filemap_grab_folio(self.kernel, self.mapping, pgoff)
        if folio is None:
            return err, None
        folio.uptodate = True  # BUG: what the last user left stays
        if not self.shared[pgoff] and not folio.zapped:
            err = self.zap_direct_map(folio)
            if err:
                self.put_folio(folio)
                return err, None
        return 0, folio


class KvmNotCleared(OnKvm):
    file: NotCleared = part()


# ---- a frame given back holds no secret


class NotScrubbed(GuestMemfd):
    def discard(self, pgoff: Pgoff) -> None:
        folio = self.mapping.slots[pgoff]
        if folio is None:
            return
        unmap_mapping_page(self.mapping, pgoff)
        owner = self.owner[pgoff]
        if owner is not None:
            owner.wrote[pgoff] = False
        filemap_remove_folio(self.mapping, pgoff)  # BUG: without clearing it
        self.restore_direct_map(folio)
        folio_put(self.kernel, folio)


class KvmNotScrubbed(OnKvm):
    file: NotScrubbed = part()


# ---- a free frame is in the direct map


class NotRestored(GuestMemfd):
    def restore_direct_map(self, folio: Folio) -> None:
        folio.zapped = False  # BUG: no set_direct_map_default_noflush()


class GunyahNotRestored(OnGunyah):
    file: NotRestored = part()


# ---- a page has at most one private owner


class BoundTwice(GuestMemfd):
    def bind(self, guest: Guest, start: int, end: int) -> int:
        with self.mapping.invalidate_lock.exclusive:
            for pgoff in Pgoff.span(start, end):  # BUG: no test for -EEXIST
                self.bound[pgoff] = True
                self.owner[pgoff] = guest
        return 0


class KvmBoundTwice(OnKvm):
    geometry = {"vms": 2}
    file: BoundTwice = part()


# ---- a folio is freed only when nothing refers to it or maps it


class NotInvalidated(KvmDriver):
    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        return 0, 0  # BUG: guests keep their entries


class KvmNotInvalidated(OnKvm):
    driver: NotInvalidated = part()

    def host(self) -> tuple[Hypervisor, Driver]:
        self.driver.sanitises = True  # so that the library's own clearing does not find it first
        return super().host()


# ---- success means done, failure means nothing changed


class HalfConverted(GuestMemfd):
    def make_private(self, start: int, end: int) -> tuple[int, int]:
        for pgoff in Pgoff.span(start, end):
            unmap_mapping_page(self.mapping, pgoff)
        for pgoff in Pgoff.span(start, end):
            folio = self.mapping.slots[pgoff]
            if folio is not None and self.shared[pgoff] and folio.refcount != 1:
                return -11, pgoff
            self.shared[pgoff] = False  # BUG: before the last page was looked at
        return self.driver.invalidate_begin(self, start, end)


class KvmHalfConverted(OnKvm):
    file: HalfConverted = part()


# ---- no lock is held at return


class LockKept(GuestMemfd):
    def allocate(self, cpu: Cpu, start: int, end: int) -> int:
        self.mapping.invalidate_lock.down_read()
        for pgoff in Pgoff.span(start, end):
            err, folio = self.grab_folio(cpu, pgoff)
            if folio is None:
                return err  # BUG: without up_read()
            self.put_folio(folio)
        self.mapping.invalidate_lock.up_read()
        return 0


class KvmLockKept(OnKvm):
    file: LockKept = part()


# ---- no deadlock; a wait ends


class KvmExitKept(OnKvm):
    @thread("vms")
    def vcpu(self, vm: int) -> None:
        guest = self.machine.guests[vm]
        while True:
            gfn = Gfn(choose(len(guest.entries), "gfn"))
            if not guest.touch(gfn):
                self.file.guest_fault(self.machine.cpus[0], guest, gfn)  # BUG: guest.exited stays


# ---- a thread does not take a lock it already holds


class FolioLocked(GuestMemfd):
    def put_folio(self, folio: Folio) -> None:
        folio_put(self.kernel, folio)  # BUG: without folio.lock.release()


class KvmFolioLocked(OnKvm):
    file: FolioLocked = part()


# ---- counters equal the holders they count


class ReferenceLeaked(GuestMemfd):
    def put_folio(self, folio: Folio) -> None:
        folio.lock.release()  # BUG: without folio_put()


class KvmReferenceLeaked(OnKvm):
    file: ReferenceLeaked = part()


# ---- contents survive where the contract says so


class ClearedAgain(GuestMemfd):
    def grab_folio(self, cpu: Cpu, pgoff: Pgoff) -> tuple[int, Folio | None]:
        err, folio = filemap_grab_folio(self.kernel, self.mapping, pgoff)
        if folio is None:
            return err, None
        charge(Cost.PAGE_ZEROED)
        kernel_store(self.kernel, cpu, folio.frame, Content.ZERO)  # BUG: also when folio.uptodate
        return 0, folio


class KvmClearedAgain(OnKvm):
    file: ClearedAgain = part()


# ---- the driver forgets a loan when the library gives the page up


class LentByOffset(GunyahDriver):
    def take_back(self, guest: Guest, pgoff: Pgoff, folio: Folio) -> int:
        err = self.hypervisor.donate_from_protected(guest, folio.frame)
        self.lent[folio.frame.pfn] = False  # BUG: also when the hypervisor refuses
        return err


class GunyahLentByOffset(OnGunyah):
    driver: LentByOffset = part()
