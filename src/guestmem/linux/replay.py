# SPDX-License-Identifier: Apache-2.0
"""Check a recorded run against what guest_memfd promises, and say what the recording cannot tell.

A recording is redundant: a frame number appears when the page is allocated, added to a file, mapped into a guest,
removed and freed; a struct page has one frame; a call that began ends.  Each rule compares two such lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from guestmem.linux import uapi
from guestmem.linux.ftrace import PAGE_SHIFT, Event, Header, Lost, Page, Unreadable, number, numbers, page, parse

__all__ = ["CANNOT_TELL", "Report", "Violation", "replay"]

ADDED_ONCE = "a page of a file is added once before it is removed"
ONE_FILE = "a frame is in one file at a time"
ALLOCATED = "a frame that is added to a file was allocated for it"
AS_ADDED = "a page is removed with the frame that it was added with"
ONLY_ADDED = "only a page that was added is removed"
NOT_FREED = "a frame in a file is neither freed nor allocated"
AS_REQUESTED = "a stage-2 entry has the frame that its fault found"
RESIDENT = "a stage-2 entry is made only for a page that is resident"
NOT_AFTER = "nothing is mapped into a guest after its page was removed"
PUNCHED = "a punched hole is empty, and nothing else is removed by it"
FILLED = "an allocated range is full, and nothing else is added by it"
PAIRED = "a call that ends began, and one that began ends before the next"
ONE_FRAME = "a struct page has one frame"
IN_ORDER = "time does not go back"
COMPLETE = "every event that the header counts is there"
READABLE = "every line can be read"

CANNOT_TELL = (
    "when a stage-2 entry goes away, except that its page is gone",
    "which memory slots are bound to which ranges of a file, except by a note such as "
    "`gmem ino=0x13d7f, slot gfn 0.. = gmem index 0..`",
    "whether a page was zeroed",
    "what happened to the direct map",
    "who else holds a page",
)
"""What no recording of these events tells."""

MOST = 20
"""Violations that are reported; one fault of a recording may break many lines after it."""


class Violation(NamedTuple):
    """A broken rule, why, and the lines that show it, each with its number; the last line is the one that breaks it."""

    rule: str
    why: str
    lines: tuple[tuple[int, str], ...]


class Report(NamedTuple):
    """What a recording says.

    ``verdict``: "consistent", "violated", or "incomplete" where events were lost.  ``counts`` by what was counted.
    ``cannot_tell``: what this recording leaves open.
    """

    verdict: str
    violations: list[Violation]
    counts: dict[str, int]
    cannot_tell: list[str]


class Kept(NamedTuple):
    """A page that is in a file: its frame, and the line that added it (or told of it)."""

    pfn: int
    event: Event


class Request(NamedTuple):
    """What a guest's fault found: kvm_mmu_spte_requested."""

    gfn: int
    pfn: int
    level: int
    event: Event


class Call(NamedTuple):
    """A fallocate that has begun, and what its thread added or removed since."""

    event: Event
    punch: bool
    start: int
    end: int
    pages: list[Page]


class Bound(NamedTuple):
    """A slot's binding, as a note in the trace has it: gfn first.. is page index.. of a file with this inode."""

    inode: int
    gfn: int
    first: int


File = tuple[str, str]
POINTER = re.compile(r"\b(?:page|folio)=(0x)?(\w+) pfn=(0x[0-9a-f]+|\d+)(?: order=(1?\d)\b)?")
REQUESTED = re.compile(r"gfn (?:0x)?([0-9a-f]+) pfn (?:0x)?([0-9a-f]+) level ([1-5])\b")
SET = re.compile(r"gfn (?:0x)?([0-9a-f]+) spte (?:0x)?([0-9a-f]+) \([^)]*\) level ([1-5])\b")
NOTE = re.compile(r"gmem ino=0x([0-9a-f]+),? slot gfn (?:0x)?([0-9a-f]+)\.\. = gmem index (?:0x)?([0-9a-f]+)\.\.")
ALL_OF = re.compile(r"guestmem record: all of (.*)")
DEVICE = re.compile(r" on (\d+:\d+)")
FILEMAP = ("mm_filemap_add_to_page_cache", "mm_filemap_delete_from_page_cache")
FRAMES = (1 << 40) - 1
SET_MEMORY = {uapi.KVM_SET_USER_MEMORY_REGION, uapi.KVM_SET_USER_MEMORY_REGION2}


def replay(text: Iterable[str]) -> Report:
    """Check the lines of a trace."""
    said = list(parse(text))
    events = [one for one in said if isinstance(one, Event)]
    run = _Run({one.name for one in events})
    for event in events:
        if event.name in FILEMAP and (of := page(event.fields)) is not None:
            run.inodes.setdefault(int(of.file[1], 16), of.file)
    for one in said:
        if isinstance(one, Event):
            run.event(one)
        elif isinstance(one, Header):
            run.header = one
        elif isinstance(one, Lost):
            run.lost = True
        else:
            run.broken(READABLE, "this line is no event: the text is damaged or cut short", one)
    return run.report()


class _Run:
    """The state of the recorded machine as far as the lines so far tell."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.violations: list[Violation] = []
        self.counts = dict.fromkeys(("events", "added", "removed", "stage-2 entries set"), 0)
        self.header: Header | None = None
        self.lost = False
        self.last: Event | None = None
        # Pages by file and index, and where each frame is; the files by inode, for notes.
        self.files: dict[File, dict[int, Kept]] = {}
        self.frames: dict[int, tuple[File, int]] = {}
        self.inodes: dict[int, File] = {}
        # Pages that were removed and are not there; frames that were removed or allocated, and are neither in a file nor freed.
        self.removed: dict[tuple[File, int], Event] = {}
        self.stale: dict[int, Event] = {}
        self.allocated: dict[int, Event] = {}
        # Each struct page by its name, and back.
        self.pointers: dict[str, Kept] = {}
        self.frame_pointers: dict[int, str] = {}
        # By thread: the call it is in, what that is doing if it is fallocate, its guest's fault, the page that it added last.
        self.calls: dict[int, Event] = {}
        self.falls: dict[int, Call] = {}
        self.requests: dict[int, Request] = {}
        self.fresh: dict[int, Kept] = {}
        # Threads that allocated a frame, and those that began a call: what others did before may have no line.
        self.allocators: set[int] = set()
        self.called: set[int] = set()
        # From notes: bindings, and the devices of which the recording has every page.
        self.bound: list[Bound] = []
        self.whole: set[str] = set()
        # Pages from before the recording; the line of the last process's end, and pages that it may have taken along.
        self.earlier = 0
        self.exited = 0
        self.unsure = 0
        # Pages whose frame a second line has named.
        self.confirmed: set[tuple[File, int, int]] = set()
        self.handlers: dict[str, Callable[[Event], None]] = {
            "mm_filemap_add_to_page_cache": self.add,
            "mm_filemap_delete_from_page_cache": self.delete,
            "mm_page_alloc": self.alloc,
            "mm_page_free": self.free,
            "mm_lru_insertion": self.pointer,
            "mm_page_free_batched": self.pointer,
            "kvm_mmu_spte_requested": self.requested,
            "kvm_mmu_set_spte": self.set_spte,
            "tracing_mark_write": self.note,
            "print": self.note,
            "sched_process_exit": self.exit,
        }

    def broken(self, rule: str, why: str, *lines: Event | Header | Unreadable) -> None:
        """Note a violation."""
        if len(self.violations) < MOST:
            self.violations.append(Violation(rule, why, tuple((one.line, one.text) for one in lines)))

    def event(self, event: Event) -> None:
        """Check one event."""
        self.counts["events"] += 1
        if self.last is not None and event.time < self.last.time:
            self.broken(IN_ORDER, "it is earlier than the line before", self.last, event)
        self.last = event
        name = event.name
        if name.startswith(("sys_enter_", "sys_exit_", "page_fault_")):
            self.fresh.pop(event.pid, None)
        if name.startswith("sys_enter_"):
            self.enter(event, name.removeprefix("sys_enter_"))
        elif name.startswith("sys_exit_"):
            self.leave(event, name.removeprefix("sys_exit_"))
        elif name in self.handlers:
            self.handlers[name](event)

    def unreadable(self, event: Event) -> None:
        """A known event has fields of another form."""
        self.broken(READABLE, f"the fields of {event.name} are not as the kernel prints them", event)

    # ---- pages of files

    def watched(self, file: File) -> bool:
        """Whether a file may be a guest_memfd or a memfd_secret: other files' pages come and go without their processes."""
        return file[0] in self.whole if self.whole else file[0].startswith("0:")

    def add(self, event: Event) -> None:
        """mm_filemap_add_to_page_cache."""
        new = page(event.fields)
        if new is None:
            self.unreadable(event)
            return
        if not self.watched(new.file):
            return
        self.counts["added"] += new.pages
        pages = self.files.setdefault(new.file, {})
        for at in range(new.pages):
            index, pfn = new.first + at, new.pfn + at
            if (old := pages.get(index)) is not None:
                self.broken(ADDED_ONCE, f"page {index:#x} of inode {new.file[1]} is there already", old.event, event)
                self.frames.pop(old.pfn, None)
            if (holder := self.holder(pfn)) is not None:
                there = self.files[holder[0]].pop(holder[1])
                why = f"frame {pfn:#x} is page {holder[1]:#x} of inode {holder[0][1]} already"
                self.broken(ONE_FILE, why, there.event, event)
            if event.pid in self.allocators:
                if self.allocated.pop(pfn, None) is None:
                    self.broken(ALLOCATED, f"no line allocates frame {pfn:#x} before", event)
                else:
                    self.confirmed.add((new.file, index, pfn))
            pages[index] = Kept(pfn, event)
            self.frames[pfn] = (new.file, index)
            self.removed.pop((new.file, index), None)
            self.stale.pop(pfn, None)
        self.fresh[event.pid] = Kept(new.pfn, event)
        if (call := self.falls.get(event.pid)) is not None:
            call.pages.append(new)
            if call.punch or not call.start <= new.first < call.end:
                self.broken(PUNCHED if call.punch else FILLED, "the call does not reach this page", call.event, event)

    def delete(self, event: Event) -> None:
        """mm_filemap_delete_from_page_cache."""
        old = page(event.fields)
        if old is None:
            self.unreadable(event)
            return
        if not self.watched(old.file):
            return
        self.counts["removed"] += old.pages
        pages = self.files.setdefault(old.file, {})
        for at in range(old.pages):
            index, pfn = old.first + at, old.pfn + at
            kept = pages.pop(index, None)
            if kept is None:
                self.not_added(event, old.file, index, pfn)
            else:
                self.frames.pop(kept.pfn, None)
                self.confirmed.discard((old.file, index, kept.pfn))
                if kept.pfn != pfn:
                    why = f"page {index:#x} of inode {old.file[1]} has frame {kept.pfn:#x}, not {pfn:#x}"
                    self.broken(AS_ADDED, why, kept.event, event)
            self.removed[old.file, index] = self.stale[pfn] = event
            self.allocated.pop(pfn, None)
        if (call := self.falls.get(event.pid)) is not None:
            call.pages.append(old)
            if not call.punch or not call.start <= old.first < call.end:
                self.broken(PUNCHED if call.punch else FILLED, "the call does not reach this page", call.event, event)

    def not_added(self, event: Event, file: File, index: int, pfn: int) -> None:
        """A page is removed that no line added: it was there before the recording, if that can be."""
        where = f"page {index:#x} of inode {file[1]}"
        if (gone := self.removed.get((file, index))) is not None:
            self.broken(ONLY_ADDED, f"{where} was removed before, and no line adds it since", gone, event)
        elif file[0] in self.whole:
            self.broken(ONLY_ADDED, f"no line adds {where}, and the recording has all of device {file[0]}", event)
        elif (holder := self.frames.get(pfn)) is not None:
            there = self.files[holder[0]][holder[1]]
            why = f"frame {pfn:#x} is page {holder[1]:#x} of inode {holder[0][1]}, not {where}"
            self.broken(AS_ADDED, why, there.event, event)
        elif pfn in self.allocated:
            self.broken(ONLY_ADDED, f"frame {pfn:#x} was allocated and never added as {where}", self.allocated[pfn], event)
        else:
            self.earlier += 1

    # ---- frames

    def pointer(self, event: Event) -> None:
        """Any line that names a struct page and its frame."""
        self.pointed(event)

    def pointed(self, event: Event) -> range:
        """The frames that a line with a struct page names."""
        found = POINTER.search(event.fields)
        if found is None or not found[2].strip("0"):
            return range(0)
        name, pfn = found[2], number(found[3])
        known = self.pointers.setdefault(name, Kept(pfn, event))
        other = self.frame_pointers.setdefault(pfn, name)
        if known.pfn != pfn:
            self.broken(ONE_FRAME, f"page {name} is frame {known.pfn:#x}, not {pfn:#x}", known.event, event)
        elif other != name:
            why = f"frame {pfn:#x} is page {other}, not {name}"
            self.broken(ONE_FRAME, why, self.pointers[other].event, event)
        return range(pfn, pfn + (1 << int(found[4] or 0)))

    def alloc(self, event: Event) -> None:
        """mm_page_alloc."""
        self.allocators.add(event.pid)
        self.moved(event, "allocated")

    def free(self, event: Event) -> None:
        """mm_page_free."""
        self.moved(event, "freed")

    def moved(self, event: Event, how: str) -> None:
        """Frames go from or to the allocator."""
        for pfn in self.pointed(event):
            if (holder := self.holder(pfn)) is not None:
                there = self.files[holder[0]][holder[1]]
                why = f"frame {pfn:#x} is {how} while it is page {holder[1]:#x} of inode {holder[0][1]}"
                self.broken(NOT_FREED, why, there.event, event)
            if how == "allocated":
                self.allocated[pfn] = event
                self.stale.pop(pfn, None)
            else:
                self.allocated.pop(pfn, None)

    def exit(self, event: Event) -> None:
        """sched_process_exit: what the process does after it, as closing its files, may not be recorded."""
        self.exited = event.line

    def holder(self, pfn: int) -> tuple[File, int] | None:
        """The page of a file that a frame is; forgotten if a process that ended since may have closed the file."""
        place = self.frames.get(pfn)
        if place is None or self.files[place[0]][place[1]].event.line > self.exited:
            return place
        del self.files[place[0]][place[1]], self.frames[pfn]
        self.unsure += 1
        return None

    # ---- stage 2

    def requested(self, event: Event) -> None:
        """kvm_mmu_spte_requested."""
        found = REQUESTED.match(event.fields)
        if found is None:
            self.unreadable(event)
            return
        request = Request(int(found[1], 16), int(found[2], 16), int(found[3]), event)
        self.requests[event.pid] = request
        fresh = self.fresh.pop(event.pid, None)
        if fresh is not None and fresh.pfn in self.frames and request.pfn not in self.frames:
            why = f"the fault added frame {fresh.pfn:#x} and found {request.pfn:#x}, which is in no file"
            self.broken(AS_REQUESTED, why, fresh.event, event)

    def set_spte(self, event: Event) -> None:
        """kvm_mmu_set_spte."""
        found = SET.match(event.fields)
        if found is None:
            self.unreadable(event)
            return
        gfn, pfn, level = int(found[1], 16), int(found[2], 16) >> PAGE_SHIFT & FRAMES, int(found[3])
        self.counts["stage-2 entries set"] += 1
        request = self.requests.pop(event.pid, None)
        if request is not None:
            shift = 9 * (request.level - 1)
            if (request.gfn >> shift, request.pfn >> shift, request.level) != (gfn >> shift, pfn >> shift, level):
                why = f"the fault at gfn {request.gfn:#x} found frame {request.pfn:#x}; the entry is gfn {gfn:#x}, frame {pfn:#x}"
                self.broken(AS_REQUESTED, why, request.event, event)
                return
        if level == 1:
            self.resident(event, gfn, pfn)

    def resident(self, event: Event, gfn: int, pfn: int) -> None:
        """A stage-2 entry of one page was made: is its frame that of a page in a file?"""
        place = self.frames.get(pfn)
        if place is not None:
            self.confirmed.add((*place, pfn))
        expected = self.place(gfn)
        if expected is None:
            if pfn in self.stale and "mm_page_alloc" in self.names:
                self.broken(NOT_AFTER, f"frame {pfn:#x} was removed, and nothing allocates it since", self.stale[pfn], event)
            return
        file, index = expected
        if place == expected:
            return
        kept = self.files.setdefault(file, {}).get(index)
        where = f"gfn {gfn:#x} is page {index:#x} of inode {file[1]}"
        if kept is not None:
            self.broken(RESIDENT, f"{where}, which has frame {kept.pfn:#x}, not {pfn:#x}", kept.event, event)
        elif (gone := self.removed.get((file, index))) is not None:
            self.broken(NOT_AFTER, f"{where}, which was removed", gone, event)
        elif place is not None:
            there = self.files[place[0]][place[1]]
            self.broken(RESIDENT, f"{where}, but frame {pfn:#x} is page {place[1]:#x}", there.event, event)
        elif file[0] in self.whole:
            self.broken(RESIDENT, f"{where}, which no line adds", event)
        else:
            self.files[file][index] = Kept(pfn, event)
            self.frames[pfn] = expected

    def place(self, gfn: int) -> tuple[File, int] | None:
        """The page of a file that a note in the trace says is at a gfn."""
        for bound in reversed(self.bound):
            if gfn >= bound.gfn and bound.inode in self.inodes:
                return self.inodes[bound.inode], gfn - bound.gfn + bound.first
        return None

    def note(self, event: Event) -> None:
        """A note written to trace_marker."""
        if found := NOTE.search(event.fields):
            self.bound.append(Bound(int(found[1], 16), int(found[2], 16), int(found[3], 16)))
        elif found := ALL_OF.search(event.fields):
            self.whole = set(DEVICE.findall(found[1]))

    # ---- calls

    def enter(self, event: Event, call: str) -> None:
        """A system call begins."""
        arguments = numbers(event.fields)
        if f"sys_exit_{call}" in self.names:
            if (open_call := self.calls.get(event.pid)) is not None:
                self.broken(PAIRED, "the call before has not ended", open_call, event)
            self.calls[event.pid] = event
            self.called.add(event.pid)
        if call == "fallocate" and {"mode", "offset", "len"} <= arguments.keys():
            start, size = arguments["offset"] >> PAGE_SHIFT, arguments["len"] >> PAGE_SHIFT
            punch = bool(arguments["mode"] & uapi.FALLOC_FL_PUNCH_HOLE)
            self.falls[event.pid] = Call(event, punch, start, start + size, [])
        elif call == "ioctl" and arguments.get("cmd") in SET_MEMORY:
            self.bound.clear()

    def leave(self, event: Event, call: str) -> None:
        """A system call ends."""
        began = self.calls.pop(event.pid, None)
        if f"sys_enter_{call}" in self.names and event.pid in self.called:
            if began is None:
                self.broken(PAIRED, f"no line begins this {call}", event)
            elif began.name != f"sys_enter_{call}":
                self.broken(PAIRED, f"another call began: no line begins this {call}", began, event)
        done = self.falls.pop(event.pid, None)
        if call != "fallocate" or done is None or event.fields not in ("0x0", "0"):
            return
        for file in {one.file for one in done.pages}:
            if done.punch:
                self.punched(done, file, event)
            else:
                self.filled(done, file, event)

    def punched(self, done: Call, file: File, event: Event) -> None:
        """A hole was punched: no page that was there before is left."""
        pages = self.files[file]
        inside = range(done.start, done.end)
        for index in [i for i in inside if i in pages] if len(inside) < len(pages) else [i for i in pages if i in inside]:
            if pages[index].event.line < done.event.line:
                why = f"page {index:#x} of inode {file[1]} is still there"
                self.broken(PUNCHED, why, done.event, pages[index].event, event)

    def filled(self, done: Call, file: File, event: Event) -> None:
        """A range was allocated: its first page that is not there was removed while the call ran, or was there before."""
        pages = self.files[file]
        absent = next((index for index in range(done.start, done.end) if index not in pages), None)
        if absent is None:
            return
        gone = self.removed.get((file, absent))
        why = f"page {absent:#x} of inode {file[1]} is not there"
        if gone is not None and gone.line < done.event.line:
            self.broken(FILLED, why, gone, done.event, event)
        elif gone is None and file[0] in self.whole:
            self.broken(FILLED, why, done.event, event)

    # ---- the end

    def report(self) -> Report:
        """The verdict."""
        if self.header is not None:
            if self.header.kept != self.counts["events"] and not self.lost:
                why = f"the header counts {self.header.kept} events, {self.counts['events']} are here"
                self.violations.insert(0, Violation(COMPLETE, why, ((self.header.line, self.header.text),)))
            self.lost |= self.header.kept < self.header.written
        resident = sum(len(pages) for pages in self.files.values())
        self.counts["files"] = len(self.files)
        self.counts["resident at the end"] = resident
        verdict = "incomplete" if self.lost else "violated" if self.violations else "consistent"
        return Report(verdict, self.violations, self.counts, [*self.open_questions(resident), *CANNOT_TELL])

    def open_questions(self, resident: int) -> Iterable[str]:
        """What this recording leaves open, and another would tell."""
        if self.header is None:
            yield "whether lines are missing: there is no header that counts the events"
        if "mm_page_alloc" not in self.names:
            yield "whether frames were free when they were added: mm_page_alloc was not recorded"
        if "kvm_mmu_set_spte" not in self.names:
            yield "what was mapped into a guest: kvm_mmu_set_spte was not recorded, or no guest ran"
        if self.earlier:
            yield f"how {self.earlier} pages came into their files: they were there before the recording"
        once = sum((file, i, kept.pfn) not in self.confirmed for file, pages in self.files.items() for i, kept in pages.items())
        if once:
            yield f"whether {once} frame numbers are right: the recording ends before those pages are removed"
        if self.exited and self.unsure + resident:
            yield f"how {self.unsure + resident} pages left their files: a process that ends is not followed to the end"
        elif resident:
            yield f"what becomes of {resident} pages that are resident at the end"


def as_json(name: str, report: Report) -> dict[str, Any]:
    """A report as one object."""
    return {
        "schema": 1,
        "file": name,
        "verdict": report.verdict,
        "violations": [
            {"rule": v.rule, "why": v.why, "lines": [{"line": n, "text": text} for n, text in v.lines]} for v in report.violations
        ],
        "counts": report.counts,
        "cannot_tell": report.cannot_tell,
    }


def as_text(name: str, report: Report) -> Iterable[str]:
    """A report as lines."""
    said = "incomplete: events were lost" if report.verdict == "incomplete" else report.verdict
    yield f"{name}: {said}"
    yield "  " + ", ".join(f"{count} {what}" for what, count in report.counts.items())
    for violation in report.violations:
        yield f"  broken: {violation.rule}: {violation.why}"
        for at, text in violation.lines:
            yield f"    line {at}: {text.strip()}"
    yield "  the recording cannot tell"
    for what in report.cannot_tell:
        yield f"    {what}"
