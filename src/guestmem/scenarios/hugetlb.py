# SPDX-License-Identifier: Apache-2.0
"""Guest memory in huge pages of hugetlb, which come from a pool and go home to it."""

from __future__ import annotations

from guestmem.guest_memfd.hugetlb import Hugetlb1G
from guestmem.mm.hugetlb import HugetlbKernel, HugetlbPool
from guestmem.model import always, part, sometimes
from guestmem.rules import COUNTERS, FREE_FRAMES, UNHELD_FREE, USED_ALIVE
from guestmem.scenarios.cast import Vcpus, Vmm
from guestmem.scenarios.host import GuestMemory
from guestmem.scenarios.huge import Scanner
from guestmem.scenarios.hypervisors import KvmHost

__all__ = ["HugetlbHost", "HugetlbOnKvm"]


class HugetlbHost(GuestMemory):
    """A host with a pool of huge pages: all frames from the first that is aligned on."""

    geometry = {"pages": 2, "frames": 4, "order": 1}

    kernel: HugetlbKernel = part()
    pool: HugetlbPool = part()
    file: Hugetlb1G = part()

    def setup(self) -> None:
        super().setup()
        pool = self.pool
        self.kernel.pool = pool
        pool.machine = self.machine
        pool.order = self.geometry["order"]
        for pfn in range(1 << pool.order, len(self.kernel.folios), 1 << pool.order):
            pool.add(pfn)
        self.file.pool = pool

    def promised(self) -> int:
        """How many huge pages are kept for the file, or are in use by it and come back to its reservation."""
        return len(self.file.shared) >> self.file.order if self.file.open else 0

    @always(COUNTERS)
    def huge_pages(self) -> bool:
        pool = self.pool
        return self.at_work() or (
            pool.free == sum(1 for home in pool.home if home)
            and pool.reserved <= pool.free
            and (not self.settled() or pool.reserved + sum(1 for lent in pool.lent if lent) == self.promised())
        )

    def settled(self) -> bool:
        """Whether nobody is opening or closing the file, which begins before its lock is taken and ends after."""
        return True

    @always(FREE_FRAMES)
    def whole_at_home(self) -> bool:
        """What is at home is whole, and nobody's."""
        pool = self.pool
        return all(
            not pool.home[pool.head(pfn)] or (folio.free and pool.folded[pool.head(pfn)])
            for pfn, folio in enumerate(self.kernel.folios)
            if pool.has[pfn]
        )

    @always(UNHELD_FREE)
    def none_astray(self) -> bool:
        """A huge page that nobody uses is at home."""
        pool = self.pool
        return self.at_work() or all(
            pool.home[pool.head(pfn)]
            or any(not other.free and pool.head(at) == pool.head(pfn) for at, other in enumerate(self.kernel.folios))
            for pfn in range(len(pool.has))
            if pool.has[pfn]
        )

    @always(USED_ALIVE)
    def tails_unwritten(self) -> bool:
        """Nobody has a reference to a tail page that has no struct page of its own."""
        pool = self.pool
        return all(
            folio.refcount == 0 or pool.head(pfn) == pfn or not pool.folded[pool.head(pfn)]
            for pfn, folio in enumerate(self.kernel.folios)
            if pool.has[pfn]
        )

    @sometimes("a huge page is out after its file is gone")
    def outlives(self) -> bool:
        pool = self.pool
        return not self.file.open and any(pool.has[pfn] and folio.refcount > 0 for pfn, folio in enumerate(self.kernel.folios))


class HugetlbOnKvm(HugetlbHost, KvmHost, Scanner, Vcpus, Vmm):
    """Huge pages of hugetlb on KVM, which a speculative reference may hold when the file goes."""

    must_show = ["a large folio is split", "pages are merged into a large folio", "a huge page comes home that was split"]

    opening: bool = False

    def settled(self) -> bool:
        return not self.opening

    def postponed(self) -> bool:
        """A reference to what was in the frames of a new huge page keeps it from being split."""
        return True

    def open_or_release(self) -> None:
        self.opening = True
        super().open_or_release()
        self.opening = False

    def punch_some(self) -> None:
        """By whole huge pages."""
        self.punch(0, len(self.file.shared))
