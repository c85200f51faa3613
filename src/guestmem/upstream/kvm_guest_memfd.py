# SPDX-License-Identifier: Apache-2.0
"""KVM's guest_memfd before two fixes: files, slots and references that live and die; locks in two orders.

virt/kvm/guest_memfd.c; ae431059e75d ("KVM: guest_memfd: Remove bindings on memslot deletion when gmem is dying").
"""

from __future__ import annotations

from guestmem.mm.lifetime import Object, Srcu
from guestmem.model import Mutex, Record, RwSem, World, always, array, part, reached, step, thread, when
from guestmem.rules import SINGLE_OWNER

__all__ = ["B48", "B49", "Memslots", "Populating"]


class Memslot(Object):
    """A memory slot (struct kvm_memory_slot).

    Attributes:
        listed: it is in the VM's slots, where vCPUs find it.
        file: it has the file as its memory (gmem.file).
    """

    listed: bool = False
    file: bool = False


class GmemFile(Object):
    """A file of guest memory (struct file, struct gmem_file).

    Attributes:
        bindings: the slots that the file knows of.
    """

    bindings: list[bool] = array("slots")


class Memslots(World):
    """One closes a file of guest memory, another deletes the slots that have it, while a guest faults on them."""

    geometry = {"slots": 1, "references": 2}

    slots_lock: Mutex = part()
    srcu: Srcu = part()
    file: GmemFile = part()
    slots: list[Memslot] = array("slots")

    def setup(self) -> None:
        self.file.make()
        for number, slot in enumerate(self.slots):
            slot.make()
            slot.listed = True
            slot.file = True
            self.file.bindings[number] = True

    def unbinds_dying(self) -> bool:
        """Whether a slot is taken from a file whose last reference has gone, and whose release waits for the lock."""
        return True

    @thread
    def closer(self) -> None:
        """close(2)."""
        self.fput()

    def fput(self) -> None:
        """Drop a reference to the file, which ends with the last."""
        if self.file.put():
            self.release()
            reached("the file is released")

    def release(self) -> None:
        """kvm_gmem_release()."""
        with self.slots_lock:
            for number, slot in enumerate(self.slots):
                if self.file.bindings[number]:
                    self.unbind(number, slot)
        self.file.free()

    @step
    def unbind(self, number: int, slot: Memslot) -> None:
        """File and slot forget each other; the lock is held."""
        self.file.use()
        slot.use()
        self.file.bindings[number] = False
        slot.file = False

    @thread
    def deleter(self) -> None:
        """KVM_SET_USER_MEMORY_REGION2 with size 0, for each slot."""
        for number, slot in enumerate(self.slots):
            with self.slots_lock:
                self.delete(number, slot)
        reached("the slots are deleted")

    def delete(self, number: int, slot: Memslot) -> None:
        """kvm_set_memslot(), kvm_free_memslot()."""
        slot.listed = False
        self.srcu.synchronize()
        if slot.file and (self.file_is_live() or self.unbinds_dying()):
            self.unbind(number, slot)
        slot.free()

    @step
    def file_is_live(self) -> bool:
        """get_file_active(): whether somebody still has a reference."""
        return self.file.refcount > 0

    @thread
    def vcpu(self) -> None:
        """A guest faults on its slots."""
        for slot in self.slots:
            got = False
            with self.srcu.reading:
                if self.find(slot):
                    got = self.get_file(slot)
                    if got:
                        self.get_pfn(slot)
            if got:
                self.fput()

    @step
    def find(self, slot: Memslot) -> bool:
        """gfn_to_memslot()."""
        return slot.listed

    @step
    def get_file(self, slot: Memslot) -> bool:
        """kvm_gmem_get_file(): a reference, if the slot has a file that lives."""
        slot.use()
        return slot.file and self.file.get_unless_zero()

    @step
    def get_pfn(self, slot: Memslot) -> None:
        """kvm_gmem_get_pfn()."""
        slot.use()
        self.file.use()
        reached("a guest faults on a slot")

    @always(SINGLE_OWNER)
    def known_to_both(self) -> bool:
        return self.file.live or not any(slot.file and slot.live for slot in self.slots)


class B48(Memslots):
    """The release of a file writes to a slot that was freed."""

    def unbinds_dying(self) -> bool:
        return False


# ---- populate


class MmapLock(Record):
    """mmap_lock: readers and a writer, who lets no reader in while he waits (struct rw_semaphore)."""

    held: RwSem = part()
    waiting: bool = False

    @step
    def announce(self) -> None:
        """The writer joins the queue."""
        self.waiting = True

    @step
    def not_overtaking(self) -> None:
        """A reader stays behind a writer who came before."""
        when(not self.waiting)

    def read_lock(self) -> None:
        """mmap_read_lock()."""
        self.not_overtaking()
        self.held.down_read()

    def write_lock(self) -> None:
        """mmap_write_lock()."""
        self.announce()
        self.held.down_write()
        self.waiting = False


class Populating(World):
    """A VM is populated from the memory of its VMM, which faults at its mapping of the file, and maps more, meanwhile."""

    mmap_lock: MmapLock = part()
    invalidate_lock: RwSem = part()

    def gets_pages_first(self) -> bool:
        """Whether populate takes the source pages before it takes the invalidate lock."""
        return True

    @thread
    def populate(self) -> None:
        """kvm_gmem_populate(): copy a page of the VMM's into the file."""
        while True:
            if self.gets_pages_first():
                self.get_user_pages()
            with self.invalidate_lock.exclusive:
                if not self.gets_pages_first():
                    self.get_user_pages()
            reached("a page is populated")

    def get_user_pages(self) -> None:
        """get_user_pages_fast() that has to fault."""
        self.mmap_lock.read_lock()
        self.mmap_lock.held.up_read()

    @thread
    def fault(self) -> None:
        """kvm_gmem_fault_user_mapping()."""
        while True:
            self.mmap_lock.read_lock()
            with self.invalidate_lock.shared:
                reached("the VMM faults a page in")
            self.mmap_lock.held.up_read()

    @thread
    def mapper(self) -> None:
        """mmap(2)."""
        while True:
            self.mmap_lock.write_lock()
            self.mmap_lock.held.up_write()


class B49(Populating):
    """populate and a fault wait for each other."""

    def gets_pages_first(self) -> bool:
        return False
