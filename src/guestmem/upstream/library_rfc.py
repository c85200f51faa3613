# SPDX-License-Identifier: Apache-2.0
"""The guest_memfd library as posted in 2024, twice, what followed it, and what is wrong in it.

"[PATCH RFC 0/4] mm: Introduce guest_memfd library", 2024-08-05; version 2, 2024-08-29; mm/guestmem.c of November 2024
(CodeLinaro-mirror/linux-kernel_gunyah-linux), which was not posted.
"""

from __future__ import annotations

from errno import EAGAIN, EBUSY

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content
from guestmem.mm.exception import kernel_store
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio, folio_put, folio_try_get
from guestmem.model import array, choose, part, thread
from guestmem.scenarios.cast import Caller, RunningVm, Vcpus
from guestmem.scenarios.hypervisors import KvmHost, OnGunyah, OnKvm
from guestmem.scenarios.users import Gup

__all__ = ["B1", "B3", "B5", "B6", "B11", "B12", "B13", "B15", "B17", "KernelUser", "RfcV1", "RfcV2", "ThirdDesign"]


# ---- version 1


class LengthAsEnd(KvmDriver):
    """KVM's callback takes for an end what the library means as a number of pages."""

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        return super().invalidate_begin(file, start, end - start)


class B1(OnKvm):
    """A page stays mapped in the guest after a hole is punched."""

    driver: LengthAsEnd = part()


class HoleSucceeds(GuestMemfd):
    """Punching a hole returns 0, whatever came of it."""

    def punch_hole(self, start: int, end: int) -> int:
        super().punch_hole(start, end)
        return 0


class B3(OnGunyah):
    """fallocate(PUNCH_HOLE) succeeds, and nothing was punched."""

    file: HoleSucceeds = part()


class PinsOnly(GuestMemfd):
    """Only folio_maybe_dma_pinned() is asked: a reference by vmsplice or O_DIRECT is no pin."""

    def in_use(self, pgoff: Pgoff, folio: Folio) -> bool:
        return False


class B5(Gup):
    """The host uses a private page through a reference that it took before."""

    file: PinsOnly = part()


class NeverFlushed(GuestMemfd):
    """set_direct_map_invalid_noflush(), and no flush."""

    def zap_direct_map(self, folio: Folio, flush: bool) -> int:
        return super().zap_direct_map(folio, False)


class B6(OnKvm):
    """A TLB entry of a page that left the direct map still works."""

    file: NeverFlushed = part()


class RfcV1(PinsOnly, NeverFlushed, HoleSucceeds):
    """The library of 2024-08-05."""


# ---- version 2


class Recounted(GuestMemfd):
    """A page that becomes accessible again counts one user less than one that is born so: none, once its user is done.

    Attributes:
        counted: by page offset, whether a user is counted (``accessible`` of the folio's private data is not 0).
    """

    counted: list[bool] = array("pages")

    def fault(self, cpu: Cpu, pgoff: Pgoff) -> int:
        fresh = self.mapping.slots[pgoff] is None
        err = super().fault(cpu, pgoff)
        self.counted[pgoff] = self.counted[pgoff] or (fresh and err == 0)
        return err

    def make_private(self, start: int, end: int) -> tuple[int, int]:
        """Without ACCESSIBLE, guest_memfd_grab_folio() has nothing to do for a page that has no user."""
        if not any(self.counted[pgoff] for pgoff in Pgoff.span(start, end)):
            return 0, 0
        return super().make_private(start, end)

    def take_from_host(self, pgoff: Pgoff, folio: Folio) -> int:
        self.counted[pgoff] = False
        return super().take_from_host(pgoff, folio)


class B12(OnKvm):
    """Guest and host both have a page."""

    file: Recounted = part()


class KernelUser(Caller):
    """A part of the host kernel that grabs a page while it is shared, and uses it for a while.

    Attributes:
        grabbed: what it has.
    """

    grabbed: Folio | None = None

    def interfered(self, err: int) -> bool:
        return err == -EAGAIN or super().interfered(err)

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + (1 if self.grabbed is self.kernel.folios[pfn] else 0)

    @thread
    def kernel_user(self) -> None:
        """Grab a page, write to it, put it."""
        while True:
            self.grab(self.machine.cpus[1], Pgoff(choose(len(self.file.shared), "pgoff")))
            folio = self.grabbed
            if folio is not None:
                kernel_store(self.kernel, self.machine.cpus[1], folio.frame, Content.SHARED)
                folio_put(self.kernel, folio)
                self.grabbed = None

    def grab(self, cpu: Cpu, pgoff: Pgoff) -> None:
        """guest_memfd_grab_folio(), ACCESSIBLE; unlocked, the reference stays."""
        with self.file.mapping.invalidate_lock.shared:
            if self.file.shared[pgoff]:
                _, folio = self.file.grab_folio(cpu, pgoff, True)
                self.machine.refused()
                self.grabbed = folio
                if folio is not None:
                    folio.lock.release()


class UsedByKernel(KvmHost, KernelUser, RunningVm, Vcpus):
    """KVM, and a user in the kernel."""

    geometry = {"pages": 1, "frames": 3}


class Unrestored(GuestMemfd):
    """An attempt that fails for a user takes the user's count all the same, so the next one finds none.

    Attributes:
        taken: by page offset, whether the count was taken.
    """

    taken: list[bool] = array("pages")

    def in_use(self, pgoff: Pgoff, folio: Folio) -> bool:
        busy = super().in_use(pgoff, folio) and not self.taken[pgoff]
        self.taken[pgoff] = busy
        return busy


class B11(UsedByKernel):
    """A page becomes private while a user in the kernel still has it."""

    file: Unrestored = part()


class RestoredFirst(GuestMemfd):
    """make_accessible(): the direct map first, then the hypervisor, whose refusal undoes nothing; nobody was asked before."""

    def invalidate_changing(self, start: int, end: int, to_shared: bool) -> tuple[int, int]:
        return 0, 0

    def give_to_host(self, pgoff: Pgoff, folio: Folio) -> int:
        self.restore_direct_map(folio)
        return super().give_to_host(pgoff, folio)


class B13(OnGunyah):
    """An access that nobody asked for meets a page that the hypervisor kept."""

    file: RestoredFirst = part()


class PrivateDataLeft(GuestMemfd):
    """Where a new page cannot be had, its private data is freed and stays attached, with its reference."""

    def zap_direct_map(self, folio: Folio, flush: bool) -> int:
        err = super().zap_direct_map(folio, flush)
        if err:
            folio_try_get(folio)
        return err


class B15(OnKvm):
    """A page that nobody uses stays in use for ever."""

    file: PrivateDataLeft = part()


class RefusalIgnored(GuestMemfd):
    """release_folio() says that a guest keeps a page; truncation goes on."""

    def revoke(self, start: int, end: int) -> int:
        super().revoke(start, end)
        return 0


class B17(OnGunyah):
    """A page is freed while a guest has it."""

    file: RefusalIgnored = part()


class RfcV2(Recounted, Unrestored, RestoredFirst, PrivateDataLeft, RefusalIgnored, NeverFlushed):
    """The library of 2024-08-29."""


# ---- what followed


class VerdictInverted(GuestMemfd):
    """error_remove_folio() gives MF_DELAYED where a guest keeps the page, and MF_FAILED where none does."""

    def error_remove_folio(self, pgoff: Pgoff, folio: Folio) -> int:
        return 0 if super().error_remove_folio(pgoff, folio) else -EBUSY


class KeptInDirectMap(GuestMemfd):
    """Of the direct map the library knows nothing: whoever uses it may."""

    def unmaps(self) -> bool:
        return False


class ThirdDesign(KeptInDirectMap, VerdictInverted):
    """mm/guestmem.c of November 2024: operations that are attached to the mapping of somebody else's file."""
