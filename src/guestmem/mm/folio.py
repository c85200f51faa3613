# SPDX-License-Identifier: Apache-2.0
"""Folios, and the allocator that hands frames on to innocent users.

A folio is known by its first frame; those of the other frames of a large folio stand idle until it is split.
"""

from __future__ import annotations

from guestmem.machine.arch import Arch
from guestmem.machine.cost import Cost
from guestmem.machine.frame import Frame, Pfn, is_secret
from guestmem.machine.machine import Machine
from guestmem.model import (
    Mutex,
    Preempt,
    Record,
    array,
    bounded,
    charge,
    choose,
    guards,
    may,
    might_sleep,
    part,
    require,
    step,
    when,
)
from guestmem.rules import FREED_UNUSED, RETURNED_CLEAN

__all__ = [
    "EHWPOISON",
    "Folio",
    "Kernel",
    "alloc_folio",
    "folio_end",
    "folio_page",
    "folio_put",
    "folio_put_refs",
    "folio_ref_freeze",
    "folio_ref_unfreeze",
    "folio_try_get",
    "has_hwpoison",
]

EHWPOISON = 133  # include/uapi/asm-generic/errno.h; Python's errno does not have it


class Folio(Record):
    """What the host kernel knows of a frame (struct folio).

    Attributes:
        frame: the frame it stands for, the first one of a large folio.
        order: it has 2^order frames.
        refcount: references: the page cache's, one for each page, and those of whoever works with it.  0 while it is
            frozen: nobody gets a reference.
        lock: the folio lock.
        uptodate: it was initialised; what is in it may be shown to its user.
        zapped: it was taken out of the direct map by guest_memfd.
        hwpoison: its memory is broken (PG_hwpoison); the allocator does not take it back.
        lost: nobody knows any more who owns the frame; it is never used again.
        free: it belongs to the allocator.
    """

    frame: Frame
    order: int = bounded("order")
    refcount: int = bounded("threads + 1 + 2 ** order")
    lock: Mutex = part()
    uptodate: bool = False
    zapped: bool = False
    hwpoison: bool = False
    lost: bool = False
    free: bool = True

    @guards("uptodate")
    def initialising(self) -> bool:
        """Whoever finds it sees it initialised: it is locked, or nobody can have it."""
        return self.lock.held() or self.refcount == 0

    @guards("order")
    def nobody_has_it(self) -> bool:
        """Not even for a moment: it is free, or its references are frozen."""
        return self.refcount == 0


class Kernel(Record):
    """The host kernel: its folios, and how its fault handlers are built.

    Attributes:
        fixup_stage2: the handlers of stage-2 faults consult the exception table as those of stage 1 do.
        arch: the architecture, as far as the direct map differs.
        lost: a page was given up, of which nobody knows who owns it.
        secretmem_users, guest_memfd_users: open files that may hold what no other kernel, and no image, may have.
        hibernating: processes are about to be frozen, or are; who cares was told (PM_HIBERNATION_PREPARE).
        pm_lock: held to set that, having looked at what is open, and to open what may not be when it is set.
        signals: signals arrive at threads that are in the kernel.
        pgtable_split_lock: one splits block entries of the direct map at a time (cpa_lock on x86).
        preempt: who must not sleep.
    """

    machine: Machine
    folios: list[Folio] = array("frames")
    fixup_stage2: bool = False
    arch: Arch = Arch.ARM64
    lost: bool = False
    secretmem_users: int = bounded("files")
    guest_memfd_users: int = bounded("files")
    hibernating: bool = False
    pm_lock: Mutex = part()
    signals: bool = False
    pgtable_split_lock: Mutex = part()
    preempt: Preempt = part()

    @guards("hibernating")
    def deciding_on_power(self) -> bool:
        """Nothing is opened meanwhile that may not be."""
        return self.pm_lock.held()

    def wire(self) -> None:
        """Tie folios to frames; frame 0 holds kernel data for good.  Call from ``setup``."""
        for folio, frame in zip(self.folios, self.machine.frames, strict=True):
            folio.frame = frame
        self.folios[0].free = False
        self.folios[0].refcount = 1
        self.machine.frames[0].content = type(self.machine.frames[0].content).HOST

    # ---- what a kernel of another kind may do otherwise

    def available(self, pfn: int, order: int) -> bool:
        """Whether 2^order frames from ``pfn`` on can be had."""
        return free_run(self, pfn, order)

    def alloc(self, order: int) -> Folio | None:
        """Take 2^order frames that are free; None when there are none, or when the allocation fails.  One step."""
        if not any(self.available(pfn, order) for pfn in range(len(self.folios))) or may("the allocation fails"):
            self.machine.refuse()
            return None
        pfn = choose(len(self.folios), "frame")
        when(self.available(pfn, order))
        for p in range(pfn, pfn + (1 << order)):
            charge(Cost.PAGE_ALLOCATED)
            self.folios[p].free = False
        folio = self.folios[pfn]
        folio.order = order
        folio.refcount = 1
        return folio

    def put(self, folio: Folio, refs: int) -> None:
        """Drop some references at once; the frames of the last one go back to the allocator.  One step."""
        folio.refcount -= refs
        if folio.refcount == 0:
            require(folio.lock.holder == 0 and not folio.lost, FREED_UNUSED)
            for pfn in range(folio.frame.pfn, folio_end(folio)):
                frame = self.machine.frames[pfn]
                require(not is_secret(frame.content), RETURNED_CLEAN)
                require(not any(guest.reaches(frame) for guest in self.machine.guests), FREED_UNUSED)
                self.folios[pfn].free = not self.folios[pfn].hwpoison
                self.folios[pfn].uptodate = False
            folio.order = 0

    def folio_add_lru(self, folio: Folio) -> None:
        """Note a folio that is new in a page cache; this kernel has nobody who reclaims."""

    def lru_add_drain_all(self) -> None:
        """Have all CPUs drop the references that they keep of folios noted; this kernel keeps none."""
        might_sleep(self.preempt)

    def can_set_direct_map(self) -> bool:
        """Whether single pages of the direct map can be changed; if not, the calls that do return 0 and do nothing."""
        return self.arch is not Arch.ARM64_BLOCKS

    def split_kernel_leaf_mapping(self, frame: Frame, order: int) -> int:
        """Have the entry of a frame map no more than 2^order frames.  -ENOMEM: no page for a table; it may sleep."""
        err = 0
        if frame.order > order:
            with self.pgtable_split_lock:
                while err == 0 and frame.order > order:
                    err = self.split_leaf(frame)
        return err

    def split_leaf(self, frame: Frame) -> int:
        """Split one block entry; an invalid one needs no break-before-make."""
        machine = self.machine
        if self.arch is not Arch.ARM64_BBM or not frame.present:
            return machine.split_leaf(frame)
        err = machine.break_leaf(frame)
        if err == 0:
            machine.tlbi_kernel(machine.leaf_start(frame), machine.leaf_end(frame))
            machine.make_table(frame)
        return err

    def set_direct_map_valid(self, frame: Frame, order: int, valid: bool) -> int:
        """Make the entries of a folio valid or invalid, having split what is larger.  -ENOMEM; no flush."""
        if not self.can_set_direct_map():
            return 0
        err = self.split_kernel_leaf_mapping(frame, order)
        if err:
            return err
        for pfn in Pfn.span(frame.pfn, frame.pfn + (1 << order)):
            page = self.machine.frames[pfn]
            if self.machine.leaf_start(page) == pfn:
                self.machine.write_descriptor(page, valid)
        return 0


def folio_end(folio: Folio) -> int:
    """The frame number after the last one of a folio."""
    return folio.frame.pfn + (1 << folio.order)


def folio_page(kernel: Kernel, folio: Folio, index: int) -> Frame:
    """The frame of a folio that has a page offset or gfn; large folios lie aligned in files, memory and guests."""
    return kernel.machine.frames[folio.frame.pfn + index % (1 << folio.order)]


def has_hwpoison(kernel: Kernel, folio: Folio) -> bool:
    """Whether some of a folio is broken memory."""
    return any(kernel.folios[pfn].hwpoison for pfn in range(folio.frame.pfn, folio_end(folio)))


def free_run(kernel: Kernel, pfn: int, order: int) -> bool:
    """Whether 2^order frames from pfn on are aligned and free."""
    end = pfn + (1 << order)
    return pfn % (1 << order) == 0 and end <= len(kernel.folios) and all(kernel.folios[p].free for p in range(pfn, end))


@step
def alloc_folio(kernel: Kernel, order: int) -> Folio | None:
    """Allocate frames, any that are free; None when there are none, or when the allocation fails (folio_alloc)."""
    might_sleep(kernel.preempt)
    return kernel.alloc(order)


def folio_put(kernel: Kernel, folio: Folio) -> None:
    """Drop a reference; the frames of the last one go back to the allocator."""
    folio_put_refs(kernel, folio, 1)


@step
def folio_put_refs(kernel: Kernel, folio: Folio, refs: int) -> None:
    """Drop some references at once."""
    kernel.put(folio, refs)


@step
def folio_try_get(folio: Folio) -> bool:
    """Take a reference to a folio that may be going; whether it was still there."""
    if folio.refcount == 0:
        return False
    folio.refcount += 1
    return True


@step
def folio_ref_freeze(folio: Folio, expected: int) -> bool:
    """Let nobody take a reference, if there are just the expected ones; whether that is so."""
    if folio.refcount != expected:
        return False
    folio.refcount = 0
    return True


@step
def folio_ref_unfreeze(folio: Folio, refs: int) -> None:
    """End a freeze."""
    folio.refcount = refs
