# SPDX-License-Identifier: Apache-2.0
"""Check a recorded run against what guest_memfd promises, and say what the recording cannot tell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from guestmem.linux.trace.rules import (
    COMPLETE,
    IN_ORDER,
    READABLE,
    Calls,
    Coverage,
    File,
    Findings,
    Frames,
    Pages,
    Stage2,
    Violation,
)
from guestmem.linux.trace.text import ADDED, REMOVED, Event, Header, Lost, page, parse

__all__ = ["CANNOT_TELL", "Report", "Violation", "replay"]

CANNOT_TELL = (
    "which memory slots are bound to which ranges of a file, except by a note such as "
    "`gmem ino=0x13d7f, slot gfn 0.. = gmem index 0..`",
    "whether a page was zeroed",
    "what happened to the direct map",
    "who else holds a page",
)
"""What no recording of these events tells."""

ALL_OF = re.compile(r"guestmem record: all of (.*)")
DEVICE = re.compile(r" on (\d+:\d+)")
INODE = re.compile(r"\b[0-9a-f]+\b")
NOTES = ("tracing_mark_write", "print")
POINTERS = ("mm_lru_insertion", "mm_page_free_batched")


class Report(NamedTuple):
    """What a recording says.

    ``verdict``: "consistent", "violated", or "incomplete" where events were lost, or there is nothing to check; ``why``
    says which.  ``violations``: the first ones of ``broken``.  ``counts`` by what was counted.  ``cannot_tell``: what
    this recording leaves open.
    """

    verdict: str
    why: str
    violations: list[Violation]
    broken: int
    counts: dict[str, int]
    cannot_tell: list[str]


def replay(text: Sequence[str]) -> Report:
    """Check the lines of a trace: once to see what it covers, once line by line."""
    run = _Run(_coverage(one for one in parse(text) if isinstance(one, Event)))
    for one in parse(text):
        if isinstance(one, Event):
            run.event(one)
        elif isinstance(one, Header):
            run.header = one
        elif isinstance(one, Lost):
            run.lost = True
        else:
            run.findings.broken(READABLE, "this line is no event: the text is damaged or cut short", one)
    return run.report()


def _coverage(events: Iterable[Event]) -> Coverage:
    """What kind of recording this is."""
    names: set[str] = set()
    followed: set[int] = set()
    whole: set[str] = set()
    older: set[str] = set()
    added: set[File] = set()
    inodes: dict[int, File] = {}
    for event in events:
        names.add(event.name)
        if event.name not in (ADDED, REMOVED, *NOTES):
            followed.add(event.pid)
        if event.name in NOTES and (found := ALL_OF.search(event.fields)):
            whole.update(DEVICE.findall(found[1]))
            older.update(INODE.findall(found[1].partition("but for")[2]))
        elif event.name in (ADDED, REMOVED) and (of := page(event.fields)) is not None:
            inodes.setdefault(int(of.file[1], 16), of.file)
            if event.name == ADDED:
                added.add(of.file)
    return Coverage(names, whole, older, added, inodes, followed)


class _Run:
    """The recorded machine as far as the lines so far tell."""

    def __init__(self, coverage: Coverage) -> None:
        self.coverage = coverage
        self.findings = Findings()
        self.pages = Pages(coverage, self.findings)
        self.frames = Frames(self.findings)
        self.stage2 = Stage2(coverage, self.findings)
        self.calls = Calls(coverage, self.findings)
        self.counts = dict.fromkeys(("events", "added", "removed", "stage-2 entries set"), 0)
        self.header: Header | None = None
        self.lost = False
        self.last: Event | None = None

    def event(self, event: Event) -> None:
        """Check one event."""
        self.counts["events"] += 1
        if self.last is not None and event.time < self.last.time:
            self.findings.broken(IN_ORDER, "it is earlier than the line before", self.last, event)
        self.last = event
        name = event.name
        if name.startswith(("sys_enter_", "sys_exit_", "page_fault_")):
            self.stage2.something_else(event.pid)
        if name.startswith("sys_enter_"):
            self.calls.enter(event, name.removeprefix("sys_enter_"), self.stage2)
        elif name.startswith("sys_exit_"):
            self.calls.leave(event, name.removeprefix("sys_exit_"), self.pages)
        elif name in (ADDED, REMOVED):
            self.read(event, self.page(event))
        elif name == "mm_page_alloc":
            self.frames.alloc(event, self.pages)
        elif name == "mm_page_free":
            self.frames.free(event, self.pages)
        elif name in POINTERS:
            self.frames.pointed(event)
        elif name == "kvm_mmu_spte_requested":
            self.read(event, self.stage2.requested(event, self.pages, self.frames))
        elif name == "kvm_mmu_set_spte":
            self.counts["stage-2 entries set"] += 1
            self.read(event, self.stage2.set(event, self.pages, self.frames))
        elif name == "kvm_tdp_mmu_spte_changed":
            self.counts["stage-2 entries changed"] = self.counts.get("stage-2 entries changed", 0) + 1
            self.read(event, self.stage2.changed(event, self.pages, self.frames))
        elif name in NOTES:
            self.stage2.note(event)
        elif name == "sched_process_exit":
            self.pages.exit(event)

    def read(self, event: Event, good: bool) -> None:
        """A known event has fields; ``good``: of its form."""
        if not good:
            self.findings.broken(READABLE, f"the fields of {event.name} are not as the kernel prints them", event)

    def page(self, event: Event) -> bool:
        """Pages are added to a file or removed; whether the fields can be read."""
        of = page(event.fields)
        if of is None or not self.coverage.watched(of.file):
            return of is not None
        adding = event.name == ADDED
        self.counts["added" if adding else "removed"] += of.pages
        self.frames.lines[of.pfn] += 1
        for at in range(of.pages):
            place, pfn = (of.file, of.first + at), of.pfn + at
            if adding:
                self.pages.add(place, pfn, event)
                self.frames.add(pfn, event)
                self.stage2.entries.forget(pfn)
            else:
                self.pages.delete(place, pfn, event, self.frames)
                self.stage2.removed(place, pfn, event)
                self.frames.delete(pfn, event)
        if adding:
            self.stage2.added(of.pfn, event)
        self.calls.touched(of, event, adding)
        return True

    def report(self) -> Report:
        """The verdict."""
        if self.header is not None:
            if self.header.kept != self.counts["events"] and not self.lost:
                why = f"the header counts {self.header.kept} events, {self.counts['events']} are here"
                self.findings.broken(COMPLETE, why, self.header, first=True)
            self.lost |= self.header.kept < self.header.written
        verdict, why = "violated" if self.findings.count else "consistent", ""
        if self.lost:
            verdict, why = "incomplete", "events were lost"
        elif verdict == "consistent" and not any(count for what, count in self.counts.items() if what != "events"):
            verdict, why = "incomplete", "no page came or went, and no stage-2 entry was made: there is nothing to check"
        self.counts["files"] = len(self.pages.files)
        self.counts["resident at the end"] = sum(self.pages.resident())
        violations = self.findings.kept if verdict == "violated" else []
        broken = self.findings.count if verdict == "violated" else 0
        return Report(verdict, why, violations, broken, self.counts, [*self.open_questions(), *CANNOT_TELL])

    def open_questions(self) -> Iterable[str]:
        """What this recording leaves open, and another would tell."""
        if self.header is None:
            yield "whether lines are missing: there is no header that counts the events"
        if "mm_page_alloc" not in self.coverage.names:
            yield "whether frames were free when they were added: mm_page_alloc was not recorded"
        if "kvm_mmu_set_spte" not in self.coverage.names:
            yield "what was mapped into a guest: kvm_mmu_set_spte was not recorded, or no guest ran"
        if "kvm_tdp_mmu_spte_changed" not in self.coverage.names:
            yield "when a stage-2 entry goes away, except that its page is gone: kvm_tdp_mmu_spte_changed has no line"
        if self.pages.earlier:
            yield f"how {self.pages.earlier} pages came into their files: they were there before the recording"
        if once := sum(lines == 1 for lines in self.frames.lines.values()):
            yield f"whether {once} frame numbers are right: one line alone has them"
        whole, other = self.pages.resident()
        if self.pages.some_process_ended and self.pages.left + other:
            left = self.pages.left + other
            yield f"how {left} pages left their files: a process ended, and what it does then may have no line"
            other = 0
        if whole + other:
            yield f"what becomes of {whole + other} pages that are resident at the end"


def as_json(name: str, report: Report) -> dict[str, Any]:
    """A report as one object."""
    return {
        "schema": 1,
        "file": name,
        "verdict": report.verdict,
        "why": report.why,
        "broken": report.broken,
        "violations": [
            {"rule": v.rule, "why": v.why, "lines": [{"line": n, "text": text} for n, text in v.lines]} for v in report.violations
        ],
        "counts": report.counts,
        "cannot_tell": report.cannot_tell,
    }


def as_text(name: str, report: Report) -> Iterable[str]:
    """A report as lines."""
    yield f"{name}: {report.verdict}" + (f": {report.why}" if report.why else "")
    yield "  " + ", ".join(f"{count} {what}" for what, count in report.counts.items())
    for violation in report.violations:
        yield f"  broken: {violation.rule}: {violation.why}"
        for at, text in violation.lines:
            yield f"    line {at}: {text.strip()}"
    if report.broken > len(report.violations):
        yield f"  and {report.broken - len(report.violations)} more"
    yield "  the recording cannot tell"
    for what in report.cannot_tell:
        yield f"    {what}"
