# SPDX-License-Identifier: Apache-2.0
"""Users of guest memory inside the host kernel: long-term pins, a cache of translations, broken memory."""

from __future__ import annotations

from errno import EAGAIN

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content
from guestmem.mm.exception import kernel_load, kernel_store
from guestmem.mm.filemap import Pgoff, Pin, follow_pfnmap
from guestmem.mm.folio import EHWPOISON, Folio
from guestmem.mm.lru import BatchingKernel
from guestmem.model import (
    Record,
    SpinLock,
    always,
    array,
    choose,
    guards,
    may,
    part,
    reached,
    require,
    sometimes,
    step,
    thread,
    when,
)
from guestmem.rules import BROKEN_UNUSED, CAUSE, DONE_OR_NOTHING
from guestmem.scenarios.cast import Caller, PlainRead, Process, RunningVm, Vcpus, Vmm
from guestmem.scenarios.host import GuestMemory
from guestmem.scenarios.huge import Folios
from guestmem.scenarios.hypervisors import GunyahHost, KvmHost

__all__ = [
    "BROKEN_UNUSED",
    "BatchesOnKvm",
    "BrokenMemory",
    "BrokenOnGunyah",
    "GpcDriver",
    "Gup",
    "HugeWithBatches",
    "PfnCache",
    "Pinner",
]


class Pinner(Caller):
    """Somebody who pins a page of the VMM's mapping for long and uses it through the direct map meanwhile.

    An io_uring buffer, a pipe filled by vmsplice, the target of O_DIRECT or of process_vm_readv differ in how long.

    Attributes:
        counted: it holds a reference, as GUP's users do; without, it is a user that kept the number of a frame.
        held: what it uses.
    """

    counted: bool = True
    held: Pin = part()

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + (1 if self.counted and self.held.folio is self.kernel.folios[pfn] else 0)

    def interfered(self, err: int) -> bool:
        return err == -EAGAIN or super().interfered(err)

    @thread
    def pinner(self) -> None:
        """Fault a page in, pin it, use it any number of times, unpin it."""
        cpu = self.machine.cpus[1]
        mapping = self.file.mapping
        while True:
            pgoff = Pgoff(choose(len(mapping.user), "pgoff"))
            if self.counted:
                self.held.gup_fast(self.kernel, mapping, pgoff)
            else:
                self.held.folio = follow_pfnmap(mapping, pgoff)
            folio = self.held.folio
            if folio is None:
                self.user_fault(cpu, pgoff)
            else:
                while choose(2, "use, unpin") == 0:
                    self.use(cpu, folio)
                if self.counted:
                    self.held.unpin(self.kernel)
                self.held.folio = None

    def use(self, cpu: Cpu, folio: Folio) -> None:
        """Read or write the page."""
        if may("write"):
            kernel_store(self.kernel, cpu, folio.frame, Content.SHARED)
        else:
            kernel_load(self.kernel, cpu, folio.frame)


class Gup(KvmHost, Pinner, RunningVm, Vcpus):
    """Long-term pins on KVM."""

    geometry = {"pages": 1, "frames": 3}


class Batches(GuestMemory):
    """CPUs put new folios on the LRU in batches."""

    kernel: BatchingKernel = part()

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + (1 if self.kernel.batch is self.kernel.folios[pfn] else 0)

    @thread
    def drainer(self) -> None:
        """Somebody else drains the batches: who migrates or offlines memory, or seals a memfd."""
        while True:
            self.kernel.lru_add_drain_all()


class BatchesOnKvm(Batches, KvmHost, Vcpus, RunningVm):
    """New folios in batches, on KVM."""

    geometry = {"pages": 1, "frames": 2}


class HugeWithBatches(Batches, KvmHost, Folios, Vmm):
    """New large folios in batches, on KVM."""


class Gpc(Record):
    """A cached translation of a guest page, mapped in the host kernel (struct gfn_to_pfn_cache).

    Attributes:
        lock: held to use it, and to invalidate it.
        valid: ``folio`` is what the guest has at ``pgoff``.
    """

    lock: SpinLock = part()
    pgoff: Pgoff = Pgoff(0)
    valid: bool = False
    folio: Folio | None = None

    @guards("pgoff", "valid", "folio")
    def refreshing(self) -> bool:
        """Nobody uses the translation meanwhile."""
        return self.lock.held()


class GpcDriver(KvmDriver):
    """KVM with caches of translations.

    Attributes:
        gpcs: the caches, of which several may be for one page.
    """

    gpcs: list[Gpc] = array("gpcs")

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        self.invalidate_gpcs(start, end)
        return super().invalidate_begin(file, start, end)

    def invalidate_gpcs(self, start: int, end: int) -> None:
        """Invalidate the caches that are for these pages as well (gfn_to_pfn_cache_invalidate_start)."""
        for gpc in self.gpcs:
            with gpc.lock:
                if start <= gpc.pgoff < end:
                    gpc.valid = False


class PfnCache(KvmHost, RunningVm, Vcpus):
    """Two users of cached translations: a clock page, a runstate area."""

    geometry = {"pages": 1, "frames": 3, "gpcs": 2}

    driver: GpcDriver = part()

    @thread("gpcs")
    def gpc(self, index: int) -> None:
        """Use the page if the cache is valid, or refresh the cache."""
        cpu = self.machine.cpus[1]
        gpc = self.driver.gpcs[index]
        while True:
            if not self.used(cpu, gpc):
                self.refresh(cpu, gpc, Pgoff(choose(len(self.file.shared), "pgoff")))

    def used(self, cpu: Cpu, gpc: Gpc) -> bool:
        """kvm_gpc_check(), and the access, under the lock."""
        done = False
        with gpc.lock:
            folio = gpc.folio
            if gpc.valid and folio is not None:
                kernel_store(self.kernel, cpu, folio.frame, Content.SHARED)
                reached("a cached translation is used")
                done = True
        return done

    def refresh(self, cpu: Cpu, gpc: Gpc, pgoff: Pgoff) -> None:
        """kvm_gpc_refresh(): no reference is kept, invalidation is relied upon."""
        with self.file.mapping.invalidate_lock.shared:
            if self.file.shared[pgoff]:
                _, folio = self.file.grab_folio(cpu, pgoff, True)
                self.machine.refused()
                if folio is not None:
                    with gpc.lock:
                        gpc.pgoff = pgoff
                        gpc.folio = folio
                        gpc.valid = True
                    self.file.put_folio(folio)


class BreakingMemory(PlainRead, Process, Vcpus, RunningVm):
    """A frame breaks while it is used.

    Attributes:
        broken: the folio that memory_failure() is about.
        handled: it is done with it.
    """

    geometry = {"pages": 1, "frames": 3}
    must_show = ["a file with broken memory is not preserved"]

    broken: Folio | None = None
    handled: bool = False

    @thread
    def memory_failure(self) -> None:
        """The machine reports a frame of the file, when there is one."""
        self.report(Pgoff(choose(len(self.file.shared), "pgoff")))
        self.preserve()

    def preserve(self) -> None:
        """A live update that is cancelled at once: what is broken does not go to the next kernel."""
        err = self.file.preserve()
        if err == 0:
            require(not any(slot is self.broken for slot in self.file.mapping.slots), DONE_OR_NOTHING)
            self.file.unpreserve()
        elif err == -EHWPOISON:
            reached("a file with broken memory is not preserved")

    def report(self, pgoff: Pgoff) -> None:
        """memory_failure(): mark the page, have its file let nobody reach it."""
        folio = self.mark(pgoff)
        if folio is not None:
            err = self.file.error_remove_folio(pgoff, folio)
            require(self.caused(err), CAUSE)
            self.handled = err == 0

    @step
    def mark(self, pgoff: Pgoff) -> Folio | None:
        """TestSetPageHWPoison(), with a reference for good."""
        folio = self.file.mapping.slots[pgoff]
        when(folio is not None)
        if folio is not None:
            folio.hwpoison = True
            folio.refcount += 1
            self.broken = folio
        return folio

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + (1 if self.broken is self.kernel.folios[pfn] else 0)

    @always(BROKEN_UNUSED)
    def not_used(self) -> bool:
        folio = self.broken
        if folio is None or not self.handled:
            return True
        reached_by_guest = any(guest.reaches(folio.frame) for guest in self.machine.guests)
        return not folio.free and not reached_by_guest and not self.mapped(folio)

    @sometimes("broken memory is out of use")
    def out_of_use(self) -> bool:
        return self.handled


class BrokenMemory(KvmHost, BreakingMemory):
    """A frame of a guest on KVM breaks."""


class BrokenOnGunyah(GunyahHost, BreakingMemory):
    """A frame of a guest on Gunyah breaks: it stays with a guest that does not give it back."""

    must_show = ["a guest keeps broken memory"]

    def report(self, pgoff: Pgoff) -> None:
        super().report(pgoff)
        if not self.handled:
            reached("a guest keeps broken memory")
