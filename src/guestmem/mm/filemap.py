# SPDX-License-Identifier: Apache-2.0
"""The page cache of a file, and the VMM's mapping of it."""

from __future__ import annotations

from errno import EAGAIN, EEXIST, ENOMEM

from guestmem.machine.cost import Cost
from guestmem.machine.frame import Content
from guestmem.machine.machine import HYP_PANIC, Fault, Machine
from guestmem.mm.folio import (
    Folio,
    Kernel,
    alloc_folio,
    folio_put,
    folio_ref_freeze,
    folio_ref_unfreeze,
    folio_try_get,
)
from guestmem.model import (
    Index,
    Record,
    RwSem,
    array,
    bounded,
    charge,
    current,
    guards,
    may,
    might_sleep,
    panic,
    part,
    reached,
    require,
    step,
)
from guestmem.model.errors import GUARDED

__all__ = [
    "AddressSpace",
    "Pgoff",
    "Pin",
    "UserEntry",
    "filemap_add_folio",
    "filemap_grab_folio",
    "filemap_lock_folio",
    "filemap_remove_folio",
    "folio_start",
    "follow_pfnmap",
    "map_user",
    "merge_folios",
    "split_folio",
    "unmap_mapping_page",
    "user_access",
    "xa_load",
]


class Pgoff(Index, below="pages"):
    """Page offset in a file."""


class UserEntry(Record):
    """One page-table entry of the VMM's mapping; the folio is kept until the flush when the entry is removed."""

    folio: Folio | None = None
    live: bool = False


class AddressSpace(Record):
    """The page cache of a file (struct address_space).

    Attributes:
        slots: the folios, by page offset.
        invalidate_lock: shared to add folios, exclusive to remove or convert them.
        user: the VMM's page-table entries for the file, by page offset.
        i_size: the size of the file (inode->i_size), in pages.
    """

    slots: list[Folio | None] = array("pages")
    invalidate_lock: RwSem = part()
    user: list[UserEntry] = array("pages")
    i_size: int = bounded("pages", init="pages")

    def within_size(self) -> bool:
        """Whether no page beyond the end of the file is in the page cache, or mapped by the VMM."""
        return not any(
            self.slots[pgoff] is not None or self.user[pgoff].folio is not None
            for pgoff in Pgoff.span(self.i_size, len(self.slots))
        )

    @guards("slots")
    def adding(self) -> bool:
        """Folios come while the lock is held, either way; those who take them away say that it is held exclusively."""
        return self.invalidate_lock.held()


@step
def xa_load(mapping: AddressSpace, pgoff: Pgoff) -> Folio | None:
    """What is in a slot of the page cache now; nothing keeps it there, or the folio from going."""
    return mapping.slots[pgoff]


@step
def filemap_lock_folio(mapping: AddressSpace, pgoff: Pgoff) -> Folio | None:
    """Look a folio up, take a reference, lock it.

    One step: while the lock is waited for, the invalidate lock keeps the folio where it is, and everybody from counting
    its references.
    """
    require(mapping.invalidate_lock.held(), GUARDED)
    folio = mapping.slots[pgoff]
    if folio is not None:
        folio.lock.acquire()
        folio.refcount += 1
    return folio


@step
def filemap_add_folio(mapping: AddressSpace, folio: Folio, pgoff: Pgoff) -> int:
    """Add a new folio at the place that has ``pgoff`` in it, locked; -EEXIST if somebody else was faster."""
    start = folio_start(folio, pgoff)
    end = start + (1 << folio.order)
    for at in Pgoff.span(start, end):
        if mapping.slots[at] is not None:
            return -EEXIST
    for at in Pgoff.span(start, end):
        mapping.slots[at] = folio
    folio.refcount += 1 << folio.order
    folio.lock.holder = current() + 1
    return 0


@step
def filemap_remove_folio(mapping: AddressSpace, folio: Folio, pgoff: Pgoff) -> None:
    """Take a folio out of the page cache; the cache's references, one for each page, are the caller's to drop."""
    require(mapping.invalidate_lock.writing(), GUARDED)
    start = folio_start(folio, pgoff)
    for at in Pgoff.span(start, start + (1 << folio.order)):
        mapping.slots[at] = None


def filemap_grab_folio(kernel: Kernel, mapping: AddressSpace, pgoff: Pgoff, order: int) -> tuple[int, Folio | None]:
    """Find a folio, or create one of an order; it comes locked, with a reference.

    -ENOMEM, or -EAGAIN when a race was lost.
    """
    folio = filemap_lock_folio(mapping, pgoff)
    if folio is not None:
        return 0, folio
    folio = alloc_folio(kernel, order)
    if folio is None:
        return -ENOMEM, None
    if filemap_add_folio(mapping, folio, pgoff) != 0:
        folio_put(kernel, folio)
        return -EAGAIN, None
    kernel.folio_add_lru(folio)
    return 0, folio


def folio_start(folio: Folio, pgoff: Pgoff) -> int:
    """The first page offset of the folio that is at ``pgoff``; folios lie aligned in files."""
    return pgoff - pgoff % (1 << folio.order)


def split_folio(kernel: Kernel, mapping: AddressSpace, folio: Folio, pgoff: Pgoff) -> int:
    """Make a large folio pages of order 0; the invalidate lock is held exclusively, and no page table has the folio.

    -EAGAIN, and nothing done, where somebody holds a reference.
    """
    start = folio_start(folio, pgoff)
    if not folio_ref_freeze(folio, 1 << folio.order):
        return -EAGAIN
    end = start + (1 << folio.order)
    for at in Pgoff.span(start, end):
        replace_slot(mapping, at, split_off(kernel, folio, at - start))
    folio.order = 0
    for at in Pgoff.span(start, end):
        folio_ref_unfreeze(kernel.folios[folio.frame.pfn + at - start], 1)
    reached("a large folio is split")
    return 0


def split_off(kernel: Kernel, folio: Folio, index: int) -> Folio:
    """The folio that one page of a frozen large folio becomes."""
    page = kernel.folios[folio.frame.pfn + index]
    page.uptodate = folio.uptodate
    page.zapped = folio.zapped
    return page


@step
def replace_slot(mapping: AddressSpace, pgoff: Pgoff, folio: Folio) -> None:
    """Put another folio into a slot of the page cache."""
    require(mapping.invalidate_lock.writing(), GUARDED)
    mapping.slots[pgoff] = folio


def merge_folios(kernel: Kernel, mapping: AddressSpace, start: Pgoff, order: int) -> bool:
    """Make 2^order pages a large folio, if they lie together, are alike, and nobody holds a reference to any."""
    head = mapping.slots[start]
    if head is None or head.frame.pfn % (1 << order) != 0:
        return False
    for index in range(1 << order):
        page = mapping.slots[start + index]
        if page is None or page.frame.pfn != head.frame.pfn + index or page.zapped != head.zapped:
            return False
    for index in range(1 << order):
        if not folio_ref_freeze(kernel.folios[head.frame.pfn + index], 1):
            for frozen in range(index):
                folio_ref_unfreeze(kernel.folios[head.frame.pfn + frozen], 1)
            return False
    head.order = order
    for index in range(1, 1 << order):
        kernel.folios[head.frame.pfn + index].zapped = False
        replace_slot(mapping, Pgoff(start + index), head)
    folio_ref_unfreeze(head, 1 << order)
    reached("pages are merged into a large folio")
    return True


@step
def map_user(mapping: AddressSpace, pgoff: Pgoff, folio: Folio) -> None:
    """Enter a folio into the VMM's page table."""
    mapping.user[pgoff].folio = folio
    mapping.user[pgoff].live = True


def unmap_mapping_page(mapping: AddressSpace, pgoff: Pgoff) -> None:
    """Remove a page from the VMM's page table, and from TLBs (unmap_mapping_pages, which takes i_mmap_rwsem)."""
    might_sleep(mapping.invalidate_lock.preempt)
    if mapping.user[pgoff].live:
        clear_user(mapping, pgoff)
        flush_user(mapping, pgoff)


@step
def clear_user(mapping: AddressSpace, pgoff: Pgoff) -> None:
    """Clear an entry of the VMM's page table; TLBs may keep it."""
    mapping.user[pgoff].live = False


@step
def flush_user(mapping: AddressSpace, pgoff: Pgoff) -> None:
    """Flush a cleared entry of the VMM's page table from all TLBs.  The step is its end, as in ``tlbi_kernel``."""
    charge(Cost.USER_FLUSH)
    mapping.user[pgoff].folio = None


@step
def follow_pfnmap(mapping: AddressSpace, pgoff: Pgoff) -> Folio | None:
    """What the VMM's page table has, without a reference (follow_pfnmap_start): it may go at any time."""
    return mapping.user[pgoff].folio if mapping.user[pgoff].live else None


class Pin(Record):
    """Where GUP keeps what it has a reference to (an entry of the array of pages that it fills)."""

    folio: Folio | None = None

    def gup_fast(self, kernel: Kernel, mapping: AddressSpace, pgoff: Pgoff) -> bool:
        """Take a reference to the folio that the VMM's page table has; whether it had one, and still has.

        gup_fast_pte_range().  No lock is held: by the time that the reference is there, the folio may be somebody else's,
        so the entry is read again.
        """
        folio = follow_pfnmap(mapping, pgoff)
        if folio is None or not folio_try_get(folio):
            return False
        self.folio = folio
        if follow_pfnmap(mapping, pgoff) is not folio:
            self.unpin(kernel)
            return False
        return True

    def unpin(self, kernel: Kernel) -> None:
        """Drop the reference (unpin_user_page)."""
        if self.folio is not None:
            folio_put(kernel, self.folio)
            self.folio = None


@step
def user_access(machine: Machine, mapping: AddressSpace, pgoff: Pgoff, write: bool) -> Fault:
    """The VMM uses its mapping; TRANSLATION where it has no entry.  Of an abort in stage 2, it dies by a signal."""
    entry = mapping.user[pgoff]
    if entry.folio is None:
        return Fault.TRANSLATION
    if not entry.live and not may("the TLB still holds the entry"):
        return Fault.TRANSLATION
    frame = entry.folio.frame
    fault = machine.store_mapped(frame, Content.SHARED) if write else machine.load_mapped(frame)
    if fault is Fault.EL2:
        panic(HYP_PANIC)
    return fault
