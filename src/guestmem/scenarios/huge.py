# SPDX-License-Identifier: Apache-2.0
"""Large folios: split when a part of one is shared or discarded, merged when all is private again."""

from __future__ import annotations

from errno import EAGAIN

from guestmem.machine.cpu import Cpu
from guestmem.machine.guest import Gfn, Guest
from guestmem.machine.machine import Hypervisor
from guestmem.mm.filemap import Pgoff, xa_load
from guestmem.mm.folio import Folio, folio_put, folio_try_get
from guestmem.model import choose, reached, require, sometimes, thread
from guestmem.rules import CAUSE
from guestmem.scenarios.cast import Kcore, OpenFile, PlainRead, RunningVm, Strays, Vcpus, Vmm
from guestmem.scenarios.host import GuestMemory
from guestmem.scenarios.hypervisors import CcaHost, GunyahHost, KvmHost, SnpHost, TdxHost

__all__ = [
    "Folios",
    "HalfwayOnGunyah",
    "HugeOnCca",
    "HugeOnGunyah",
    "HugeOnKvm",
    "HugeOnSnp",
    "HugeOnTdx",
    "HugePartsOnKvm",
    "HugeWithReferences",
    "MisalignedOnKvm",
    "Scanner",
]


class Folios(Vcpus):
    """A file of folios of order 1; one of them fits, and a page beside it."""

    geometry = {"frames": 4, "order": 1}
    must_show = ["a large folio is split", "pages are merged into a large folio"]

    @sometimes("a guest has a large folio as one block")
    def block_mapped(self) -> bool:
        return any(entry.order > 0 for guest in self.machine.guests for entry in guest.entries)


class Huge(PlainRead, Kcore, Folios):
    """The same, with readers of what may be anybody's."""


class HugeOnKvm(KvmHost, Huge, Vmm):
    """Large folios on KVM."""


class HugePartsOnKvm(KvmHost, Strays, OpenFile):
    """Two VMs on KVM, each with a page of one large folio; they touch both."""

    geometry = {"vms": 2, "frames": 4, "order": 1}
    must_show = ["a large folio is split"]

    def start_with_memory(self, guest: Guest) -> None:
        start = 0 if guest is self.machine.guests[0] else 1
        self.start(guest, start, start + 1, Gfn(start))


class MisalignedOnKvm(KvmHost, Strays, RunningVm):
    """A VM on KVM that has a large folio at a gfn where no block entry can have it."""

    geometry = {"pages": 4, "frames": 4, "order": 1}
    must_show = ["a large folio is split"]

    def start_with_memory(self, guest: Guest) -> None:
        self.start(guest, 0, 2, Gfn(1))

    def end_after(self, start: int) -> int:
        return min(super().end_after(start), 2)

    def allocate(self, cpu: Cpu, start: int, end: int) -> None:
        super().allocate(cpu, start, min(end, 2))


class HugeOnGunyah(GunyahHost, Huge, Vmm):
    """Large folios on Gunyah."""


class HalfwayOnGunyah(GunyahHost, Folios, RunningVm):
    """Large folios on Gunyah, whose hypercalls over several pages may fail half way."""

    must_show = ["a hypercall fails half way"]

    def host(self) -> Hypervisor:
        self.halfway = True
        return super().host()


class HugeOnSnp(SnpHost, PlainRead, Folios, Vmm):
    """Large folios on SEV-SNP."""


class HugeOnTdx(TdxHost, PlainRead, Folios, Vmm):
    """Large folios on TDX."""


class HugeOnCca(CcaHost, Huge, Vmm):
    """Large folios on CCA."""


class Scanner(GuestMemory):
    """Speculative references: a scan for migration, a batch of the LRU, GUP-fast before it looks again.

    Attributes:
        looked_up: what it found in the page cache, without a reference yet.
        scanned: the folio that it holds a reference to.
    """

    scanned: Folio | None = None

    def interfered(self, err: int) -> bool:
        return err == -EAGAIN or super().interfered(err)

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + (1 if self.scanned is self.kernel.folios[pfn] else 0)

    @thread
    def scanner(self) -> None:
        """filemap_get_folio(): look a folio up, take a reference if it is not gone, look again."""
        while True:
            pgoff = Pgoff(choose(len(self.file.shared), "pgoff"))
            folio = xa_load(self.file.mapping, pgoff)
            if folio is not None and folio_try_get(folio):
                self.scanned = folio
                if xa_load(self.file.mapping, pgoff) is not folio:
                    reached("a folio was replaced before a reference to it was held")
                folio_put(self.kernel, folio)
                self.scanned = None


class HugeWithReferences(KvmHost, Scanner, Huge, RunningVm):
    """Large folios on KVM, with speculative references to them."""

    def punching_failed(self, err: int, start: int, end: int) -> None:
        require(err != -EAGAIN or self.cut(start) or self.cut(end), CAUSE)

    def cut(self, at: int) -> bool:
        """Whether a large folio has pages on both sides: only then it matters who has a reference."""
        mapping = self.file.mapping
        return 0 < at < len(mapping.slots) and mapping.slots[at] is not None and mapping.slots[at - 1] is mapping.slots[at]
