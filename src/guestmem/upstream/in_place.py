# SPDX-License-Identifier: Apache-2.0
"""Conversion in place for KVM's guest_memfd as posted in 2026; the direct map keeps what is private.

"guest_memfd: In-place conversion support", version 6 of 2026-05-07, 7 of 2026-05-22, 8 of 2026-06-18, which zeroes a page
when its frame is asked for ("KVM: guest_memfd: Zero page while getting pfn").  No source tells a difference between 6 and 7
that shows here.
"""

from __future__ import annotations

from guestmem.machine.cpu import Cpu
from guestmem.machine.guest import Guest
from guestmem.mm.filemap import Pgoff, filemap_grab_folio
from guestmem.upstream.library_rfc import KeptInDirectMap

__all__ = ["InPlaceV6", "InPlaceV7", "InPlaceV8"]


class InPlaceV8(KeptInDirectMap):
    """Version 8."""


class InPlaceV7(InPlaceV8):
    """Version 7: a page that is populated without a source was cleared by nobody, if the host never touched it."""

    def populate(self, cpu: Cpu, guest: Guest, pgoff: Pgoff) -> int:
        with self.mapping.invalidate_lock.exclusive:
            err, folio = filemap_grab_folio(self.kernel, self.mapping, pgoff, 0)
            if folio is not None:
                folio.uptodate = True
                err = self.driver.provide(self, guest, pgoff, folio)
                self.put_folio(folio)
        return err


class InPlaceV6(InPlaceV7):
    """Version 6."""
