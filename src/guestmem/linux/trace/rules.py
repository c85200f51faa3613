# SPDX-License-Identifier: Apache-2.0
"""The rules that a recorded run is checked against, each by comparing two of its lines.

A recording is redundant: a frame number appears when the page is allocated, added to a file, mapped into a guest,
removed and freed; a struct page has one frame; a call that began ends.  Four groups keep what the lines so far tell:
the pages of files, the frames outside of them, stage 2, and calls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from guestmem.linux import uapi
from guestmem.linux.trace.text import PAGE_SHIFT, Event, Header, Page, Unreadable, number, numbers

__all__ = ["COMPLETE", "IN_ORDER", "READABLE", "Calls", "Coverage", "File", "Findings", "Frames", "Pages", "Stage2", "Violation"]

ADDED_ONCE = "a page of a file is added once before it is removed"
ONE_FILE = "a frame is in one file at a time"
ALLOCATED = "a frame that is added to a file was allocated for it"
AS_ADDED = "a page is removed with the frame that it was added with"
ONLY_ADDED = "only a page that was added is removed"
NOT_FREED = "a frame in a file is neither freed nor allocated"
AS_REQUESTED = "a stage-2 entry has the frame that its fault found"
RESIDENT = "a stage-2 entry is made only for a page that is resident"
NOT_AFTER = "nothing is mapped into a guest after its page was removed"
ZAPPED_FIRST = "a page leaves the stage 2 of guests before it leaves its file"
PUNCHED = "a punched hole is empty, and nothing else is removed by it"
FILLED = "an allocated range is full, and nothing else is added by it"
PAIRED = "a call that ends began, and one that began ends before the next"
ONE_FRAME = "a struct page has one frame"
IN_ORDER = "time does not go back"
COMPLETE = "every event that the header counts is there"
READABLE = "every line can be read"

MOST = 20
"""Violations that are kept; one fault of a recording may break many lines after it."""

File = tuple[str, str]
Line = Event | Header | Unreadable
POINTER = re.compile(r"\b(?:page|folio)=(0x)?(\w+) pfn=(0x[0-9a-f]+|\d+)(?: order=(1?\d)\b)?")
REQUESTED = re.compile(r"gfn (?:0x)?([0-9a-f]+) pfn (?:0x)?([0-9a-f]+) level ([1-5])\b")
SET = re.compile(r"gfn (?:0x)?([0-9a-f]+) spte (?:0x)?([0-9a-f]+) \([^)]*\) level ([1-5])\b")
CHANGED = re.compile(
    r"as id (\d+) gfn (?:0x)?([0-9a-f]+) level ([1-5]) old_spte (?:0x)?([0-9a-f]+) new_spte (?:0x)?([0-9a-f]+)\b"
)
NOTE = re.compile(r"gmem ino=0x([0-9a-f]+),? slot gfn (?:0x)?([0-9a-f]+)\.\. = gmem index (?:0x)?([0-9a-f]+)\.\.")
FRAMES = (1 << 40) - 1
PRESENT, LARGE = 1 << 11, 1 << 7  # arch/x86/kvm/mmu/spte.h: SPTE_MMU_PRESENT_MASK, PT_PAGE_SIZE_MASK
LEVELS = (1, 2, 3)  # of an entry that maps pages: 4 KiB, 2 MiB, 1 GiB
SET_MEMORY = {uapi.KVM_SET_USER_MEMORY_REGION, uapi.KVM_SET_USER_MEMORY_REGION2}


class Violation(NamedTuple):
    """A broken rule, why, and the lines that show it, each with its number; the last line is the one that breaks it."""

    rule: str
    why: str
    lines: tuple[tuple[int, str], ...]


class Findings:
    """The violations found: the first ones, and how many there are."""

    def __init__(self) -> None:
        self.kept: list[Violation] = []
        self.count = 0

    def broken(self, rule: str, why: str, *lines: Line, first: bool = False) -> None:
        """Note a violation; ``first``: before all others."""
        self.count += 1
        violation = Violation(rule, why, tuple((one.line, one.text) for one in lines))
        self.kept.insert(0 if first else len(self.kept), violation)
        del self.kept[MOST:]


class Coverage(NamedTuple):
    """What a recording covers, by a look at all of it: a rule needs two lines, and both must be of a kind that is recorded.

    Attributes:
        names: the events that it has.
        whole: devices of which it has every page that comes or goes, as a note of `guestmem record` says, but for files
            that are older (their inodes).
        added: files to which a line adds a page.
        inodes: the files by inode, for notes.
        followed: threads that have lines of other kinds than those that `guestmem record` keeps of all processes.
    """

    names: set[str]
    whole: set[str]
    older: set[str]
    added: set[File]
    inodes: dict[int, File]
    followed: set[int]

    def watched(self, file: File) -> bool:
        """Whether a file may be a guest_memfd or a memfd_secret."""
        return file[0] in self.whole if self.whole else file[0].startswith("0:")

    def all_of(self, file: File) -> bool:
        """Whether every page of a file that is there has a line."""
        return file[0] in self.whole and file[1] not in self.older


class Resident(NamedTuple):
    """A page that is in a file: its frame, and the line that added it (or told of it)."""

    pfn: int
    event: Event


Place = tuple[File, int]


def called(place: Place) -> str:
    """A page of a file in words."""
    return f"page {place[1]:#x} of inode {place[0][1]}"


class Pages:
    """The pages of files.

    Attributes:
        files: by file and index.
        removed: pages that were removed and are not there, with the line that removed them.
        earlier: how many pages were removed that were there before the recording.
        left: how many pages a process may have taken along when it ended, as what it does then may have no line.
    """

    def __init__(self, coverage: Coverage, findings: Findings) -> None:
        self.coverage = coverage
        self.broken = findings.broken
        self.files: dict[File, dict[int, Resident]] = {}
        self.removed: dict[Place, Event] = {}
        self.earlier = 0
        self.left = 0
        self._of_frame: dict[int, Place] = {}
        self._exited = 0

    def at(self, place: Place) -> Resident | None:
        """What is there, as far as lines tell."""
        return self.files.get(place[0], {}).get(place[1])

    def line(self, place: Place) -> Event:
        """The line that added a page that is there."""
        return self.files[place[0]][place[1]].event

    def of(self, pfn: int) -> Place | None:
        """The page that a frame is."""
        return self._of_frame.get(pfn)

    def claim(self, pfn: int) -> Place | None:
        """The same, for a line that has the frame elsewhere.

        A page is given up whose file a process that ended since may have closed without a line.
        """
        place = self._of_frame.get(pfn)
        if place is None or self.coverage.all_of(place[0]) or self.line(place).line > self._exited:
            return place
        self.forget(place)
        self.left += 1
        return None

    def forget(self, place: Place) -> None:
        """A page is not there any more."""
        self._of_frame.pop(self.files[place[0]].pop(place[1]).pfn, None)

    def put(self, place: Place, pfn: int, event: Event) -> None:
        """A page is there."""
        self.files.setdefault(place[0], {})[place[1]] = Resident(pfn, event)
        self._of_frame[pfn] = place
        self.removed.pop(place, None)

    def resident(self) -> tuple[int, int]:
        """How many pages are there: in files of which the recording has everything, and in others."""
        whole = sum(len(pages) for file, pages in self.files.items() if self.coverage.all_of(file))
        return whole, sum(map(len, self.files.values())) - whole

    def exit(self, event: Event) -> None:
        """sched_process_exit."""
        self._exited = event.line

    @property
    def some_process_ended(self) -> bool:
        """Whether a process ended in the recording."""
        return self._exited > 0

    def add(self, place: Place, pfn: int, event: Event) -> None:
        """mm_filemap_add_to_page_cache, one page."""
        if (old := self.at(place)) is not None:
            self.broken(ADDED_ONCE, f"{called(place)} is there already", old.event, event)
            self.forget(place)
        if (holder := self.claim(pfn)) is not None:
            self.broken(ONE_FILE, f"frame {pfn:#x} is {called(holder)} already", self.line(holder), event)
            self.forget(holder)
        self.put(place, pfn, event)

    def delete(self, place: Place, pfn: int, event: Event, frames: Frames) -> None:
        """mm_filemap_delete_from_page_cache, one page."""
        there = self.at(place)
        if there is None:
            self._not_added(place, pfn, event, frames)
        else:
            self.forget(place)
            if there.pfn != pfn:
                self.broken(AS_ADDED, f"{called(place)} has frame {there.pfn:#x}, not {pfn:#x}", there.event, event)
        self.removed[place] = event

    def _not_added(self, place: Place, pfn: int, event: Event, frames: Frames) -> None:
        """A page is removed that no line added: it was there before the recording, if that can be."""
        if (gone := self.removed.get(place)) is not None and place[0] in self.coverage.added:
            self.broken(ONLY_ADDED, f"{called(place)} was removed before, and no line adds it since", gone, event)
        elif self.coverage.all_of(place[0]):
            self.broken(ONLY_ADDED, f"no line adds {called(place)}, and the recording has all of device {place[0][0]}", event)
        elif (holder := self.of(pfn)) is not None:
            self.broken(AS_ADDED, f"frame {pfn:#x} is {called(holder)}, not {called(place)}", self.line(holder), event)
        elif pfn in frames.allocated and place[0] in self.coverage.added:
            why = f"frame {pfn:#x} was allocated and never added as {called(place)}"
            self.broken(ONLY_ADDED, why, frames.allocated[pfn], event)
        else:
            self.earlier += 1


class Frames:
    """Frames on their way between the allocator and files, and their struct pages.

    Attributes:
        allocated: frames that were allocated, and are neither freed nor in a file.
        stale: frames that were removed from a file, and not allocated since.
        lines: how many lines name each frame.
    """

    def __init__(self, findings: Findings) -> None:
        self.broken = findings.broken
        self.allocated: dict[int, Event] = {}
        self.stale: dict[int, Event] = {}
        self.lines: Counter[int] = Counter()
        self._pointers: dict[str, Resident] = {}
        self._names: dict[int, str] = {}
        self._allocators: set[int] = set()

    def pointed(self, event: Event) -> range:
        """The frames that a line with a struct page names."""
        found = POINTER.search(event.fields)
        if found is None or not found[2].strip("0"):
            return range(0)
        name, pfn = found[2], number(found[3])
        self.lines[pfn] += 1
        known = self._pointers.setdefault(name, Resident(pfn, event))
        other = self._names.setdefault(pfn, name)
        if known.pfn != pfn:
            self.broken(ONE_FRAME, f"page {name} is frame {known.pfn:#x}, not {pfn:#x}", known.event, event)
        elif other != name:
            self.broken(ONE_FRAME, f"frame {pfn:#x} is page {other}, not {name}", self._pointers[other].event, event)
        return range(pfn, pfn + (1 << int(found[4] or 0)))

    def alloc(self, event: Event, pages: Pages) -> None:
        """mm_page_alloc."""
        self._allocators.add(event.pid)
        for pfn in self._moved(event, "allocated", pages):
            self.allocated[pfn] = event
            self.stale.pop(pfn, None)

    def free(self, event: Event, pages: Pages) -> None:
        """mm_page_free."""
        for pfn in self._moved(event, "freed", pages):
            self.allocated.pop(pfn, None)

    def _moved(self, event: Event, how: str, pages: Pages) -> Iterator[int]:
        """Frames that go from or to the allocator."""
        for pfn in self.pointed(event):
            if (holder := pages.claim(pfn)) is not None:
                self.broken(NOT_FREED, f"frame {pfn:#x} is {how} while it is {called(holder)}", pages.line(holder), event)
            yield pfn

    def add(self, pfn: int, event: Event) -> None:
        """A frame is added to a file; what threads that never allocated do may have been allocated before."""
        if event.pid in self._allocators:
            if self.allocated.pop(pfn, None) is None:
                self.broken(ALLOCATED, f"no line allocates frame {pfn:#x} before", event)
        self.stale.pop(pfn, None)

    def delete(self, pfn: int, event: Event) -> None:
        """A frame is removed from a file."""
        self.stale[pfn] = event
        self.allocated.pop(pfn, None)


class Request(NamedTuple):
    """What a guest's fault found: kvm_mmu_spte_requested."""

    gfn: int
    pfn: int
    level: int
    event: Event


class Bound(NamedTuple):
    """A slot's binding, as a note in the trace has it: gfn first.. is page index.. of a file with this inode."""

    inode: int
    gfn: int
    first: int


class Entry(NamedTuple):
    """An entry of a TDP page table for pages: its address space, its first gfn, its level (1: one page, 2: 512 of them)."""

    space: int
    gfn: int
    level: int

    @property
    def table(self) -> Entry:
        """The entry of the level above that points to the table in which it stands."""
        shift = 9 * self.level
        return Entry(self.space, self.gfn >> shift << shift, self.level + 1)


def _block(frame: int, level: int) -> tuple[int, int]:
    """The frames that an entry of a level has, if it has this one."""
    return level, frame >> 9 * (level - 1)


class Entries:
    """The entries of TDP page tables that map pages, as kvm_tdp_mmu_spte_changed tells of them.

    An entry may stand in several roots; then there are as many lines that made it.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], dict[Entry, list[Event]]] = {}
        self._in_table: dict[Entry, dict[Entry, int]] = {}

    def changed(self, entry: Entry, old: int, new: int, event: Event) -> int | None:
        """An entry goes from one value to another; the frame that it maps now and did not before."""
        before, after = (self._frame(entry, value) for value in (old, new))
        if before is None and after is None and old & PRESENT and not new & PRESENT:
            self._drop_table(entry)
        if before == after:
            return None
        if before is not None:
            self._unmake(entry, before)
        if after is not None:
            self._made.setdefault(_block(after, entry.level), {}).setdefault(entry, []).append(event)
            self._in_table.setdefault(entry.table, {})[entry] = after
        return after

    def of(self, frame: int) -> tuple[Entry, Event] | None:
        """An entry that maps a frame, and the line that made it."""
        for level in LEVELS:
            for entry, made in self._made.get(_block(frame, level), {}).items():
                return entry, made[-1]
        return None

    def forget(self, frame: int) -> None:
        """A frame is somebody else's now: what mapped it is gone, though a thread that has no lines may have done that."""
        for level in LEVELS:
            for entry in self._made.pop(_block(frame, level), {}):
                self._in_table.get(entry.table, {}).pop(entry, None)

    def _frame(self, entry: Entry, value: int) -> int | None:
        """The frame that a value maps; None if it maps nothing, or is a table."""
        if not value & PRESENT or (entry.level > 1 and not value & LARGE):
            return None
        return value >> PAGE_SHIFT & FRAMES

    def _unmake(self, entry: Entry, frame: int) -> None:
        """An entry is gone from one root."""
        entries = self._made.get(_block(frame, entry.level), {})
        if entry in entries:
            entries[entry].pop()
            if not entries[entry]:
                del entries[entry]
                self._in_table.get(entry.table, {}).pop(entry, None)

    def _drop_table(self, table: Entry) -> None:
        """A table is gone, and with it what still stands in it."""
        for entry, frame in self._in_table.pop(table, {}).items():
            self._made.get(_block(frame, entry.level), {}).pop(entry, None)


class Stage2:
    """Faults of guests, and the entries they make."""

    def __init__(self, coverage: Coverage, findings: Findings) -> None:
        self.coverage = coverage
        self.broken = findings.broken
        self._bound: list[Bound] = []
        self.entries = Entries()
        # By thread: its guest's fault, and the page that it added last, for that fault if nothing else happened between.
        self._requests: dict[int, Request] = {}
        self._fresh: dict[int, Resident] = {}

    def note(self, event: Event) -> None:
        """A note written to trace_marker, which may tell a binding."""
        if found := NOTE.search(event.fields):
            self._bound.append(Bound(int(found[1], 16), int(found[2], 16), int(found[3], 16)))

    def slots_changed(self) -> None:
        """A slot is set or deleted: notes from before are old."""
        self._bound.clear()

    def something_else(self, pid: int) -> None:
        """A thread enters or leaves the kernel: the page that it added last is not for a guest's fault to come."""
        self._fresh.pop(pid, None)

    def added(self, pfn: int, event: Event) -> None:
        """A page is added to a file.  It counts only where it can be seen that the thread then entered its guest."""
        if "sys_enter_ioctl" in self.coverage.names:
            self._fresh[event.pid] = Resident(pfn, event)

    def requested(self, event: Event, pages: Pages, frames: Frames) -> bool:
        """kvm_mmu_spte_requested; whether its fields can be read."""
        found = REQUESTED.match(event.fields)
        if found is None:
            return False
        request = Request(int(found[1], 16), int(found[2], 16), int(found[3]), event)
        self._requests[event.pid] = request
        frames.lines[request.pfn] += 1
        fresh = self._fresh.pop(event.pid, None)
        if fresh is not None and pages.of(fresh.pfn) is not None and pages.of(request.pfn) is None:
            why = f"the fault added frame {fresh.pfn:#x} and found {request.pfn:#x}, which is in no file"
            self.broken(AS_REQUESTED, why, fresh.event, event)
        return True

    def set(self, event: Event, pages: Pages, frames: Frames) -> bool:
        """kvm_mmu_set_spte; whether its fields can be read."""
        found = SET.match(event.fields)
        if found is None:
            return False
        gfn, pfn, level = int(found[1], 16), int(found[2], 16) >> PAGE_SHIFT & FRAMES, int(found[3])
        frames.lines[pfn] += 1
        request = self._requests.pop(event.pid, None)
        if request is not None and not _same(request, gfn, pfn, level):
            why = f"the fault at gfn {request.gfn:#x} found frame {request.pfn:#x}; the entry is gfn {gfn:#x}, frame {pfn:#x}"
            self.broken(AS_REQUESTED, why, request.event, event)
        elif level == 1:
            self._resident(event, gfn, pfn, pages, frames)
        return True

    def changed(self, event: Event, pages: Pages, frames: Frames) -> bool:
        """kvm_tdp_mmu_spte_changed; whether its fields can be read."""
        found = CHANGED.match(event.fields)
        if found is None:
            return False
        entry = Entry(int(found[1]), int(found[2], 16), int(found[3]))
        pfn = self.entries.changed(entry, int(found[4], 16), int(found[5], 16), event)
        if pfn is not None and entry.level == 1 and "kvm_mmu_set_spte" not in self.coverage.names:
            self._resident(event, entry.gfn, pfn, pages, frames)
        return True

    def removed(self, place: Place, pfn: int, event: Event) -> None:
        """A page is removed from a file: no guest reaches it any more.  What unmapped it has lines if its thread has."""
        if event.pid in self.coverage.followed and (still := self.entries.of(pfn)) is not None:
            why = f"gfn {still[0].gfn:#x} still has frame {pfn:#x}, {called(place)}"
            self.broken(ZAPPED_FIRST, why, still[1], event)

    def _resident(self, event: Event, gfn: int, pfn: int, pages: Pages, frames: Frames) -> None:
        """A stage-2 entry of one page was made: is its frame that of a page in a file?"""
        place = pages.of(pfn)
        expected = self._place(gfn)
        if expected is None:
            if pfn in frames.stale and "mm_page_alloc" in self.coverage.names:
                self.broken(NOT_AFTER, f"frame {pfn:#x} was removed, and nothing allocates it since", frames.stale[pfn], event)
            return
        if place == expected:
            return
        there, where = pages.at(expected), f"gfn {gfn:#x} is {called(expected)}"
        if there is not None:
            self.broken(RESIDENT, f"{where}, which has frame {there.pfn:#x}, not {pfn:#x}", there.event, event)
        elif (gone := pages.removed.get(expected)) is not None:
            self.broken(NOT_AFTER, f"{where}, which was removed", gone, event)
        elif place is not None:
            self.broken(RESIDENT, f"{where}, but frame {pfn:#x} is {called(place)}", pages.line(place), event)
        elif self.coverage.all_of(expected[0]):
            self.broken(RESIDENT, f"{where}, which no line adds", event)
        else:
            pages.put(expected, pfn, event)

    def _place(self, gfn: int) -> Place | None:
        """The page of a file that a note in the trace says is at a gfn."""
        for bound in reversed(self._bound):
            if gfn >= bound.gfn and bound.inode in self.coverage.inodes:
                return self.coverage.inodes[bound.inode], gfn - bound.gfn + bound.first
        return None


def _same(request: Request, gfn: int, pfn: int, level: int) -> bool:
    """Whether an entry is what a fault found; of a block, any page of it."""
    shift = 9 * (request.level - 1)
    return (request.gfn >> shift, request.pfn >> shift, request.level) == (gfn >> shift, pfn >> shift, level)


class Call(NamedTuple):
    """A fallocate that has begun, and what its thread added or removed since."""

    event: Event
    punch: bool
    start: int
    end: int
    pages: list[Page]

    @property
    def rule(self) -> str:
        """The rule that the call keeps."""
        return PUNCHED if self.punch else FILLED


class Calls:
    """System calls by thread, and what fallocate has to do."""

    def __init__(self, coverage: Coverage, findings: Findings) -> None:
        self.coverage = coverage
        self.broken = findings.broken
        self._open: dict[int, Event] = {}
        self._falls: dict[int, Call] = {}
        # Threads that began a call: what one ends that never began one began before the recording.
        self._began: set[int] = set()

    def touched(self, of: Page, event: Event, adding: bool) -> None:
        """A thread adds or removes a page."""
        call = self._falls.get(event.pid)
        if call is not None:
            call.pages.append(of)
            if call.punch is adding or not call.start <= of.first < call.end:
                self.broken(call.rule, "the call does not reach this page", call.event, event)

    def enter(self, event: Event, call: str, stage2: Stage2) -> None:
        """A system call begins."""
        arguments = numbers(event.fields)
        if f"sys_exit_{call}" in self.coverage.names:
            if (before := self._open.get(event.pid)) is not None:
                self.broken(PAIRED, "the call before has not ended", before, event)
            self._open[event.pid] = event
            self._began.add(event.pid)
        if call == "fallocate" and {"mode", "offset", "len"} <= arguments.keys():
            start, size = arguments["offset"] >> PAGE_SHIFT, arguments["len"] >> PAGE_SHIFT
            punch = bool(arguments["mode"] & uapi.FALLOC_FL_PUNCH_HOLE)
            self._falls[event.pid] = Call(event, punch, start, start + size, [])
        elif call == "ioctl" and arguments.get("cmd") in SET_MEMORY:
            stage2.slots_changed()

    def leave(self, event: Event, call: str, pages: Pages) -> None:
        """A system call ends."""
        began = self._open.pop(event.pid, None)
        if f"sys_enter_{call}" in self.coverage.names and event.pid in self._began:
            if began is None:
                self.broken(PAIRED, f"no line begins this {call}", event)
            elif began.name != f"sys_enter_{call}":
                self.broken(PAIRED, f"another call began: no line begins this {call}", began, event)
        done = self._falls.pop(event.pid, None)
        if call != "fallocate" or done is None or event.fields not in ("0x0", "0"):
            return
        for file in {one.file for one in done.pages}:
            if done.punch:
                self._punched(done, file, event, pages)
            else:
                self._filled(done, file, event, pages)

    def _punched(self, done: Call, file: File, event: Event, pages: Pages) -> None:
        """A hole was punched: no page that was there before is left."""
        there = pages.files.get(file, {})
        inside = range(done.start, done.end)
        for index in [i for i in inside if i in there] if len(inside) < len(there) else [i for i in there if i in inside]:
            if there[index].event.line < done.event.line:
                self.broken(PUNCHED, f"{called((file, index))} is still there", done.event, there[index].event, event)

    def _filled(self, done: Call, file: File, event: Event, pages: Pages) -> None:
        """A range was allocated: its first page that is not there was removed while the call ran, or was there before."""
        there = pages.files.get(file, {})
        absent = next((index for index in range(done.start, done.end) if index not in there), None)
        if absent is None:
            return
        gone = pages.removed.get((file, absent))
        why = f"{called((file, absent))} is not there"
        if gone is not None and gone.line < done.event.line:
            self.broken(FILLED, why, gone, done.event, event)
        elif gone is None and self.coverage.all_of(file):
            self.broken(FILLED, why, done.event, event)
