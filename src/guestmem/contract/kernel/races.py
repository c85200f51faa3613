# SPDX-License-Identifier: Apache-2.0
"""Punching against faults on the kernel's host: threads that race."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from guestmem.contract.interface import PAGE_SIZE, Host
from guestmem.contract.kernel.task import Task
from guestmem.contract.kernel.vms import Vms
from guestmem.contract.results import Result
from guestmem.linux import calls
from guestmem.linux.kvm import PUNCH

__all__ = ["Races"]

LONG_ENOUGH, LONGEST = 0.3, 20.0  # seconds
ENOUGH = 10  # turns of a thread


class Races:
    """Threads that use a file at the same time."""

    def __init__(self, host: Host, task: Task, vms: Vms) -> None:
        self.host = host
        self.task = task
        self.vms = vms

    def race_punch(self, vcpu: Result | None, fd: Result, mapping: Result, pages: int) -> Result:
        guest = None if vcpu is None else self.vms.guest(vcpu)
        start = time.monotonic()
        wrong: list[str] = []
        turns: list[int] = []

        def over() -> bool:
            """Whether there was time enough, and every thread had its turn; or none comes to that."""
            took = time.monotonic() - start
            return took > LONGEST or (took > LONG_ENOUGH and min(turns) > ENOUGH)

        def worker(step: int, turn: Callable[[int], bool]) -> threading.Thread:
            """A thread that takes its turn at one page after another; a turn says whether all was as it should be."""

            number = len(turns)
            turns.append(0)

            def work() -> None:
                page = 0
                try:
                    while not over():
                        if not turn(page * PAGE_SIZE):
                            wrong.append(f"page {page}")
                        page, turns[number] = (page + step) % pages, turns[number] + 1
                except Exception as error:
                    wrong.append(str(error))
                if turns[number] <= ENOUGH:
                    wrong.append("a thread that did next to nothing")

            return threading.Thread(target=work)

        def host(at: int) -> bool:
            return all([self.host.store(mapping, at, 1) == 0, self.host.load(mapping, at) in (0, 1, 2)])

        def run(at: int) -> bool:
            assert guest is not None
            return all([guest.store(at, 2) == 0, guest.load(at) in (0, 1, 2)])

        def punch(at: int) -> bool:
            return self.host.fallocate(fd, PUNCH, at, PAGE_SIZE) == 0

        threads = [worker(5, host), worker(7, punch), *([worker(3, run)] if guest else [])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        calls.fallocate(self.task.fd(fd), PUNCH, 0, pages * PAGE_SIZE)
        return len(wrong), calls.cachestat(self.task.fd(fd), 0, pages * PAGE_SIZE).cache
