# SPDX-License-Identifier: Apache-2.0
"""Secret memory, and khugepaged, before four fixes.

f9b141f93659 ("mm/secretmem: fix panic when growing a memfd_secret"); 84ac013046cc ("secretmem: fix unhandled fault in truncate");
6f86d0534fdd ("mm/secretmem: fix use-after-free race in fault handler"); dd085fe9a8eb, which keeps khugepaged from guest memory.
"""

from __future__ import annotations

from errno import EAGAIN, EINVAL

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.machine.cpu import Cpu
from guestmem.mm.exception import kernel_load
from guestmem.mm.filemap import Pgoff, filemap_lock_folio
from guestmem.mm.folio import Folio, folio_put
from guestmem.mm.secretmem import Secretmem
from guestmem.model import choose, part, thread
from guestmem.scenarios.cast import RunningVm, Vcpus
from guestmem.scenarios.hypervisors import KvmHost
from guestmem.scenarios.secretmem import SecretMemory, SizedSecret

__all__ = ["B44", "B46", "B65", "B66", "Collapsed"]


class PutFirst(Secretmem):
    """A page that lost the race to be added is let go, and then returns to the direct map."""

    def let_go(self, folio: Folio) -> None:
        folio_put(self.kernel, folio)
        self.restore_direct_map(folio)


class B44(SecretMemory):
    """The allocator hands out a page that is not in the direct map."""

    file: PutFirst = part()


class Collapsible(GuestMemfd):
    """A file of which khugepaged asks whether it may collapse pages."""

    def may_collapse(self) -> bool:
        """file_thp_enabled(): not a file that has no name."""
        return False


class Collapsed(KvmHost, RunningVm, Vcpus):
    """KVM, and khugepaged, which copies pages of a file into a huge one through the direct map (collapse_file)."""

    geometry = {"pages": 1, "frames": 3}

    file: Collapsible = part()

    def interfered(self, err: int) -> bool:
        return err == -EAGAIN or super().interfered(err)

    @thread
    def khugepaged(self) -> None:
        """Copy pages that are there."""
        while True:
            pgoff = Pgoff(choose(len(self.file.shared), "pgoff"))
            with self.file.mapping.invalidate_lock.shared:
                if self.file.may_collapse():
                    folio = filemap_lock_folio(self.file.mapping, pgoff)
                    if folio is not None:
                        kernel_load(self.kernel, self.machine.cpus[1], folio.frame)
                        self.file.put_folio(folio)


class MayCollapse(Collapsible):
    """Any file that is not written to."""

    def may_collapse(self) -> bool:
        return True


class B46(Collapsed):
    """khugepaged copies a page that is not in the direct map."""

    file: MayCollapse = part()


class AnySize(Secretmem):
    """simple_setattr(): a file that has pages may be given another size."""

    def setattr(self, cpu: Cpu, size: int) -> int:
        with self.mapping.invalidate_lock.exclusive:
            self.truncate_setsize(cpu, size)
        return 0


class B65(SizedSecret):
    """A file grows, and its last page, which is not in the direct map, is cleared through it."""

    file: AnySize = part()

    def resize(self, cpu: Cpu, size: int) -> None:
        """Let the file grow, by nothing or to the next page."""
        self.file.setattr(cpu, max(size, self.file.mapping.i_size))


class SizeBeforeLock(Secretmem):
    """The size is set while pages may be faulted in."""

    def setattr(self, cpu: Cpu, size: int) -> int:
        if self.mapping.i_size != 0:
            return -EINVAL
        self.truncate_setsize(cpu, size)
        return 0


class B66(SizedSecret):
    """A page is faulted in as soon as there is a size, and ftruncate clears it through the direct map."""

    file: SizeBeforeLock = part()

    def beyond(self, pgoff: Pgoff) -> bool:
        """Without the lock the size may have come since."""
        return True
