# SPDX-License-Identifier: Apache-2.0
"""Guest memory in huge pages of hugetlb: a huge page is whole while all of it is private, and pages otherwise."""

from __future__ import annotations

from errno import EAGAIN, ENOMEM

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.machine.cpu import Cpu
from guestmem.mm.filemap import Pgoff, filemap_lock_folio, unmap_mapping_page
from guestmem.mm.folio import Folio, alloc_folio, folio_put
from guestmem.mm.hugetlb import HugetlbPool, add_split

__all__ = ["Hugetlb1G"]


class Hugetlb1G(GuestMemfd):
    """A file of huge pages, all of which it reserves when it is created.

    Holes are punched by whole huge pages.

    Attributes:
        pool: where they are from; they go home by themselves.
    """

    pool: HugetlbPool

    def create(self) -> int:
        err = self.pool.reserve(len(self.shared) >> self.order)
        if err:
            return err
        err = super().create()
        if err:
            self.pool.unreserve()
        return err

    def release(self) -> None:
        super().release()
        self.pool.unreserve()

    def huge(self, start: int, end: int) -> tuple[int, int]:
        """A range rounded out to whole huge pages."""
        size = 1 << self.order
        return start - start % size, end + -end % size

    def some_shared(self, pgoff: Pgoff) -> bool:
        """Whether some of the huge page around a page is shared."""
        first, last = self.huge(pgoff, pgoff + 1)
        return any(self.shared[at] for at in Pgoff.span(first, last))

    def find_or_create(self, cpu: Cpu, pgoff: Pgoff) -> tuple[int, Folio | None]:
        folio = filemap_lock_folio(self.mapping, pgoff)
        if folio is not None:
            return 0, folio
        if self.some_shared(pgoff):
            err = self.create_split(cpu, pgoff)
            if err:
                return err, None
        return super().find_or_create(cpu, pgoff)

    def create_split(self, cpu: Cpu, pgoff: Pgoff) -> int:
        """A new huge page of which some is shared is cleared, and split before anybody finds it.  -ENOMEM; -EAGAIN."""
        folio = alloc_folio(self.kernel, self.order)
        if folio is None:
            return -ENOMEM
        with folio.lock:
            self.initialise(cpu, folio)
        err = self.pool.unfold(folio.frame.pfn)
        first, _ = self.huge(pgoff, pgoff + 1)
        if err == 0 and add_split(self.kernel, self.mapping, folio, Pgoff(first)) != 0:
            err = -EAGAIN
        if err:
            folio_put(self.kernel, folio)
        return err

    def split(self, pgoff: Pgoff) -> int:
        """The tail pages get struct pages of their own first.  -ENOMEM: there is no memory for them."""
        folio = self.mapping.slots[pgoff]
        if folio is None or folio.order == 0:
            return 0
        err = self.pool.unfold(folio.frame.pfn)
        if err:
            return err
        err = super().split(pgoff)
        if err:
            self.pool.fold(folio.frame.pfn)
        return err

    def merge(self, start: int, end: int) -> None:
        super().merge(start, end)
        first, last = self.huge(start, end)
        for pgoff in Pgoff.span(first, last):
            folio = self.mapping.slots[pgoff]
            if folio is not None and folio.order > 0 and not self.pool.folded[folio.frame.pfn]:
                self.pool.fold(folio.frame.pfn)

    def invalidate_changing(self, start: int, end: int, to_shared: bool) -> tuple[int, int]:
        """A guest loses whole huge pages, though some of it may change nothing, or the conversion fail yet."""
        first, last = self.huge(start, end)
        return self.driver.invalidate_begin(self, first, last)

    def invalidate_end(self, start: int, end: int) -> None:
        first, last = self.huge(start, end)
        super().invalidate_end(first, last)

    def revoke(self, start: int, end: int) -> int:
        """-EAGAIN: somebody holds a reference to what is to go."""
        for pgoff in Pgoff.span(start, end):
            unmap_mapping_page(self.mapping, pgoff)
            folio = self.mapping.slots[pgoff]
            if folio is not None and self.in_use(pgoff, folio):
                return -EAGAIN
        return super().revoke(start, end)
