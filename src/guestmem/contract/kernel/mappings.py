# SPDX-License-Identifier: Apache-2.0
"""Mappings of the kernel's host, and loads and stores in them."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

from guestmem.contract.interface import NO_MAPPING, PAGE_SIZE, Missing
from guestmem.contract.kernel.access import Access, Fault
from guestmem.contract.kernel.task import Task
from guestmem.contract.results import Denied, Result, Signal
from guestmem.contract.spans import Spans, page_end
from guestmem.linux import calls, uapi
from guestmem.linux.calls import MADV_GUARD_INSTALL, MADV_GUARD_REMOVE, libc, syscall
from guestmem.linux.smaps import smaps

__all__ = ["CAP_IPC_LOCK", "Mappings", "drop"]

CAP_IPC_LOCK, CAPABILITY_VERSION_3 = 14, 0x20080522  # include/uapi/linux/capability.h


class Mappings:
    """System calls on mappings.

    Attributes:
        maps: by handle, the address of a mapping, and what is left of it.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.maps: dict[int, tuple[int, Spans]] = {}
        self.access = Access()
        self.can_lock = capable(CAP_IPC_LOCK)

    def at(self, mapping: Result | str | None, offset: int, length: int = 0) -> int:
        """The address of a range of a mapping."""
        there = self.maps.get(mapping) if isinstance(mapping, int) else None
        if there is None or offset < 0 or length < 0 or not there[1].cover(offset, offset + length):
            raise Denied(NO_MAPPING)
        return there[0] + offset

    def mmap(self, fd: Result, length: int, prot: int, flags: int, offset: int) -> Result:
        if flags & uapi.MAP_FIXED:
            raise ValueError("MAP_FIXED would replace memory of the host")
        if flags & uapi.MAP_LOCKED:
            self.may_lock()
        address = calls.mmap(0, length, prot, flags, self.task.fd(fd), offset)
        handle = self.task.handle()
        self.maps[handle] = address, Spans(page_end(length), 0)
        return handle

    def munmap(self, mapping: Result, offset: int = 0, length: int | None = None) -> Result:
        address = self.at(mapping, offset, length or 0)
        assert isinstance(mapping, int)
        _, spans = self.maps[mapping]
        if length is None:
            # The gaps may hold other mappings by now.
            for start, end, _ in spans:
                calls.munmap(address + start, end - start)
            del self.maps[mapping]
            return 0
        calls.munmap(address, length)
        spans.remove(offset, page_end(offset + length))
        if not spans.parts:
            del self.maps[mapping]
        return 0

    def mremap(self, mapping: Result, length: int) -> Result:
        address = self.at(mapping, 0)
        assert isinstance(mapping, int)
        moved = libc("mremap", address=address, old=self.maps[mapping][1].end(), new=length, flags=uapi.MREMAP_MAYMOVE)
        self.maps[mapping] = moved, Spans(page_end(length), 0)
        return 0

    def mremap_from(self, mapping: Result, old: int, length: int, flags: int, place: Result | None = None) -> Result:
        address, target = self.at(mapping, 0), 0
        if flags & uapi.MREMAP_FIXED:
            target = self.at(place, 0)
            assert isinstance(place, int)
            if self.maps[place][1].parts != Spans(page_end(length), 0).parts:
                raise ValueError("MREMAP_FIXED would replace memory of the host")
        moved = libc("mremap", address=address, old=old, new=length, flags=flags, target=target)
        assert isinstance(mapping, int)
        if isinstance(place, int):
            del self.maps[place]
        if old and not flags & uapi.MREMAP_DONTUNMAP:
            del self.maps[mapping]
        handle = self.task.handle()
        self.maps[handle] = moved, Spans(page_end(length), 0)
        return handle

    def mprotect(self, mapping: Result, offset: int, length: int, prot: int) -> Result:
        calls.mprotect(self.at(mapping, offset, length), length, prot)
        return 0

    def madvise(self, mapping: Result, offset: int, length: int, advice: int) -> Result:
        calls.madvise(self.at(mapping, offset, length), length, advice)
        return 0

    def mlock(self, mapping: Result, offset: int, length: int) -> Result:
        self.may_lock()
        calls.mlock(self.at(mapping, offset, length), length)
        return 0

    def mlock2(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        self.may_lock()
        syscall("mlock2", start=self.at(mapping, offset, length), length=length, flags=flags)
        return 0

    def guard(self, mapping: Result, offset: int, length: int, install: int) -> Result:
        advice = MADV_GUARD_INSTALL if install else MADV_GUARD_REMOVE
        calls.madvise(self.at(mapping, offset, length), length, advice)
        return 0

    def may_lock(self) -> None:
        """Raises :class:`Missing` where locking more memory than this process may would be refused for that alone."""
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if limit != resource.RLIM_INFINITY and not self.can_lock:
            raise Missing("locked memory: CAP_IPC_LOCK, or ulimit -l unlimited")

    def munlock(self, mapping: Result, offset: int, length: int) -> Result:
        calls.munlock(self.at(mapping, offset, length), length)
        return 0

    def msync(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        calls.msync(self.at(mapping, offset, length), length, flags)
        return 0

    def in_page_table(self, mapping: Result, offset: int) -> Result:
        self.fills_page_table()
        entry = self.at(mapping, offset, 1) // PAGE_SIZE * 8
        with open("/proc/self/pagemap", "rb", buffering=0) as entries:
            return int.from_bytes(os.pread(entries.fileno(), 8, entry), "little") >> 63

    def smaps(self, mapping: Result) -> Result:
        self.fills_page_table()
        start, end = self.at(mapping, 0), self.at(mapping, 0) + self.maps[mapping][1].end()  # type: ignore[index]
        here = [vma for vma in smaps() if vma.start < end and start < vma.end]
        return tuple(sum(vma.size(name) for vma in here) for name in ("Rss", "Pss", "Locked"))

    def fills_page_table(self) -> None:
        """Raises :class:`Missing` where loads and stores are those of children."""
        if self.access.in_children:
            raise Missing("a page table that loads fill: here they are a child's")

    def load(self, mapping: Result, offset: int) -> Result:
        return self.accessed(offset, self.access.load(self.at(mapping, offset, 1)), self.at(mapping, 0))

    def store(self, mapping: Result, offset: int, value: int) -> Result:
        return self.accessed(offset, self.access.store(self.at(mapping, offset, 1), value), self.at(mapping, 0))

    def accessed(self, offset: int, result: int | Fault, start: int) -> int:
        """A byte, or the signal."""
        if isinstance(result, Fault):
            raise Denied(Signal(signal.Signals(result.signal).name, result.address - start))
        return result

    def finish(self) -> Result:
        """Unmap and close everything."""
        for address, spans in self.maps.values():
            for start, end, _ in spans:
                calls.munmap(address + start, end - start)
        self.maps.clear()
        for handle in list(self.task.fds):
            self.task.close(handle)
        self.task.next = 0
        return 0


def capable(capability: int) -> bool:
    """Whether this process has a capability."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
        return any(line.startswith("CapEff:") and int(line.split()[1], 16) >> capability & 1 for line in lines)


def drop(capability: int) -> None:
    """Have a capability below 32 no more (capset(2))."""
    header, data = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    libc("capget", header=header, data=data)
    data[0] &= ~(1 << capability)
    libc("capset", header=header, data=data)
