# SPDX-License-Identifier: Apache-2.0
"""Counterexamples on KVM as programs for syzkaller: each call of the library is the system call that leads to it.

The language is that of syzkaller's docs/program_syntax.md.  What no system call does, as an access that nobody asked for,
stands as a comment where it comes; calls that another one comes into are ``(async)``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from guestmem.checker.trace import counterexample, shown
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import Gunyah
from guestmem.linux import uapi
from guestmem.linux.kvm import KVM_SET_MEMORY_ATTRIBUTES2
from guestmem.machine.guest import Guest
from guestmem.machine.machine import Fault
from guestmem.mm import filemap
from guestmem.model import Refused, World
from guestmem.model.schedule import Schedule, Slice
from guestmem.scenarios.host import GuestMemory

__all__ = ["program"]

PAGE = 0x1000
MAPPING = 0x7F0000800000  # where the VMM has the file
ARGUMENTS = 0x7F0000000000
NAME, NO_NAME = r"'/dev/kvm\x00'", r"'\x00'"
ACCESS = "user_access"
WATCHED = {
    "create": GuestMemfd,
    "bind": GuestMemfd,
    "unbind": GuestMemfd,
    "convert": GuestMemfd,
    "punch_hole": GuestMemfd,
    "allocate": GuestMemfd,
    "fault": GuestMemfd,
    "guest_fault": GuestMemfd,
    "release": GuestMemfd,
    "touch": Guest,
    "gup_fast": filemap.Pin,
}


@dataclass
class Call:
    """A call of the library: its thread, the step at which it began, that at which it returned, what it gave."""

    thread: int
    name: str
    given: Mapping[str, Any]
    begin: int
    end: int
    result: Any = None


class _Recorder:
    """Notes calls of the functions watched while a trace is replayed; not those that they make themselves."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.step = self.thread = 0
        self._open: dict[int, tuple[FrameType, Call]] = {}

    def __call__(self, frame: FrameType, event: str, result: Any) -> None:
        name = frame.f_code.co_name
        if event == "call" and self.thread not in self._open and self._watched(name, frame):
            call = Call(self.thread, name, dict(frame.f_locals), self.step, 1 << 30)
            self.calls.append(call)
            self._open[self.thread] = frame, call
        elif event == "return" and self._open.get(self.thread, (None,))[0] is frame:
            _, call = self._open.pop(self.thread)
            call.end, call.result = self.step, result

    def _watched(self, name: str, frame: FrameType) -> bool:
        if name == ACCESS:
            return frame.f_code.co_filename == filemap.__file__
        return name in WATCHED and isinstance(frame.f_locals.get("self"), WATCHED[name])


def record(world: World, slices: Sequence[Slice]) -> list[Call]:
    """The calls of the library in a trace."""
    recorder = _Recorder()
    threading.setprofile(recorder)
    try:
        with Schedule(world) as schedule:
            for recorder.step, slice_ in enumerate(slices, 1):
                recorder.thread = slice_.thread
                try:
                    schedule.run(slice_)
                except Exception:  # a rule is broken, as ``counterexample`` has seen
                    break
            ended = [(call, call.end, call.result) for call in recorder.calls]
    finally:
        threading.setprofile(None)
    for call, end, result in ended:  # leaving the schedule unwinds what has not returned
        call.end, call.result = end, result
    return recorder.calls


def program(what: str, build: Any, rule: str, slices: Sequence[Slice]) -> str:
    """A counterexample as a program.  Raises :class:`Refused` where there is no file, or no KVM."""
    world = build()
    if not isinstance(world, GuestMemory):
        raise Refused(what, "has no file of guest memory", "leave out --syz")
    if isinstance(world.machine.hypervisor, Gunyah):
        raise Refused(what, "runs on Gunyah, whose calls syzkaller does not know", "leave out --syz")
    return "\n".join(_Writer(world, rule, slices).lines(build)) + "\n"


class _Writer:
    """Writes one program."""

    def __init__(self, world: GuestMemory, rule: str, slices: Sequence[Slice]) -> None:
        self.world, self.rule, self.slices = world, rule, slices
        self.named = 1 + len(world.machine.guests) * 2
        self.other, self.file = self.names(2)
        self.slots: dict[int, tuple[Guest, int, int, int]] = {}
        self.arguments = ARGUMENTS
        self.writes: dict[int, bool] = {}

    def lines(self, build: Any) -> Iterator[str]:
        """The program, line by line."""
        rows = counterexample(build(), self.rule, self.slices)
        calls = record(build(), self.slices)
        yield f"# {self.rule}"
        yield from self.begin()
        inside: dict[int, Call] = {}
        said = ("", "")
        for row in rows:
            thread = self.slices[row.number - 1].thread
            for call in (call for call in calls if call.begin == row.number):
                inside[thread] = call
                interrupted = any(c.thread != thread and call.begin < c.begin <= call.end for c in calls)
                for line in self.say(call):
                    yield line + (" (async)" if interrupted and not line.startswith("#") else "")
                said = ("", "")
            alone = row.stepped and row.function and not self.covers(inside.get(thread), row.number)
            if alone and said != (row.thread, row.function):
                said = row.thread, row.function
                yield f"# {row.thread}: {row.function}, {shown(row.place)}: {row.text}"
        for verdict in rows[-1].broken if rows else []:
            yield f"# {rows[-1].thread} breaks: {verdict}"

    def covers(self, call: Call | None, step: int) -> bool:
        """Whether a step is part of a call."""
        return call is not None and call.begin <= step <= call.end

    def names(self, count: int) -> list[str]:
        """New variables."""
        self.named += count
        return [f"r{number}" for number in range(self.named - count, self.named)]

    def pointer(self, value: str, size: int) -> str:
        """An argument that lies in memory."""
        at = self.arguments
        self.arguments += (size + 0x3F) & ~0x3F
        return f"&(0x{at:x})={value}"

    def begin(self) -> Iterator[str]:
        """VMs with a vCPU each, and the file if it is there from the beginning."""
        yield f"r0 = openat$kvm(0xffffffffffffff9c, {self.pointer(NAME, 9)}, 0x2, 0x0)"
        for number in range(len(self.world.machine.guests)):
            yield f"r{1 + 2 * number} = ioctl$KVM_CREATE_VM(r0, {uapi.KVM_CREATE_VM:#x}, 0x0)"
            yield f"r{2 + 2 * number} = ioctl$KVM_CREATE_VCPU(r{1 + 2 * number}, {uapi.KVM_CREATE_VCPU:#x}, 0x0)"
        yield f"{self.other} = memfd_create({self.pointer(NO_NAME, 1)}, 0x0)"
        file = self.world.file
        if file.open:
            yield from self.create()
            pgoff = 0
            while pgoff < len(file.bound):
                end, guest = pgoff + 1, file.owner[pgoff]
                while end < len(file.bound) and file.owner[end] is guest and file.gfn[end] == file.gfn[pgoff] + end - pgoff:
                    end += 1
                if guest is not None and file.bound[pgoff]:
                    yield self.bind(guest, pgoff, end, file.gfn[pgoff])
                pgoff = end

    def number(self, guest: Guest) -> int:
        """Which VM it is."""
        return next(i for i, one in enumerate(self.world.machine.guests) if str(one) == str(guest))

    def create(self) -> Iterator[str]:
        """The file, and the VMM's mapping of it."""
        size = len(self.world.file.bound) * PAGE
        given = self.pointer(f"{{{size:#x}, {uapi.GUEST_MEMFD_FLAG_MMAP:#x}}}", 64)
        yield f"{self.file} = ioctl$KVM_CREATE_GUEST_MEMFD(r1, {uapi.KVM_CREATE_GUEST_MEMFD:#x}, {given})"
        yield f"mmap(&(0x{MAPPING:x}/{size:#x})=nil, {size:#x}, 0x3, 0x11, {self.file}, 0x0)"

    def region(self, slot: int, guest: Guest, gfn: int, size: int, pgoff: int) -> str:
        """A slot; of size 0, its end."""
        fields = [f"{slot:#x}", f"{uapi.KVM_MEM_GUEST_MEMFD:#x}", f"{gfn * PAGE:#x}", f"{size:#x}"]
        fields += [f"&(0x{MAPPING + pgoff * PAGE:x}/0x1000)=nil", f"{pgoff * PAGE:#x}", self.file]
        given = self.pointer(f"{{{', '.join(fields)}}}", 160)
        vm = f"r{1 + 2 * self.number(guest)}"
        return f"ioctl$KVM_SET_USER_MEMORY_REGION2({vm}, {uapi.KVM_SET_USER_MEMORY_REGION2:#x}, {given})"

    def bind(self, guest: Guest, start: int, end: int, gfn: int) -> str:
        """Pages in a slot of their own."""
        slot = len(self.slots)
        self.slots[slot] = guest, start, end, gfn
        return self.region(slot, guest, gfn, (end - start) * PAGE, start)

    def say(self, call: Call) -> Iterator[str]:
        """The system calls that lead to a call of the library."""
        given, name = call.given, call.name
        who = self.world.threads[call.thread].name
        if name == ACCESS:
            self.writes[call.thread] = given["write"]
            if call.result is not Fault.TRANSLATION:
                yield self.access(given["pgoff"], given["write"])
        elif name == "fault":
            yield self.access(given["pgoff"], self.writes.get(call.thread, False))
        elif name == "gup_fast":
            reader, writer = self.names(2)
            ends = f"{{<{reader}=>0xffffffffffffffff, <{writer}=>0xffffffffffffffff}}"
            yield f"pipe({self.pointer(ends, 8)})"
            entry = self.pointer(f"[{{&(0x{MAPPING + given['pgoff'] * PAGE:x}), 0x1000}}]", 16)
            yield f"vmsplice({writer}, {entry}, 0x1, 0x0)"
        elif name == "touch":
            if call.result is not False:
                yield f"# {who}: the guest writes to gfn {given['gfn']}, which its stage 2 has"
        elif name == "guest_fault":
            where = self.pointer(f"{{{given['gfn'] * PAGE:#x}, 0x1000}}", 64)
            vcpu = f"r{2 + 2 * self.number(given['guest'])}"
            yield f"ioctl$KVM_PRE_FAULT_MEMORY({vcpu}, {uapi.KVM_PRE_FAULT_MEMORY:#x}, {where})"
        elif name == "create":
            yield from self.create()
        elif name == "release":
            yield f"close({self.file})"
        elif name == "bind":
            yield self.bind(given["guest"], given["start"], given["end"], given["gfn"])
        elif name == "unbind":
            for slot, (guest, start, end, gfn) in list(self.slots.items()):
                if str(guest) == str(given["guest"]) and start < given["end"] and given["start"] < end:
                    del self.slots[slot]
                    yield self.region(slot, guest, gfn, 0, start)
        else:
            yield self.on_range(name, given["start"] * PAGE, (given["end"] - given["start"]) * PAGE, given.get("to_shared"))

    def access(self, pgoff: int, write: bool) -> str:
        """The VMM uses its mapping: a system call that stores to it, or loads from it."""
        at = f"0x{MAPPING + pgoff * PAGE:x}"
        return f'pread64({self.other}, &({at})=""/1, 0x1, 0x0)' if write else f"pwrite64({self.other}, &({at}), 0x1, 0x0)"

    def on_range(self, name: str, offset: int, size: int, to_shared: bool | None) -> str:
        """A conversion, a hole, an allocation."""
        if name == "convert":
            given = self.pointer(f"{{{offset:#x}, {size:#x}, {0 if to_shared else uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE:#x}}}", 128)
            return f"ioctl$KVM_SET_MEMORY_ATTRIBUTES2({self.file}, {KVM_SET_MEMORY_ATTRIBUTES2:#x}, {given})"
        mode = uapi.FALLOC_FL_KEEP_SIZE | (uapi.FALLOC_FL_PUNCH_HOLE if name == "punch_hole" else 0)
        return f"fallocate({self.file}, {mode:#x}, {offset:#x}, {size:#x})"
