# SPDX-License-Identifier: Apache-2.0
"""One trace of two: of the processes that are followed, and of the pages of their files whoever moved them."""

from __future__ import annotations

import bisect
import re
from collections import Counter

from guestmem.linux.trace.text import ADDED, REMOVED, Event, Page, page, parse, split

__all__ = ["merge"]


def merge(text: str, pages: str) -> str:
    """The trace of processes, with what only the trace of pages has of the same files; the header counts them all.

    Each instance takes its own time of an event.  So the events of a thread are matched by their order: what the trace
    of processes lacks is what threads did that are not followed.
    """
    lines = split(text)
    said = [one for one in parse(lines) if isinstance(one, Event)]
    known = Counter((one.pid, one.name, one.fields) for one in said)
    files = {of.file for one in said if (of := _page(one)) is not None}
    more = []
    for one in parse(split(pages)):
        if isinstance(one, Event) and (of := _page(one)) is not None and of.file in files:
            if known[one.pid, one.name, one.fields]:
                known[one.pid, one.name, one.fields] -= 1
            else:
                more.append(one)
    times = [one.time for one in said]
    merged = lines[: said[0].line - 1] if said else lines
    at = len(merged)
    for one in more:
        place = bisect.bisect_right(times, one.time)
        until = said[place].line - 1 if place < len(said) else len(lines)
        merged += [*lines[at:until], one.text + "\n"]
        at = until
    merged += lines[at:]
    if more:
        for number, line in enumerate(merged):
            if line.startswith("# entries-in-buffer/entries-written:"):
                total = len(said) + len(more)
                merged[number] = re.sub(r"\d+/\d+", f"{total}/{total}", line, count=1)
                break
    return "".join(merged)


def _page(event: Event) -> Page | None:
    return page(event.fields) if event.name in (ADDED, REMOVED) else None
