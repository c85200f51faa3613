# SPDX-License-Identifier: Apache-2.0
"""Files of huge pages on the simulated host: what a series does otherwise than the library, as one sees who calls it alone."""

from __future__ import annotations

from errno import EAGAIN

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.machine.cpu import Cpu
from guestmem.machine.guest import Gfn, Guest
from guestmem.mm.filemap import Pgoff, folio_start, unmap_mapping_page

__all__ = ["HugetlbMemfd"]


class HugetlbMemfd(GuestMemfd):
    """A file whose memory comes and goes as huge pages, 2^order pages each, split where a part is shared."""

    def fault(self, cpu: Cpu, pgoff: Pgoff) -> int:
        err = self.bring(cpu, pgoff) if self.shared[pgoff] else 0
        return err or super().fault(cpu, pgoff)

    def guest_fault(self, cpu: Cpu, guest: Guest, gfn: Gfn) -> int:
        return self.bring(cpu, Pgoff(gfn)) or super().guest_fault(cpu, guest, gfn)

    def allocate(self, cpu: Cpu, start: int, end: int) -> int:
        for pgoff in Pgoff.span(start, end):
            err = self.bring(cpu, pgoff)
            if err:
                return err
        return 0

    def order_at(self, pgoff: Pgoff) -> int:
        return self.order

    def bring(self, cpu: Cpu, pgoff: Pgoff) -> int:
        """Have a huge page in the file, split at once where a part is shared (__maybe_split_fresh_folio)."""
        with self.mapping.invalidate_lock.exclusive:
            if self.mapping.slots[pgoff] is not None:
                return 0
            err, folio = self.grab_folio(cpu, pgoff, True)
            if folio is None:
                return err
            self.put_folio(folio)
            start = folio_start(folio, pgoff)
            if any(self.shared[at] for at in range(start, start + (1 << self.order))):
                return self.split(pgoff)
        return 0

    def convert(self, start: int, end: int, to_shared: bool) -> tuple[int, int]:
        """One huge page after the other: what came before an error is done (__kvm_gmem_set_attributes)."""
        first = start
        while first < end:
            last = min(end, first - first % (1 << self.order) + (1 << self.order))
            err, at = super().convert(first, last, to_shared)
            if err:
                return err, at
            first = last
        return 0, 0

    def punch_hole(self, start: int, end: int) -> int:
        """Huge pages go as such, so none goes of which somebody holds a part (merge_truncate_range)."""
        with self.mapping.invalidate_lock.exclusive:
            self.driver.invalidate_begin(self, start, end)
            for pgoff in Pgoff.span(start, end):
                unmap_mapping_page(self.mapping, pgoff)
            self.driver.invalidate_end(self, start, end)
            for pgoff in Pgoff.span(start, end):
                folio = self.mapping.slots[pgoff]
                if folio is not None and folio.refcount != 1 << folio.order:
                    return -EAGAIN
        return super().punch_hole(start, end)
