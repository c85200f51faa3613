# SPDX-License-Identifier: Apache-2.0
"""Operations on the kernel's host that run in a child, under a limit, or while a signal arrives."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from guestmem.contract.interface import PAGE_SIZE, Host, Missing
from guestmem.contract.kernel.cgroup import MemoryCgroup
from guestmem.contract.kernel.task import Task
from guestmem.contract.results import Denied, Errno, Failure, Other, Result, Signal
from guestmem.linux import calls
from guestmem.linux.kvm import KEEP, PUNCH
from guestmem.linux.process import Lost, in_child

__all__ = ["Children"]


class Children:
    """What needs a child, a limit or a signal."""

    def __init__(self, host: Host, task: Task) -> None:
        self.host = host
        self.task = task

    def in_child(self, operation: str, *arguments: Any) -> Result:
        return child(lambda: self.host.raising(operation, *arguments))

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


def child(function: Callable[[], Result]) -> Result:
    """What a function returns or raises in a child.  Raises :class:`Denied` with what ends it instead."""
    try:
        return in_child(function)
    except Lost as lost:
        how = Signal(signal.Signals(lost.signal).name) if lost.signal else Other(str(lost))
        raise Denied(how) from None
