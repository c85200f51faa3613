# SPDX-License-Identifier: Apache-2.0
"""Secret memory of a process (memfd_secret): the page cache and the direct map, and no hypervisor.

mm/secretmem.c, in its order of steps.
"""

from __future__ import annotations

from errno import EBADF, EEXIST, EFAULT, EINVAL, ENOMEM, ENOSYS

from guestmem.machine.cost import Cost
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content
from guestmem.mm.direct_map import (
    flush_tlb_kernel_range,
    set_direct_map_default_noflush,
    set_direct_map_invalid_noflush,
)
from guestmem.mm.exception import kernel_store
from guestmem.mm.filemap import (
    AddressSpace,
    Pgoff,
    filemap_add_folio,
    filemap_lock_folio,
    filemap_remove_folio,
    map_user,
    unmap_mapping_page,
    xa_load,
)
from guestmem.mm.folio import Folio, Kernel, alloc_folio, folio_put
from guestmem.model import Record, charge, part, reached, step

__all__ = ["Secretmem"]


class Secretmem(Record):
    """One file of secret memory.

    Attributes:
        clears_first: a page is cleared before it returns to the direct map, through a mapping that is only this CPU's;
            secretmem_free_folio() does it the other way round.
        open: somebody has the file.
    """

    kernel: Kernel
    clears_first: bool = False
    mapping: AddressSpace = part()
    open: bool = False

    @step
    def create(self, size: int) -> int:
        """memfd_secret(2), and ftruncate(2) to ``size`` pages before others have the file; 0: without it, it has none yet.

        -ENOSYS: the direct map cannot be changed.  One step, as nobody has the file before its end; that it is counted
        earlier only has hibernation refused earlier.
        """
        if not self.kernel.can_set_direct_map():
            return -ENOSYS
        self.mapping.i_size = size
        self.open = True
        self.kernel.secretmem_users += 1
        return 0

    def setattr(self, cpu: Cpu, size: int) -> int:
        """secretmem_setattr(): ftruncate(2) to a size that ends in the last of ``size`` pages.  -EINVAL: the file has a size.

        Only one thread does it at a time: it holds the inode's lock.
        """
        with self.mapping.invalidate_lock.exclusive:
            if self.mapping.i_size != 0:
                return -EINVAL
            self.truncate_setsize(cpu, size)
        return 0

    def truncate_setsize(self, cpu: Cpu, size: int) -> None:
        """Set the size, then clear what the last page has beyond it, through the direct map (truncate_inode_partial_folio)."""
        self.i_size_write(size)
        folio = xa_load(self.mapping, Pgoff(size - 1))
        if folio is not None:
            kernel_store(self.kernel, cpu, folio.frame, Content.ZERO)

    @step
    def i_size_write(self, size: int) -> None:
        """Others see the new size."""
        self.mapping.i_size = size

    @step
    def write(self, pgoff: Pgoff) -> bool:
        """The process writes a secret to its mapping.  False: there is no page, it takes a page fault."""
        folio = self.mapping.user[pgoff].folio
        if folio is None or not self.mapping.user[pgoff].live:
            return False
        folio.frame.content = Content.SECRET_0
        return True

    def fault(self, cpu: Cpu, pgoff: Pgoff) -> int:
        """secretmem_fault(): the flush comes after the page was added, so that to lose a race costs none.

        -EFAULT: beyond the end of the file (SIGBUS).  It is asked under the lock, though secretmem_fault() asks before:
        there, whoever faults has the file, and its size does not go back to 0.
        """
        charge(Cost.USER_FAULT)
        err = -EEXIST
        with self.mapping.invalidate_lock.shared:
            if not self.open:
                return -EBADF
            if pgoff >= self.mapping.i_size:
                return -EFAULT
            while err == -EEXIST:
                folio = filemap_lock_folio(self.mapping, pgoff)
                err = 0
                if folio is None:
                    err, folio = self.add_page(cpu, pgoff)
                if folio is not None:
                    map_user(self.mapping, pgoff, folio)
                    self.put_folio(folio)
        return err

    def add_page(self, cpu: Cpu, pgoff: Pgoff) -> tuple[int, Folio | None]:
        """A new page, out of the direct map, in the file, locked.  -ENOMEM; -EEXIST: another was faster."""
        folio = alloc_folio(self.kernel, 0)
        if folio is None:
            return -ENOMEM, None
        charge(Cost.PAGE_ZEROED)
        kernel_store(self.kernel, cpu, folio.frame, Content.ZERO)
        err = set_direct_map_invalid_noflush(self.kernel, folio.frame, 0)
        if err:
            folio_put(self.kernel, folio)
            return err, None
        folio.zapped = True
        err = filemap_add_folio(self.mapping, folio, pgoff)
        if err:
            reached("a page of secret memory is added twice")
            self.let_go(folio)
            return err, None
        flush_tlb_kernel_range(self.kernel.machine, folio.frame, 0)
        return 0, folio

    def let_go(self, folio: Folio) -> None:
        """Give up a page that is not in the file: once it is free it is somebody else's, so it is mapped before."""
        self.restore_direct_map(folio)
        folio_put(self.kernel, folio)

    def restore_direct_map(self, folio: Folio) -> None:
        """Put a page back into the direct map."""
        set_direct_map_default_noflush(self.kernel, folio.frame, 0)
        folio.zapped = False

    @step
    def put_folio(self, folio: Folio) -> None:
        """Let go of a page that was faulted in; one step, as in the library."""
        folio.lock.release()
        folio_put(self.kernel, folio)

    def release(self, cpu: Cpu) -> None:
        """The last user is gone, and with it all its mappings."""
        with self.mapping.invalidate_lock.exclusive:
            for pgoff in Pgoff.span(0, len(self.mapping.slots)):
                folio = self.mapping.slots[pgoff]
                if folio is not None:
                    unmap_mapping_page(self.mapping, pgoff)
                    filemap_remove_folio(self.mapping, folio, pgoff)
                    self.free_folio(cpu, folio)
                    folio_put(self.kernel, folio)
            self.open = False
            self.kernel.secretmem_users -= 1

    def free_folio(self, cpu: Cpu, folio: Folio) -> None:
        """secretmem_free_folio()."""
        charge(Cost.PAGE_ZEROED)
        if self.clears_first:
            self.kernel.machine.store_mapped(folio.frame, Content.ZERO)
        self.restore_direct_map(folio)
        if not self.clears_first:
            kernel_store(self.kernel, cpu, folio.frame, Content.ZERO)
