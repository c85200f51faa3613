# SPDX-License-Identifier: Apache-2.0
"""What the library asks of a hypervisor's driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guestmem.machine.guest import Guest
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import Record

if TYPE_CHECKING:
    from guestmem.guest_memfd.library import GuestMemfd

__all__ = ["Driver"]


class Driver(Record):
    """The operations of a driver (struct guest_memfd_operations).

    All but ``provide`` are called with the invalidate lock held exclusively, ``provide`` with it held shared and the
    folio locked.  An error means that the operation has not happened; the library then leaves the page as it was.

    Attributes:
        sanitises: the hypervisor hands pages back without what the guest kept in them.
    """

    sanitises: bool = False

    def provide(self, file: GuestMemfd, guest: Guest, pgoff: Pgoff, folio: Folio) -> int:
        """Let a guest reach a page, as its own or shared with the host as ``file.shared`` says."""
        guest.map(pgoff, folio.frame, private=not file.shared[pgoff])
        return 0

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        """Let no guest reach the pages start <= pgoff < end; an error comes with the page it is about."""
        return 0, 0

    def invalidate_end(self, file: GuestMemfd, start: int, end: int) -> None:
        """Guests may fault the pages in again."""

    def prepare_inaccessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """The page, already out of the host's reach, becomes the guest's alone."""
        return 0

    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """The host is about to use the page: have the hypervisor let it."""
        return 0

    def reclaim(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        """The page is about to lose its guest: have the hypervisor give it back for good."""
        return self.prepare_accessible(file, pgoff, folio)
