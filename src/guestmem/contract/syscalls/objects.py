# SPDX-License-Identifier: Apache-2.0
"""What descriptors and mappings of the simulated host refer to, and how a file of any size stands on the library's.

A library's file has a fixed number of pages.  A page of the large file that is used for the first time gets one of
them, its *place*; all that then happens to it is the library's doing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from errno import EAGAIN

from guestmem.contract.interface import PAGE_SIZE, Exhausted
from guestmem.contract.spans import Spans
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.linux.uapi import GUEST_MEMFD_FLAG_INIT_SHARED
from guestmem.machine.frame import Content, is_secret
from guestmem.machine.guest import Expects, Gfn, Guest
from guestmem.mm.filemap import AddressSpace, Pgoff, unmap_mapping_page
from guestmem.mm.folio import Folio, Kernel, folio_page, folio_put
from guestmem.mm.secretmem import Secretmem

__all__ = [
    "MODE_BITS",
    "Gmem",
    "HugeGmem",
    "Kvm",
    "Mapping",
    "Open",
    "Pinned",
    "Placed",
    "Secret",
    "Session",
    "Slot",
    "Userfaultfd",
    "Vcpu",
    "Vm",
]

MODE_BITS = 16
"""A policy is its mode, and above these bits its nodes."""


class Open:
    """An open file description: a memfd, unless a subclass says otherwise.

    Attributes:
        uses: descriptors, mappings and whoever else keeps it open.
    """

    def __init__(self) -> None:
        self.uses = 0


class Slot:
    """A memory slot of a VM.

    Attributes:
        file: None for ordinary memory, and after the file of the slot was closed.
        gmem_only: the guest's accesses go to the file and never to the mapping of the slot (KVM_MEMSLOT_GMEM_ONLY).
    """

    def __init__(self, flags: int, gpa: int, pages: int, address: object) -> None:
        self.flags = flags
        self.gpa = gpa
        self.pages = pages
        self.address = address
        self.file: Gmem | None = None
        self.pgoff = 0
        self.gmem_only = False

    def overlaps(self, gpa: int, pages: int) -> bool:
        """Whether the slot has one of the guest pages."""
        return gpa < self.gpa + self.pages * PAGE_SIZE and self.gpa < gpa + pages * PAGE_SIZE


class Vm(Open):
    """A VM: its slots by number, the files made for it, whether it has its vCPU.

    Attributes:
        protected: its memory can be made private (KVM_X86_SW_PROTECTED_VM).
        private: by guest page number, whether a page is (KVM_MEMORY_ATTRIBUTE_PRIVATE).
    """

    def __init__(self, protected: bool) -> None:
        super().__init__()
        self.protected = protected
        self.private = Spans(1 << 52, 0)
        self.slots: dict[int, Slot] = {}
        self.files: list[Gmem] = []
        self.has_vcpu = False


class Vcpu(Open):
    """The vCPU of a VM.

    Attributes:
        fault: what its last exit said if it was for a memory fault: (gpa, size, flags).
    """

    def __init__(self, vm: Vm) -> None:
        super().__init__()
        self.vm = vm
        self.fault: tuple[int, int, int] | None = None


class Userfaultfd(Open):
    """A userfaultfd, and the mapping that it is told of."""

    def __init__(self, mapping: Mapping) -> None:
        super().__init__()
        self.mapping = mapping


class Session(Open):
    """A session of live update.

    Attributes:
        files: those that are preserved, by token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[int, Gmem] = {}


class Pinned(Open):
    """Bytes of pages that a pipe or an io_uring refers to: (folio, first byte, how many)."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.is_pipe = False
        self.parts: list[tuple[Folio, int, int]] = []

    def take(self, length: int) -> Iterator[tuple[Folio, int, int]]:
        """The next bytes, in parts; a page of which all was taken is let go."""
        while length and self.parts:
            folio, first, count = self.parts[0]
            part = min(count, length)
            yield folio, first, part
            length -= part
            if part < count:
                self.parts[0] = folio, first + part, count - part
            else:
                del self.parts[0]
                folio_put(self.kernel, folio)

    def unpin(self) -> None:
        """Let go of all pages."""
        for folio, _, _ in self.parts:
            folio_put(self.kernel, folio)
        self.parts = []


class Placed(Open):
    """A file on one of the library's, whose pages are the places.

    Attributes:
        place: by page offset.
        no_direct_map: the host's direct map does not have its pages, so nobody gets at them by GUP (AS_NO_DIRECT_MAP).
    """

    no_direct_map = False

    def __init__(self, mapping: AddressSpace) -> None:
        super().__init__()
        self.slots = mapping.slots
        self.place: dict[int, Pgoff] = {}
        self.unused = list(range(len(self.slots) - 1, -1, -1))

    def at(self, pgoff: int) -> Pgoff:
        """The place of a page, which it gets if it has none."""
        place = self.place.get(pgoff)
        if place is None:
            if not self.unused:
                self.recycle()
            place = self.place[pgoff] = Pgoff(self.unused.pop())
            self.placed(pgoff, place)
        return place

    def placed(self, pgoff: int, place: Pgoff) -> None:
        """A page got a place."""

    def free(self, place: Pgoff) -> bool:
        """Whether nothing is known of the page at a place."""
        return self.slots[place] is None

    def recycle(self) -> None:
        """Take back the places of pages of which nothing is known."""
        for pgoff, place in list(self.place.items()):
            if self.free(place):
                del self.place[pgoff]
                self.unused.append(place)
        if not self.unused:
            raise Exhausted("a file with more pages in use than the simulated host has")

    def used(self, start: int, end: int) -> list[Pgoff]:
        """The places of the pages start <= pgoff < end that have one, in the order of the file."""
        if end - start <= len(self.place):
            return [self.place[pgoff] for pgoff in range(start, end) if pgoff in self.place]
        return [place for pgoff, place in sorted(self.place.items()) if start <= pgoff < end]

    def resident(self, start: int, end: int) -> int:
        """How many pages are in the page cache."""
        return sum(self.slots[place] is not None for place in self.used(start, end))


class Secret(Placed):
    """A file of memfd_secret."""

    no_direct_map = True

    def __init__(self, file: Secretmem) -> None:
        super().__init__(file.mapping)
        self.file = file
        self.size = 0


class Gmem(Placed):
    """A file of guest memory, and the guest that has its places.

    Attributes:
        shared: by page offset, whether the host may use a page, for those that have no place yet.
        changed: its times are new (file_modified) since somebody looked.
        position: where write(2) continues (f_pos).
        policies: by page offset (numa), where a policy is that of a file.
        nodes: by page offset, where a page that is there came from; None: one cannot know.
    """

    order = 0  # its memory comes and goes as 2^order pages

    def __init__(self, vm: Vm, file: GuestMemfd, guest: Guest, size: int, flags: int) -> None:
        super().__init__(file.mapping)
        self.vm = vm
        self.file = file
        self.guest = guest
        self.size = size
        self.flags = flags
        self.changed = False
        self.position = 0
        self.policies = Spans(size // PAGE_SIZE, 0)
        self.nodes: dict[int, int | None] = {}
        self.shared = Spans(size // PAGE_SIZE, flags & GUEST_MEMFD_FLAG_INIT_SHARED)

    def placed(self, pgoff: int, place: Pgoff) -> None:
        if self.file.shared[place] != bool(self.shared.at(pgoff)):
            self.file.convert(place, place + 1, not self.file.shared[place])
        if any(slot.pgoff <= pgoff < slot.pgoff + slot.pages for slot in self.bindings()):
            self.file.bind(self.guest, place, place + 1, Gfn(place))

    def free(self, place: Pgoff) -> bool:
        return super().free(place) and not self.file.bound[place]

    def bindings(self) -> Iterator[Slot]:
        """The slots that have pages of the file."""
        return (slot for slot in self.vm.slots.values() if slot.file is self)

    def allocate(self, start: int, end: int) -> int:
        """The library's ``allocate``."""
        for pgoff in range(start, end):
            place = self.at(pgoff)
            err = self.file.allocate(self.file.kernel.machine.cpus[0], place, place + 1)
            if err:
                return err
        return 0

    def convert(self, start: int, end: int, to_shared: bool) -> tuple[int, int]:
        """The library's ``convert``, all or nothing; an error comes with the page that stood in the way.

        What the library asks of a range before it changes anything is asked here of all ranges before the first changes.
        """
        used = self.used(start, end)
        if not to_shared and (held := self.held([place for place in used if self.file.shared[place]])) is not None:
            return -EAGAIN, next(pgoff for pgoff, place in self.place.items() if place == held)
        for place in used if to_shared else ():
            self.offer(place)
        for first, last in runs(used):
            err, _ = self.file.convert(first, last, to_shared)
            assert err == 0, "nothing else makes a conversion fail here"
        self.shared.set(start, end, to_shared)
        return 0, 0

    def preserve(self) -> int:
        """The library's ``preserve``, of a file that is shared: so are the places that none of its pages has."""
        self.file.convert(0, len(self.slots), True)
        return self.file.preserve()

    def held(self, places: list[Pgoff]) -> Pgoff | None:
        """Take pages from the host's page tables; the first to which somebody else has a reference."""
        with self.file.mapping.invalidate_lock.exclusive:
            for place in places:
                unmap_mapping_page(self.file.mapping, place)
            return next((p for p in places if (folio := self.slots[p]) is not None and folio.refcount != 1), None)

    def offer(self, place: Pgoff) -> None:
        """What the guest has in a page is no secret any more: a VMM makes shared what its guest asks it to."""
        folio = self.slots[place]
        if folio is None:
            return
        frame = folio_page(self.file.kernel, folio, place)
        if is_secret(frame.content):
            frame.content = Content.SHARED
            self.guest.expects[place] = Expects.NOTHING

    def punch_hole(self, start: int, end: int) -> int:
        """The library's ``punch_hole``."""
        for first, last in runs(self.used(start, end)):
            err = self.file.punch_hole(first, last)
            if err:
                return err
        self.settle()
        return 0

    def settle(self) -> None:
        """Note of the pages that are there on which node they came to be, before the policies change."""
        there = [pgoff for pgoff, place in self.place.items() if self.slots[place] is not None]
        self.nodes = {pgoff: self.nodes.get(pgoff, only_node(self.policies.at(pgoff))) for pgoff in there}

    def may_bind(self, start: int, end: int) -> int:
        """The library's ``may_bind``, for all pages.

        Two ranges overlap only if one has the first page of the other, and the first page of each gets a place.
        """
        self.at(start)
        return next((err for place in self.used(start, end) if (err := self.file.may_bind(self.guest, place, Gfn(place)))), 0)

    def bind(self, slot: Slot) -> None:
        """The library's ``bind``, of the pages of a slot that have a place."""
        for first, last in runs(self.used(slot.pgoff, slot.pgoff + slot.pages)):
            self.file.bind(self.guest, first, last, Gfn(first))

    def unbind(self, slot: Slot) -> int:
        """The library's ``unbind``, of the pages of a slot that have a place."""
        ranges = runs(self.used(slot.pgoff, slot.pgoff + slot.pages))
        return next((err for first, last in ranges if (err := self.file.unbind(self.guest, first, last))), 0)

    def zap(self) -> None:
        """Let the guest's stage 2 have nothing of the file (kvm_mmu_zap_all_fast)."""
        self.zap_places(0, len(self.file.bound))

    def zap_range(self, start: int, end: int) -> None:
        """Let the guest's stage 2 have none of the pages start <= pgoff < end (kvm_unmap_gfn_range)."""
        for first, last in runs(self.used(start, end)):
            self.zap_places(first, last)

    def zap_places(self, first: int, last: int) -> None:
        """The same, by places."""
        with self.file.mapping.invalidate_lock.exclusive:
            self.file.driver.invalidate_begin(self.file, first, last)
            self.file.driver.invalidate_end(self.file, first, last)

    def live(self) -> int:
        """How many stage-2 entries for pages the guest has."""
        return sum(entry.live and entry.order == 0 for entry in self.guest.entries)

    def blocks(self) -> int:
        """How many stage-2 entries for more than a page the guest has."""
        return sum(
            entry.live and entry.order > 0 and gfn % (1 << entry.order) == 0 for gfn, entry in enumerate(self.guest.entries)
        )


class HugeGmem(Gmem):
    """A file of huge pages, all of which have their places from the beginning."""

    def __init__(self, vm: Vm, file: GuestMemfd, guest: Guest, size: int, flags: int) -> None:
        super().__init__(vm, file, guest, size, flags)
        self.order = file.order
        for pgoff in range(size // PAGE_SIZE):
            self.at(pgoff)

    def free(self, place: Pgoff) -> bool:
        return False

    def convert(self, start: int, end: int, to_shared: bool) -> tuple[int, int]:
        """The library's."""
        for place in self.used(start, end) if to_shared else ():
            self.offer(place)
        return self.file.convert(start, end, to_shared)


def only_node(policy: int) -> int | None:
    """The node that a policy (numa) leaves; None if there are several."""
    nodes = policy >> MODE_BITS
    return nodes.bit_length() - 1 if nodes and not nodes & (nodes - 1) else None


def runs(places: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Consecutive places as (first, last + 1)."""
    first = last = -1
    for place in places:
        if place != last:
            if last >= 0:
                yield first, last
            first = place
        last = place + 1
    if last >= 0:
        yield first, last


class Kvm(Open):
    """/dev/kvm."""


class Mapping:
    """A mapping of a file.

    Attributes:
        spans: what may be done at which of its bytes (PROT_*).
        locked: numbers of the pages under mlock.
        whole: it is one VMA and not locked: nothing was done that may have changed that.
        touched: a page was reached through it, so its page table may have some.
        guarded: numbers of the pages that are guards (MADV_GUARD_INSTALL).
        traps: faults in which of its bytes a userfaultfd is told of (UFFDIO_REGISTER_MODE_*).
        policies: by its pages (numa), where a policy is that of a mapping.
        has: by page number, what its page table has got since then; another mapping's may have more.
    """

    def __init__(self, file: Open, length: int, prot: int, offset: int) -> None:
        self.file = file
        self.offset = offset
        self.spans = Spans(length, prot)
        self.locked: set[int] = set()
        self.guarded: set[int] = set()
        self.whole = True
        self.touched = False
        self.traps = Spans(length, 0)
        self.policies = Spans(length // PAGE_SIZE, 0)
        self.has: dict[int, Folio] = {}

    def touchy(self) -> bool:
        """Whether a userfaultfd is told of faults in it, or it has guards."""
        return bool(self.guarded) or any(mode for _, _, mode in self.traps)

    def resize(self, length: int) -> None:
        """Have another length, as one VMA."""
        self.spans = Spans(length, self.spans.at(0))
        self.policies = Spans(length // PAGE_SIZE, self.policies.at(0))

    def trapped(self, page: int) -> int:
        """How faults in a page are told of."""
        return self.traps.at(page * PAGE_SIZE) if any(mode for _, _, mode in self.traps) else 0

    def copy(self) -> Mapping:
        """The mapping in a child."""
        other = Mapping(self.file, self.spans.end(), 0, self.offset)
        other.spans = self.spans.copy()
        other.policies = self.policies.copy()
        other.whole = self.whole
        other.guarded = set(self.guarded)
        return other

    def areas(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """The VMAs in a range: (start, end, locked)."""
        cuts = {start, end, *(first for first, _, _ in self.spans if start < first < end)}
        for page in self.locked:
            cuts.update(at for at in (page * PAGE_SIZE, (page + 1) * PAGE_SIZE) if start < at < end)
        edges = sorted(cuts)
        for first, last in itertools.pairwise(edges):
            yield first, last, first // PAGE_SIZE in self.locked
