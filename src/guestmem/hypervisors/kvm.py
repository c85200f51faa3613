# SPDX-License-Identifier: Apache-2.0
"""Plain KVM: the host kernel is the hypervisor, and nothing stops it from touching what a guest has."""

from __future__ import annotations

from guestmem.guest_memfd.library import Driver, GuestMemfd
from guestmem.machine.guest import Gfn, Guest
from guestmem.mm.filemap import Pgoff

__all__ = ["KvmDriver"]


class KvmDriver(Driver):
    """KVM as a client of the library (virt/kvm/guest_memfd.c)."""

    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        """Zap the pages from the stage 2 of the guest that has them, and flush (kvm_gmem_invalidate_begin)."""
        for pgoff in Pgoff.span(start, end):
            guest = file.owner[pgoff]
            if guest is not None:
                guest.invalidating[file.gfn[pgoff]] = True
                if file.bound[pgoff] and guest.entries[file.gfn[pgoff]].live:
                    self.unmap(guest, file.gfn[pgoff])
        return 0, 0

    def unmap(self, guest: Guest, gfn: Gfn) -> None:
        """Zap a page from a guest's stage 2, and flush (kvm_mmu_unmap_gfn_range)."""
        guest.zap(gfn)
        guest.flush(gfn)

    def invalidate_end(self, file: GuestMemfd, start: int, end: int) -> None:
        """Let faults bring the pages back (kvm_gmem_invalidate_end)."""
        for pgoff in Pgoff.span(start, end):
            guest = file.owner[pgoff]
            if guest is not None:
                guest.invalidating[file.gfn[pgoff]] = False
