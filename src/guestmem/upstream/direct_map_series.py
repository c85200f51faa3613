# SPDX-License-Identifier: Apache-2.0
"""Direct map removal for KVM's guest_memfd as posted in 2025 and 2026, and what is wrong in it.

"[PATCH v7 00/12] Direct Map Removal Support for guest_memfd", 2025-09-24; version 12, 2026-04-10; answers of Jackman
(2025-11-07), Hansen and Edgecombe.
"""

from __future__ import annotations

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.mm.folio import Folio
from guestmem.model import part
from guestmem.scenarios.huge import HugeOnKvm
from guestmem.scenarios.hypervisors import OnKvm
from guestmem.scenarios.users import GpcDriver, PfnCache

__all__ = ["B34", "B38", "B41", "DirectMapV7", "DirectMapV12"]


class NeverFlagged(GuestMemfd):
    """The bit that says that a page is out of the direct map is set by AND."""

    def zap_direct_map(self, folio: Folio, flush: bool) -> int:
        err = super().zap_direct_map(folio, flush)
        folio.zapped = False
        return err


class B34(OnKvm):
    """A page is free and not in the direct map: whoever gets it dies when it is cleared."""

    file: NeverFlagged = part()


class HopedFor(GuestMemfd):
    """A folio that left the direct map as a block is split, and its pages are said to return without fail."""

    def split_direct_map(self, folio: Folio) -> int:
        return 0


class B38(HugeOnKvm):
    """That a page could not return to the direct map is ignored."""

    file: HopedFor = part()


class Unheard(GpcDriver):
    """Punching a hole in guest_memfd is no MMU notifier: cached translations do not hear of it."""

    def invalidate_gpcs(self, start: int, end: int) -> None:
        pass


class B41(PfnCache):
    """The kernel writes to a page that was freed, by a cached translation."""

    driver: Unheard = part()


class DirectMapV7(NeverFlagged):
    """The library's part of version 7."""


class DirectMapV12(HopedFor):
    """The library's part of version 12, in which restoring cannot fail: true as long as folios are pages."""
