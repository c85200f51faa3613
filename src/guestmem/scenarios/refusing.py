# SPDX-License-Identifier: Apache-2.0
"""A driver that may refuse whatever the library asks of it, and holds the library to what it answered."""

from __future__ import annotations

from errno import EBUSY, ENOMEM

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.machine.frame import Frame
from guestmem.machine.guest import Gfn, Guest
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import always, array, may, part, reached, require
from guestmem.rules import DONE_OR_NOTHING, FREE_FRAMES, PAIRED
from guestmem.scenarios.cast import Vcpus, Vmm
from guestmem.scenarios.hypervisors import KvmHost

__all__ = ["RefusingDriver", "RefusingHost"]


class RefusingDriver(KvmDriver):
    """KVM's driver under a hypervisor that owns what was given to it until it gives it back, if it does.

    Attributes:
        out: by frame number, whether it was given to the hypervisor and has not come back.
        begun: by page offset, whether the page is kept from guests by an ``invalidate_begin`` that succeeded.
    """

    out: list[bool] = array("frames")
    begun: list[bool] = array("pages")

    def refuses(self, file: GuestMemfd) -> bool:
        """Whether it refuses, for reasons of its own."""
        refused = may("the driver refuses")
        if refused:
            file.kernel.machine.refuse()
        return refused

    def give(self, file: GuestMemfd, pgoff: Pgoff, frame: Frame) -> None:
        """The hypervisor has a page from now on."""
        require(not file.unmaps() or not frame.present, DONE_OR_NOTHING)
        self.out[frame.pfn] = True

    def provide(self, file: GuestMemfd, guest: Guest, pgoff: Pgoff, folio: Folio) -> int:
        if self.refuses(file):
            return -ENOMEM
        if not file.shared[pgoff]:
            self.give(file, pgoff, folio.frame)
        return super().provide(file, guest, pgoff, folio)

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        if self.refuses(file):
            return -EBUSY, start
        for pgoff in Pgoff.span(start, end):
            self.begun[pgoff] = True
        return super().invalidate_begin(file, start, end)

    def invalidate_end(self, file: GuestMemfd, start: int, end: int) -> None:
        for pgoff in Pgoff.span(start, end):
            self.begun[pgoff] = False
        super().invalidate_end(file, start, end)

    def prepare_inaccessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        require(self.begun[pgoff], PAIRED)
        if self.refuses(file):
            return -ENOMEM
        self.give(file, pgoff, folio.frame)
        return 0

    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        require(self.begun[pgoff], PAIRED)
        if self.out[folio.frame.pfn] and self.refuses(file):
            return -EBUSY
        self.out[folio.frame.pfn] = False
        return 0


class RefusingHost(KvmHost, Vcpus, Vmm):
    """A VMM and a guest on a host whose driver may refuse anything."""

    geometry = {"pages": 2, "frames": 3}
    must_show = ["a VM's memory cannot be taken back", "a page cannot be discarded", "a conversion fails"]

    driver: RefusingDriver = part()

    def unbinding_failed(self) -> None:
        reached("a VM's memory cannot be taken back")

    def punching_failed(self, err: int, start: int, end: int) -> None:
        reached("a page cannot be discarded")

    def conversion_failed(self) -> None:
        reached("a conversion fails")

    def keeps(self, guest: Guest, gfn: Gfn) -> bool:
        """What the driver does not give back, when a conversion is undone, is lost; another page takes its place."""
        return self.lost_pages() > 0 or super().keeps(guest, gfn)

    @always(DONE_OR_NOTHING)
    def shared_is_the_hosts(self) -> bool:
        return self.at_work() or all(
            not self.file.shared[pgoff] or slot is None or not (slot.zapped or self.driver.out[slot.frame.pfn])
            for pgoff, slot in enumerate(self.file.mapping.slots)
        )

    @always(FREE_FRAMES)
    def free_is_the_hosts(self) -> bool:
        return all(not folio.free or not self.driver.out[pfn] for pfn, folio in enumerate(self.kernel.folios))
