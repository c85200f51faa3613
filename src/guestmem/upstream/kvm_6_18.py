# SPDX-License-Identifier: Apache-2.0
"""KVM's guest_memfd as of Linux 6.18, for VMs with private memory: the file has what is private, and nothing else.

virt/kvm/guest_memfd.c, and kvm_vm_set_mem_attributes() of virt/kvm/kvm_main.c.  What is shared is memory of the VMM's own, at
the slot's ``userspace_addr``; a conversion (KVM_SET_MEMORY_ATTRIBUTES) says which of the two a guest gets, and moves nothing.
"""

from __future__ import annotations

from errno import EFAULT, ENOMEM

from guestmem.machine.cost import Cost
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content
from guestmem.machine.guest import Guest
from guestmem.mm.exception import kernel_store
from guestmem.mm.filemap import Pgoff, map_user, unmap_mapping_page
from guestmem.mm.folio import Folio, alloc_folio, folio_put
from guestmem.model import array, charge, part, step
from guestmem.scenarios.hypervisors import KvmHost
from guestmem.upstream.library_rfc import KeptInDirectMap

__all__ = ["Kvm618", "OtherMemory"]


class Kvm618(KeptInDirectMap):
    """KVM 6.18: a file of private memory, beside the VMM's own.

    Attributes:
        anonymous: by page offset, the page of the VMM's own memory.
    """

    anonymous: list[Folio | None] = array("pages")

    def make_private(self, start: int, end: int) -> tuple[int, int]:
        return self.invalidate_changing(start, end, False)

    def make_shared(self, start: int, end: int) -> tuple[int, int]:
        return self.invalidate_changing(start, end, True)

    def accessible(self, pgoff: Pgoff) -> bool:
        """Its own memory a VMM may always use."""
        return True

    def fault(self, cpu: Cpu, pgoff: Pgoff) -> int:
        charge(Cost.USER_FAULT)
        with self.mapping.invalidate_lock.shared:  # in the place of mmap_lock
            if not self.open:
                return -EFAULT
            folio = self.own_page(cpu, pgoff)
            if folio is None:
                return -ENOMEM
            map_user(self.mapping, pgoff, folio)
        return 0

    def provide_page(self, cpu: Cpu, guest: Guest, pgoff: Pgoff) -> int:
        """What is shared comes by get_user_pages()."""
        if not self.shared[pgoff]:
            return super().provide_page(cpu, guest, pgoff)
        folio = self.own_page(cpu, pgoff)
        if folio is None:
            return -ENOMEM
        return self.driver.provide(self, guest, pgoff, folio)

    def own_page(self, cpu: Cpu, pgoff: Pgoff) -> Folio | None:
        """The page of the VMM's own memory, new if it has none there (do_anonymous_page)."""
        if self.anonymous[pgoff] is None:
            folio = alloc_folio(self.kernel, 0)
            if folio is None:
                return None
            kernel_store(self.kernel, cpu, folio.frame, Content.ZERO)
            self.install(pgoff, folio)
        return self.anonymous[pgoff]

    @step
    def install(self, pgoff: Pgoff, folio: Folio) -> None:
        """Enter a page, if nobody was faster; under the page-table lock."""
        if self.anonymous[pgoff] is None:
            self.anonymous[pgoff] = folio
        else:
            folio_put(self.kernel, folio)

    def release(self) -> None:
        """The VMM goes, and its own memory with it."""
        super().release()
        with self.mapping.invalidate_lock.exclusive:
            for pgoff in Pgoff.span(0, len(self.anonymous)):
                unmap_mapping_page(self.mapping, pgoff)
                self.drop(pgoff)

    @step
    def drop(self, pgoff: Pgoff) -> None:
        """Free a page of the VMM's own memory."""
        folio = self.anonymous[pgoff]
        if folio is not None:
            self.anonymous[pgoff] = None
            folio_put(self.kernel, folio)


class OtherMemory(KvmHost):
    """A host of such a file.  What a guest leaves in a page that becomes shared stays in the file, where nobody looks."""

    file: Kvm618 = part()

    def holders(self, pfn: int) -> int:
        own = sum(1 for folio in self.file.anonymous if folio is self.kernel.folios[pfn])
        return super().holders(pfn) + own

    def leaves(self) -> Content:
        return Content.ZERO
