# SPDX-License-Identifier: Apache-2.0
"""Gunyah's driver as posted, version 17 and as a client of the library, and what is wrong in it.

"[PATCH v17 00/35] Drivers for Gunyah hypervisor", 2024-02-22; CodeLinaro-mirror/linux-kernel_gunyah-linux, drivers/virt/gunyah.
"""

from __future__ import annotations

from errno import EFAULT

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import Gunyah, GunyahDriver
from guestmem.machine.cpu import Cpu
from guestmem.machine.guest import Gfn, Guest
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import part
from guestmem.scenarios.cast import Parts, Process, RunningVm, Vcpus
from guestmem.scenarios.hypervisors import GunyahHost, OnGunyah

__all__ = ["B22", "B23", "B24", "B26", "B31", "MappedOnGunyah", "PartsOnGunyah"]


class NoSync(Gunyah):
    """Of the pages of a range the last one, too, is unmapped with NOSYNC."""

    def unmapped(self, guest: Guest, gfn: Gfn) -> None:
        guest.entries[gfn].live = False


class B22(OnGunyah):
    """The host uses a page again while a TLB entry of the guest has it."""

    hypervisor: NoSync = part()


class WrongRange(GunyahDriver):
    """The invalidate callback, which alone reclaims, compares with < where <= is meant: the first page is left out."""

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        return super().invalidate_begin(file, start + 1, end)

    def reclaim(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        return 0


class B23(OnGunyah):
    """A hole is punched in what a guest still has."""

    driver: WrongRange = part()


class OffsetInFolio(GuestMemfd):
    """accessible() gets an offset in the folio, 0 where that is one page, and takes it for one in the file."""

    def accessible(self, pgoff: Pgoff) -> bool:
        return super().accessible(pgoff) or super().accessible(Pgoff(0))


class MappedOnGunyah(GunyahHost, Process, Vcpus, RunningVm):
    """A VM on Gunyah, and another thread of its VMM that uses the mapping of the file."""


class B24(MappedOnGunyah):
    """The host maps a page that is the guest's."""

    file: OffsetInFolio = part()


class LeftLocked(GuestMemfd):
    """demand_page(): the exits for errors leave the invalidate lock held."""

    def guest_fault(self, cpu: Cpu, guest: Guest, gfn: Gfn) -> int:
        self.mapping.invalidate_lock.down_read()
        found, pgoff = self.find(guest, gfn)
        err = self.provide_page(cpu, guest, pgoff) if found else -EFAULT
        if err == 0:
            self.mapping.invalidate_lock.up_read()
        return err


class B26(OnGunyah):
    """Punching a hole waits for ever."""

    file: LeftLocked = part()


class BoundTwice(GuestMemfd):
    """The test for an overlap cannot be true."""

    def may_bind(self, guest: Guest, pgoff: Pgoff, gfn: Gfn) -> int:
        return 0


class PartsOnGunyah(GunyahHost, Parts):
    """Two VMs on Gunyah that have parts of a file."""

    geometry = {"vms": 2}


class B31(PartsOnGunyah):
    """A page is bound to two VMs, of which one cannot have it."""

    file: BoundTwice = part()
