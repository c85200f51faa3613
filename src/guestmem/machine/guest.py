# SPDX-License-Identifier: Apache-2.0
"""Guests: their stage 2, what their TLBs may still hold, and what they have put into their memory."""

from __future__ import annotations

from enum import Enum

from guestmem.machine.cost import Cost
from guestmem.machine.frame import Content, Frame, is_secret
from guestmem.model import Index, Record, array, bounded, charge, may, require, step, when
from guestmem.rules import GIVEN_CLEAN

__all__ = ["Expects", "Gfn", "Guest", "GuestEntry"]


class Gfn(Index, below="pages"):
    """Guest frame number."""


class Expects(Enum):
    """What must still be in a page for the contents to have survived."""

    NOTHING = 0
    SECRET = 1  # what the guest keeps there for itself
    OFFERED = 2  # what it left there for the host


class GuestEntry(Record):
    """One entry of a guest's stage 2.

    Attributes:
        frame: what it points to.  Kept when the entry is removed, until the guest's TLB is flushed.
        order: it is part of a block entry for 2^order pages, which comes and goes as a whole.
        live: the table has the entry; without it only a TLB may.
        private: the guest holds the page as its own, not shared with the host.
        poison: the hypervisor took the page away while the guest ran; the guest ends when it comes back to it.
    """

    frame: Frame | None = None
    order: int = bounded("order")
    live: bool = False
    private: bool = False
    poison: bool = False


class Guest(Record):
    """A VM as its memory sees it.

    Attributes:
        running: it executes; a VM that was torn down does not.
        exited: so many of its vCPUs are in the host, which handles their faults.
        frozen: its vCPUs are kept from running, as all processes are (hibernation).
        entries: its stage 2, by gfn.
        secret: how the content it keeps for itself is labelled.
        expects: by gfn, what it has put there and counts on.
        invalidating: by gfn, whether the host is taking the page away and lets no fault bring it back meanwhile.
        gave: by gfn, whether it has offered the page to the host, which has not made it private since; until then the
            guest puts no secret there.
    """

    running: bool = False
    exited: int = bounded("vcpus")
    frozen: bool = False
    secret: Content = Content.SECRET_0
    entries: list[GuestEntry] = array("pages")
    expects: list[Expects] = array("pages")
    gave: list[bool] = array("pages")
    invalidating: list[bool] = array("pages")

    def empty(self) -> bool:
        """Whether nothing is left in its stage 2."""
        return all(entry.frame is None and not entry.poison for entry in self.entries)

    def holds_private(self, frame: Frame) -> bool:
        """Whether the guest can reach a frame as its private page, be it through its TLB."""
        return any(entry.private and entry.frame is frame for entry in self.entries)

    def reaches(self, frame: Frame) -> bool:
        """Whether the guest can reach a frame, be it through its TLB."""
        return any(entry.frame is frame for entry in self.entries)

    @step
    def touch(self, gfn: Gfn) -> bool:
        """Write to a page, a secret if it is private.  False: the page is not there, and the vCPU exits."""
        when(self.running and not self.frozen)
        return self.access(gfn)

    def access(self, gfn: Gfn) -> bool:
        """The part of ``touch`` that a guest does along with other things."""
        entry = self.entries[gfn]
        if entry.frame is None or not (entry.live or may("the guest's TLB still holds the entry")):
            self.exited += 1
            return False
        if not entry.private:
            entry.frame.content = Content.SHARED
        elif not self.gave[gfn]:
            entry.frame.content = self.secret
            self.expects[gfn] = Expects.SECRET
        return True

    @step
    def stop(self) -> None:
        """Take its vCPUs out of the guest for good, once the host has handled their exits."""
        when(self.exited == 0)
        self.running = False
        for gfn in Gfn.span(0, len(self.entries)):
            self.expects[gfn] = Expects.NOTHING
            self.gave[gfn] = False

    @step
    def reset(self) -> None:
        """Another VM takes its place, with nothing in its stage 2."""
        for gfn in Gfn.span(0, len(self.entries)):
            self.forget(gfn)

    def offer(self, gfn: Gfn, content: Content) -> None:
        """Leave ``content`` in a page in place of the secret and offer the page to the host."""
        frame = self.entries[gfn].frame
        if frame is not None:
            frame.content = content
        self.expects[gfn] = Expects.NOTHING
        if frame is not None and content is Content.SHARED:
            self.expects[gfn] = Expects.OFFERED
        self.gave[gfn] = True

    @step
    def map(self, gfn: Gfn, frame: Frame, order: int, private: bool) -> None:
        """Enter 2^order frames from ``frame`` on into the guest's stage 2 at ``gfn``, which is aligned, as one entry."""
        self.enter(gfn, frame, order, private)

    def enter(self, gfn: Gfn, frame: Frame, order: int, private: bool) -> None:
        """The part of ``map`` that a hypercall does along with other things."""
        page: Frame | None = frame
        for at in Gfn.span(gfn, gfn + (1 << order)):
            if page is not None:
                clean = not is_secret(page.content) or page.content is self.secret
                require(clean and page.content is not Content.HOST, GIVEN_CLEAN)
                entry = self.entries[at]
                entry.frame = page
                entry.order = order
                entry.live = True
                entry.private = private
                page = page.next

    def block_start(self, gfn: Gfn) -> int:
        """The first page of the block entry that an entry is part of."""
        return gfn - gfn % (1 << self.entries[gfn].order)

    @step
    def zap(self, gfn: Gfn) -> None:
        """Remove an entry from the guest's stage 2, all of a block; its TLB may keep it."""
        start = self.block_start(gfn)
        for at in Gfn.span(start, start + (1 << self.entries[gfn].order)):
            self.entries[at].live = False

    @step
    def flush(self, gfn: Gfn) -> None:
        """Flush an entry, all of a block, from the guest's TLB, which loads it again where the table still has it.

        The step is its end, as in ``tlbi_kernel``.
        """
        charge(Cost.GUEST_FLUSH)
        start = self.block_start(gfn)
        for at in Gfn.span(start, start + (1 << self.entries[gfn].order)):
            if not self.entries[at].live:
                self.forget(at)

    def forget(self, gfn: Gfn) -> None:
        """The guest reaches nothing at this gfn any more; what else was in a block entry stays, in entries of its own."""
        start = self.block_start(gfn)
        for at in Gfn.span(start, start + (1 << self.entries[gfn].order)):
            self.entries[at].order = 0
        entry = self.entries[gfn]
        entry.live = False
        entry.frame = None
        entry.private = False
        entry.poison = False
