# SPDX-License-Identifier: Apache-2.0
"""The pool of huge pages (mm/hugetlb.c), and the struct pages of their tails (mm/hugetlb_vmemmap.c)."""

from __future__ import annotations

from errno import EAGAIN, EEXIST, ENOMEM

from guestmem.machine.machine import Machine
from guestmem.mm.filemap import AddressSpace, Pgoff, split_off
from guestmem.mm.folio import Folio, Kernel
from guestmem.model import Record, array, bounded, may, reached, step

__all__ = ["HugetlbKernel", "HugetlbPool", "add_split"]


class HugetlbPool(Record):
    """Huge pages that only files of huge pages get (struct hstate, and the subpool of one file).

    Attributes:
        order: a huge page has 2^order frames.
        has: by frame, it is in a huge page of the pool.
        home: by first frame of a huge page, it is on the list of those that are free.
        lent: by first frame, the file that took it from its reservation is there yet, and gets that back when it comes home.
        folded: by first frame, its tail pages share one page of struct pages, which must not be written.
        free: huge pages that are at home, reserved or not.
        reserved: those of them that are promised to a file.
    """

    machine: Machine
    order: int = bounded("order")
    has: list[bool] = array("frames")
    home: list[bool] = array("frames")
    lent: list[bool] = array("frames")
    folded: list[bool] = array("frames")
    free: int = bounded("frames")
    reserved: int = bounded("frames")

    def head(self, pfn: int) -> int:
        """The first frame of the huge page that a frame is in."""
        return pfn - pfn % (1 << self.order)

    def add(self, pfn: int) -> None:
        """A huge page for the pool, at boot.  Call from ``setup``."""
        for at in range(pfn, pfn + (1 << self.order)):
            self.has[at] = True
        self.home[pfn] = True
        self.folded[pfn] = True
        self.free += 1

    @step
    def reserve(self, count: int) -> int:
        """Promise huge pages to a file (hugepage_new_subpool, hugetlb_acct_memory).  -ENOMEM: there are not so many."""
        if self.free - self.reserved < count:
            self.machine.refuse()
            return -ENOMEM
        self.reserved += count
        return 0

    @step
    def unreserve(self) -> None:
        """The file goes; what it took comes home without it (hugepage_put_subpool)."""
        self.reserved = 0
        for pfn in range(len(self.lent)):
            self.lent[pfn] = False

    def leave(self, pfn: int) -> None:
        """A huge page was taken: from a reservation, if there is one (dequeue_hugetlb_folio)."""
        self.home[pfn] = False
        self.free -= 1
        if self.reserved > 0:
            self.reserved -= 1
            self.lent[pfn] = True

    def come_home(self, pfn: int) -> None:
        """All references to a huge page, or to what it was split into, are dropped: it is whole again, and free."""
        self.folded[pfn] = True
        self.home[pfn] = True
        self.free += 1
        if self.lent[pfn]:
            self.reserved += 1
            self.lent[pfn] = False

    @step
    def unfold(self, pfn: int) -> int:
        """Give each tail page a struct page that can be written (hugetlb_vmemmap_restore_folio).  -ENOMEM: no page for them."""
        if may("no page for struct pages"):
            self.machine.refuse()
            return -ENOMEM
        self.folded[pfn] = False
        return 0

    @step
    def fold(self, pfn: int) -> None:
        """Have tail pages share their struct pages, once nobody can have a reference to one (hugetlb_vmemmap_optimize_folio)."""
        self.folded[pfn] = True


class HugetlbKernel(Kernel):
    """A kernel whose large folios are huge pages of the pool, and whose other folios are not.

    Attributes:
        pool: it.
    """

    pool: HugetlbPool

    def available(self, pfn: int, order: int) -> bool:
        return self.pool.has[pfn] == (order > 0) and super().available(pfn, order)

    def alloc(self, order: int) -> Folio | None:
        folio = super().alloc(order)
        if folio is not None and order > 0:
            self.pool.leave(folio.frame.pfn)
        return folio

    def put(self, folio: Folio, refs: int) -> None:
        """Of a page of the pool, the callback of the folio type comes last, whoever drops the reference."""
        super().put(folio, refs)
        if folio.refcount == 0 and self.pool.has[folio.frame.pfn]:
            self.folio_put_hugetlb(self.pool.head(folio.frame.pfn))

    def folio_put_hugetlb(self, pfn: int) -> None:
        """Send a huge page home, once nothing of it is in use."""
        if all(self.folios[at].free for at in range(pfn, pfn + (1 << self.pool.order))):
            if not self.pool.folded[pfn]:
                reached("a huge page comes home that was split")
            self.pool.come_home(pfn)


@step
def add_split(kernel: Kernel, mapping: AddressSpace, folio: Folio, start: Pgoff) -> int:
    """Add a new huge page as pages of order 0, its reference theirs.

    -EEXIST if somebody else was faster; -EAGAIN if somebody has a reference: who looked up what was in these frames before
    may take one to what is in them now.  One step: the references are frozen, and all pages go in under i_pages.
    """
    if folio.refcount != 1:
        return -EAGAIN
    size = 1 << folio.order
    for at in Pgoff.span(start, start + size):
        if mapping.slots[at] is not None:
            return -EEXIST
    folio.refcount = 0
    folio.order = 0
    for at in Pgoff.span(start, start + size):
        page = split_off(kernel, folio, at - start)
        page.refcount = 1
        mapping.slots[at] = page
    return 0
