# SPDX-License-Identifier: Apache-2.0
"""What a workload costs under a protection: the library run as ordinary Python, its work counted.

A workload is a list of operations, made up (``boot``) or read from a recorded run of a real kernel (``from_trace``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from guestmem.linux.ftrace import PAGE_SHIFT, Event, numbers, page, parse
from guestmem.linux.uapi import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
from guestmem.machine.guest import Gfn
from guestmem.machine.machine import Fault
from guestmem.mm.filemap import Pgoff, user_access
from guestmem.model import Refused
from guestmem.model.control import Alone, running
from guestmem.scenarios.cast import Cast
from guestmem.scenarios.catalogue import Scenario

__all__ = ["Operation", "Workload", "boot", "from_trace", "price"]

#: Block entries of the direct map are for 2M, as those of a kernel in use mostly are.
BLOCK = 9


class Operation(NamedTuple):
    """One thing done to pages start <= pgoff < end.

    ``kind``: "allocate" by the VMM, "guest" touches, "user" touches through the mapping, "share" and "private" are
    conversions the guest asked for, "punch" a hole.
    """

    kind: str
    start: int
    end: int


class Workload(NamedTuple):
    """Operations on a file of ``pages`` pages; ``text`` says where they come from."""

    text: str
    pages: int
    operations: Sequence[Operation]


def boot(pages: int = 128) -> Workload:
    """A small guest boots: image loaded, memory touched, an I/O buffer shared and taken back, some ballooned away."""
    image, buffer = pages // 4, pages // 16
    operations = [Operation("allocate", 0, image)]
    operations += [Operation("guest", p, p + 1) for p in range(pages)]
    operations.append(Operation("share", image, image + buffer))
    operations += [Operation("user", p, p + 1) for p in range(image, image + buffer)]
    operations.append(Operation("private", image, image + buffer))
    operations += [Operation("guest", p, p + 1) for p in range(image, image + buffer)]
    operations.append(Operation("punch", pages - buffer, pages))
    return Workload(f"built-in boot of a guest with {pages} pages", pages, operations)


ADDED = "mm_filemap_add_to_page_cache"
SPTE = re.compile(r"spte (?:0x)?([0-9a-f]+) ")
FRAMES = (1 << 40) - 1
PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


def from_trace(name: str, lines: Iterable[str]) -> Workload:
    """The operations on the file that a text of trace events shows most of, its pages numbered without the gaps.

    A page added while the VMM takes a page fault was touched by it; one whose frame a stage-2 entry gets next, by the guest;
    the others were allocated.  Raises :class:`Refused` when the text shows no page added to a file.
    """
    events = [event for event in parse(lines) if isinstance(event, Event)]
    added = [(event, new) for event in events if event.name == ADDED and (new := page(event.fields)) is not None]
    if not added:
        raise Refused(name, "no mm_filemap_add_to_page_cache in it", "record with that event on, as text")
    counts = Counter(new.file for _, new in added)
    file = max(counts, key=lambda key: counts[key])
    offsets = sorted({new.first for _, new in added if new.file == file})
    dense = {offset: number for number, offset in enumerate(offsets)}
    operations: list[Operation] = []
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
                operations.append(Operation("user" if event.pid in faulting else "allocate", last, last + 1))
                faulting.discard(event.pid)
        elif event.name == "kvm_mmu_set_spte" and (entry := SPTE.search(event.fields)):
            mapped = frames.get(int(entry[1], 16) >> PAGE_SHIFT & FRAMES)
            if mapped is not None:
                if mapped == last and operations[-1] == Operation("allocate", mapped, mapped + 1):
                    operations.pop()
                operations.append(Operation("guest", mapped, mapped + 1))
        elif event.name == "sys_enter_fallocate" and (call := numbers(event.fields)).get("mode") == PUNCH_HOLE:
            if not {"offset", "len"} <= call.keys():
                continue
            first, end = call["offset"] >> PAGE_SHIFT, (call["offset"] + call["len"]) >> PAGE_SHIFT
            hole = [dense[offset] for offset in offsets if first <= offset < end]
            if hole:
                operations.append(Operation("punch", hole[0], hole[-1] + 1))
        elif event.name == "page_fault_user":
            faulting.add(event.pid)
    return Workload(f"{name}: {len(operations)} operations on inode {file[1]}", len(offsets), operations)


class _Plain(Alone):
    """Nothing fails, and the allocator hands out the next free frame."""

    def __init__(self, world: Cast) -> None:
        super().__init__()
        self.folios = world.kernel.folios
        self.last = 0

    def choose(self, n: int, label: str) -> int:
        if label != "frame":
            return 0
        while not self.folios[self.last].free:
            self.last = (self.last + 1) % n
        return self.last


def price(scenario: Scenario, protection: object, arch: object, workload: Workload) -> dict[str, int]:
    """What a workload costs, by kind of work; "refused" counts operations that the driver did not allow."""
    pages = workload.pages
    world = scenario.build(protection=protection, arch=arch, pages=pages, frames=pages + 2, block=BLOCK, table=BLOCK)
    assert isinstance(world, Cast)
    runner = _Plain(world)
    refused = 0
    with running(runner):
        _begin(world, any(op.kind == "user" for op in workload.operations[:1]))
        for operation in workload.operations:
            refused += _perform(world, operation) != 0
        guest = world.machine.guests[0]
        world.machine.hypervisor.vm_stop(guest)
        refused += world.file.unbind(guest) != 0
        world.file.release()
    costs = {kind.name.lower(): n for kind, n in runner.costs.items()}
    if refused:
        costs["refused"] = refused
    return dict(sorted(costs.items()))


def _begin(world: Cast, shared: bool) -> None:
    """Create the file, all shared if its VMM uses it first, and start the VM."""
    world.file.create()
    if shared:
        world.file.convert(0, len(world.file.shared), True)
    guest = world.machine.guests[0]
    world.file.bind(guest, 0, len(world.file.bound))
    guest.running = True


def _perform(world: Cast, operation: Operation) -> int:
    """Do one operation as the cast would; its errno."""
    kind, start, end = operation
    file, guest, cpu = world.file, world.machine.guests[0], world.machine.cpus[0]
    if kind == "allocate":
        return file.allocate(cpu, start, end)
    if kind == "user":
        if user_access(world.machine, file.mapping, Pgoff(start), write=True) is not Fault.TRANSLATION:
            return 0
        return file.fault(cpu, Pgoff(start))
    if kind == "guest":
        gfn = Gfn(start)
        err = 0
        if not guest.touch(gfn):
            err = file.guest_fault(cpu, guest, gfn)
            guest.exited -= 1
            if err == 0:
                guest.touch(gfn)
        return err
    if kind in ("share", "punch"):
        for page in range(start, end):
            world.give(guest, Gfn(page))
    if kind == "punch":
        return file.punch_hole(start, end)
    err, _ = file.convert(start, end, kind == "share")
    if err == 0 and kind == "private":
        for page in range(start, end):
            guest.gave[page] = False
            world.keep(guest, Gfn(page))
    return err
