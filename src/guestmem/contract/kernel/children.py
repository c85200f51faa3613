# SPDX-License-Identifier: Apache-2.0
"""Operations on the kernel's host that run in a child, under a limit, or while a signal arrives."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable
from typing import Any

from guestmem.contract.interface import NO_MAPPING, PAGE_SIZE, Host, Missing
from guestmem.contract.kernel.cgroup import MemoryCgroup
from guestmem.contract.kernel.mappings import CAP_IPC_LOCK, Mappings, drop
from guestmem.contract.kernel.task import Task
from guestmem.contract.results import Denied, Errno, Failure, Other, Result, Signal
from guestmem.linux import calls
from guestmem.linux.calls import syscall
from guestmem.linux.kvm import KEEP, PUNCH
from guestmem.linux.process import Lost, in_child

__all__ = ["Children"]

MIB = 1 << 20
TICK = 0.03  # seconds; a file's times are those of the last tick, of which there are 100 or more in a second


class Children:
    """What needs a child, a limit or a signal."""

    def __init__(self, host: Host, task: Task, mappings: Mappings) -> None:
        self.host = host
        self.task = task
        self.mappings = mappings

    def in_child(self, operation: str, *arguments: Any) -> Result:
        return child(lambda: self.host.raising(operation, *arguments))

    def in_memlock(self, limit: int, operation: str, *arguments: Any) -> Result:
        _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if hard != resource.RLIM_INFINITY and hard < limit:
            raise Missing(f"{limit} bytes of locked memory: ulimit -H -l {-(-limit // 1024)}")

        def limited() -> Result:
            drop(CAP_IPC_LOCK)
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, hard))
            return self.host.raising(operation, *arguments)

        return child(limited)

    def sealed(self, mapping: Result, operation: str, *arguments: Any) -> Result:
        start, spans = self.mappings.maps[mapping] if isinstance(mapping, int) else (0, None)
        if spans is None:
            raise Denied(NO_MAPPING)

        def seal_first() -> Result:
            syscall("mseal", start=start, length=spans.end(), flags=0)
            return self.host.raising(operation, *arguments)

        return child(seal_first)

    def in_full_table(self, operation: str, *arguments: Any) -> Result:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        filling = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
        highest = max(map(int, os.listdir("/proc/self/fd")))
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
            with contextlib.suppress(OSError):
                while True:
                    filling.append(os.dup(filling[0]))
            return self.host.raising(operation, *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for fd in filling:
                os.close(fd)

    def times_changed(self, fd: Result, operation: str, *arguments: Any) -> Result:
        before = os.fstat(self.task.fd(fd))
        time.sleep(TICK)
        self.host.perform(operation, *arguments)
        after = os.fstat(self.task.fd(fd))
        return int(before.st_mtime_ns != after.st_mtime_ns), int(before.st_ctime_ns != after.st_ctime_ns)

    def fallocate_signalled(self, fd: Result, length: int) -> Result:
        signal.signal(signal.SIGALRM, lambda *_: None)
        result: tuple[Failure, int] | None = None
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.004)
            try:
                calls.fallocate(self.task.fd(fd), KEEP, 0, length)
            except OSError as error:
                result = Errno(error.errno or 0), int(0 < calls.cachestat(self.task.fd(fd)).cache < length // PAGE_SIZE)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                calls.fallocate(self.task.fd(fd), PUNCH, 0, length)
            if result is not None and result[-1]:  # otherwise it came before the first page: once more
                return result
        if result is None:
            raise Missing("a kernel slow enough to be interrupted: the signal came too late")
        return result

    def allocate_limited(self, limit: int, length: int) -> Result:
        with MemoryCgroup(limit) as group:

            def allocate() -> Result:
                fd = self.host.create_guest_memfd(self.host.create_vm(), length, 0)
                group.enter()
                return self.host.fallocate(fd, KEEP, 0, length)

            return child(allocate)

    def charge(self, length: int) -> Result:
        with MemoryCgroup(2 * length + MIB) as group:

            def counted() -> Result:
                fd = self.host.create_guest_memfd(self.host.create_vm(), length, 0)
                group.enter()
                before, pages = group.cached(), length // PAGE_SIZE
                counts = []
                for mode, expected in ((KEEP, pages), (PUNCH, 0)):
                    ended = self.host.fallocate(fd, mode, 0, length)
                    if ended != 0:
                        return ended
                    counts.append(group.settled(before + expected) - before)
                return tuple(counts)

            return child(counted)


def child(function: Callable[[], Result]) -> Result:
    """What a function returns or raises in a child.  Raises :class:`Denied` with what ends it instead."""
    try:
        return in_child(function)
    except Lost as lost:
        how = Signal(signal.Signals(lost.signal).name) if lost.signal else Other(str(lost))
        raise Denied(how) from None
