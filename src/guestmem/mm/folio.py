# SPDX-License-Identifier: Apache-2.0
"""Folios, and the allocator that hands frames on to innocent users.  Order 0: a folio is a frame's struct page."""

from __future__ import annotations

from guestmem.machine.cost import Cost
from guestmem.machine.frame import Frame, is_secret
from guestmem.machine.machine import Machine
from guestmem.model import Mutex, Record, array, bounded, charge, choose, may, part, require, step, when

__all__ = ["Folio", "Kernel", "alloc_folio", "folio_put"]

RETURNED_CLEAN = "a frame given back holds no secret"
FREED_UNUSED = "a folio is freed only when nothing refers to it or maps it"


class Folio(Record):
    """What the host kernel knows of a frame (struct folio).

    Attributes:
        frame: the frame it stands for.
        refcount: references: the page cache's, those of whoever works with it.
        lock: the folio lock.
        uptodate: it was initialised; what is in it may be shown to its user.
        zapped: it was taken out of the direct map by guest_memfd.
        lost: nobody knows any more who owns the frame; it is never used again.
        free: it belongs to the allocator.
    """

    frame: Frame
    refcount: int = bounded("threads + 2")
    lock: Mutex = part()
    uptodate: bool = False
    zapped: bool = False
    lost: bool = False
    free: bool = True


class Kernel(Record):
    """The host kernel: its folios, and how its fault handlers are built.

    Attributes:
        fixup_stage2: the handlers of stage-2 faults consult the exception table as those of stage 1 do.
        rodata_full: the direct map has page entries only (arm64 with rodata=full).
    """

    machine: Machine
    folios: list[Folio] = array("frames")
    fixup_stage2: bool = False
    rodata_full: bool = True

    def wire(self) -> None:
        """Tie folios to frames; frame 0 holds kernel data for good.  Call from ``setup``."""
        for folio, frame in zip(self.folios, self.machine.frames, strict=True):
            folio.frame = frame
        self.folios[0].free = False
        self.folios[0].refcount = 1
        self.machine.frames[0].content = type(self.machine.frames[0].content).HOST


@step
def alloc_folio(kernel: Kernel) -> Folio | None:
    """Allocate a frame, any that is free; None when there is none, or when the allocation fails (folio_alloc)."""
    if not any(folio.free for folio in kernel.folios) or may("the allocation fails"):
        return None
    folio = kernel.folios[choose(len(kernel.folios), "frame")]
    when(folio.free)
    charge(Cost.PAGE_ALLOCATED)
    folio.free = False
    folio.refcount = 1
    return folio


@step
def folio_put(kernel: Kernel, folio: Folio) -> None:
    """Drop a reference; the frame of the last one goes back to the allocator."""
    folio.refcount -= 1
    if folio.refcount == 0:
        require(not is_secret(folio.frame.content), RETURNED_CLEAN)
        require(folio.lock.holder == 0 and not folio.lost, FREED_UNUSED)
        require(not any(guest.reaches(folio.frame) for guest in kernel.machine.guests), FREED_UNUSED)
        folio.free = True
        folio.uptodate = False
