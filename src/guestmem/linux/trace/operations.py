# SPDX-License-Identifier: Apache-2.0
"""What a recorded run did to the pages of a file, as a list of operations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from guestmem.linux.kvm import PUNCH
from guestmem.linux.trace.text import ADDED, PAGE_SHIFT, Event, NoText, numbers, page, parse

__all__ = ["Operation", "Recorded", "operations"]

SPTE = re.compile(r"spte (?:0x)?([0-9a-f]+) ")
FRAMES = (1 << 40) - 1


class Operation(NamedTuple):
    """One thing done to pages start <= pgoff < end.

    ``kind``: "allocate" by the VMM, "guest" touches, "user" touches through the mapping, "punch" a hole.
    """

    kind: str
    start: int
    end: int


class Recorded(NamedTuple):
    """The operations on a file of ``pages`` pages; ``text`` says where they come from."""

    text: str
    pages: int
    operations: list[Operation]


def operations(name: str, lines: Iterable[str]) -> Recorded:
    """The operations on the file that a text of trace events shows most of, its pages numbered without the gaps.

    A page added while the VMM takes a page fault was touched by it; one whose frame a stage-2 entry gets next, by the guest;
    the others were allocated.  Raises :class:`~guestmem.linux.trace.text.NoText` when no page is added to a file.
    """
    events = [event for event in parse(lines) if isinstance(event, Event)]
    added = [(event, new) for event in events if event.name == ADDED and (new := page(event.fields)) is not None]
    if not added:
        raise NoText(f"{name}: no {ADDED} in it: record with that event on, as text")
    counts = Counter(new.file for _, new in added)
    file = max(counts, key=lambda key: counts[key])
    offsets = sorted({new.first for _, new in added if new.file == file})
    dense = {offset: number for number, offset in enumerate(offsets)}
    done: list[Operation] = []
    frames: dict[int, int] = {}
    last: int | None = None
    faulting: set[int] = set()
    for event in events:
        if event.name.startswith("sys_enter_"):
            faulting.discard(event.pid)
        if event.name == ADDED:
            new = page(event.fields)
            if new is not None and new.file == file:
                last = frames[new.pfn] = dense[new.first]
                done.append(Operation("user" if event.pid in faulting else "allocate", last, last + 1))
                faulting.discard(event.pid)
        elif event.name == "kvm_mmu_set_spte" and (entry := SPTE.search(event.fields)):
            mapped = frames.get(int(entry[1], 16) >> PAGE_SHIFT & FRAMES)
            if mapped is not None:
                if mapped == last and done[-1] == Operation("allocate", mapped, mapped + 1):
                    done.pop()
                done.append(Operation("guest", mapped, mapped + 1))
        elif event.name == "sys_enter_fallocate" and (call := numbers(event.fields)).get("mode") == PUNCH:
            if not {"offset", "len"} <= call.keys():
                continue
            first, end = call["offset"] >> PAGE_SHIFT, (call["offset"] + call["len"]) >> PAGE_SHIFT
            hole = [dense[offset] for offset in offsets if first <= offset < end]
            if hole:
                done.append(Operation("punch", hole[0], hole[-1] + 1))
        elif event.name == "page_fault_user":
            faulting.add(event.pid)
    return Recorded(f"{name}: {len(done)} operations on inode {file[1]}", len(offsets), done)
