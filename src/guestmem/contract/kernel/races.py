# SPDX-License-Identifier: Apache-2.0
"""Punching, and taking slots, against faults on the kernel's host: threads that race."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from guestmem.contract.interface import PAGE_SIZE, Host
from guestmem.contract.kernel.guest import ContractGuest
from guestmem.contract.kernel.mappings import Mappings
from guestmem.contract.kernel.task import Task
from guestmem.contract.kernel.vms import Vms
from guestmem.contract.results import EFAULT, MMIO, Denied, Other, Result
from guestmem.contract.seen import Seen
from guestmem.linux import calls
from guestmem.linux.kvm import PUNCH, Vm

__all__ = ["Races"]

LONG_ENOUGH, LONGEST = 0.3, 20.0  # seconds
ENOUGH = 10  # turns of a thread
PAUSE = 0.001  # seconds, which a slot stays as it is, every other time
SLOT = 0
GONE = MMIO, EFAULT  # how KVM_RUN may end where a slot goes


class Contest:
    """Threads that take turns at one page after another; ``wrong`` says what nobody should see."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.start = time.monotonic()
        self.wrong: list[str] = []
        self.turns: list[int] = []
        self.threads: list[threading.Thread] = []

    def over(self) -> bool:
        """Whether there was time enough, and every thread had its turn; or something is wrong, or none comes to that."""
        took = time.monotonic() - self.start
        return bool(self.wrong) or took > LONGEST or (took > LONG_ENOUGH and min(self.turns) > ENOUGH)

    def worker(self, step: int, turn: Callable[[int], bool]) -> None:
        """A thread whose turn, at a page, says whether it came to do something, and raises ValueError for what is wrong."""
        number = len(self.turns)
        self.turns.append(0)

        def work() -> None:
            page = 0
            try:
                while not self.over():
                    self.turns[number] += turn(page)
                    page = (page + step) % self.pages
            except Exception as error:
                self.wrong.append(str(error))
            if self.turns[number] <= ENOUGH and not self.wrong:
                self.wrong.append("a thread that did next to nothing")

        self.threads.append(threading.Thread(target=work))

    def run(self) -> None:
        """Until it is over."""
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join()


def must(good: bool, page: int) -> bool:
    """Raises ValueError unless a turn at a page was as it should be."""
    if not good:
        raise ValueError(f"page {page}")
    return True


class SlotGuest:
    """A guest whose slot comes and goes, at one of several places."""

    def __init__(self, guest: ContractGuest, seen: Seen, places: tuple[int, ...]) -> None:
        self.guest = guest
        self.seen = seen
        self.places = places
        self.value = 0

    def turn(self, page: int) -> bool:
        """Store to a page and load from it, at each place; whether it was there."""
        there = 0
        for place in self.places:
            gpa = place + page * PAGE_SIZE
            self.value = self.value % 255 + 1
            began = self.seen.generation
            if self.performed(lambda gpa=gpa: self.guest.store(gpa, self.value)) is not None:  # type: ignore[misc]
                self.seen.stored(page, self.value, began)
            there += self.load(page, gpa)
        return there > 0

    def load(self, page: int, gpa: int) -> bool:
        """Load from a page; whether it was there.  Raises ValueError for what nobody should see."""
        began = self.seen.generation
        got = self.performed(lambda: self.guest.load(gpa))
        if got is not None and got not in (may := self.seen.may(page, began)):
            raise ValueError(f"the guest sees {got!r} in page {page}, which may have {sorted(may)}")
        return got is not None

    def lost(self, pages: int) -> list[str]:
        """Which of the first pages are not as they were left, at the first place."""
        try:
            return [f"page {page} is gone" for page in range(pages) if not self.load(page, self.places[0] + page * PAGE_SIZE)]
        except ValueError as error:
            return [str(error)]

    def performed(self, access: Callable[[], Result]) -> Result | None:
        """Do it; None where the slot is gone.  Raises ValueError for another end of KVM_RUN."""
        try:
            return access()
        except Denied as denied:
            if denied.failure not in GONE:
                raise ValueError(f"KVM_RUN ends with {denied.failure}") from None
            return None


class Races:
    """Threads that use a file or a slot at the same time."""

    def __init__(self, host: Host, task: Task, mappings: Mappings, vms: Vms) -> None:
        self.host = host
        self.task = task
        self.mappings = mappings
        self.vms = vms

    def race_punch(self, vcpu: Result | None, fd: Result, mapping: Result, pages: int) -> Result:
        guest = None if vcpu is None else self.vms.guest(vcpu)
        contest = Contest(pages)

        def host(page: int) -> bool:
            at = page * PAGE_SIZE
            return must(all([self.host.store(mapping, at, 1) == 0, self.host.load(mapping, at) in (0, 1, 2)]), page)

        def run(page: int) -> bool:
            assert guest is not None
            at = page * PAGE_SIZE
            return must(all([guest.store(at, 2) == 0, guest.load(at) in (0, 1, 2)]), page)

        def punch(page: int) -> bool:
            return must(self.host.fallocate(fd, PUNCH, page * PAGE_SIZE, PAGE_SIZE) == 0, page)

        contest.worker(5, host)
        contest.worker(7, punch)
        if guest:
            contest.worker(3, run)
        contest.run()
        calls.fallocate(self.task.fd(fd), PUNCH, 0, pages * PAGE_SIZE)
        return len(contest.wrong), calls.cachestat(self.task.fd(fd), 0, pages * PAGE_SIZE).cache

    def race_slot(self, vm: Result, vcpu: Result, way: str, memory: Result, pages: int) -> Result:
        size, seen, contest = pages * PAGE_SIZE, Seen(), Contest(pages)
        places = (0, size) if way == "move" else (0,)
        guest = SlotGuest(self.vms.guest(vcpu), seen, places)
        with Vm(os.dup(self.task.fd(vm)), self.vms.kvm) as owner:

            def move(place: int) -> None:
                owner.set_user_memory_region2(SLOT, place, size, self.mappings.at(memory, 0, size))

            def deleted() -> None:
                owner.set_user_memory_region2(SLOT, 0, size, guest_memfd=self.task.fd(memory))
                pause()
                owner.delete_slot(SLOT)

            def closed() -> None:
                assert isinstance(memory, int)
                seen.generation += 1
                with owner.create_guest_memfd(size, memory) as file:
                    owner.set_user_memory_region2(SLOT, 0, size, guest_memfd=file)
                    pause()
                owner.delete_slot(SLOT)

            def moved() -> None:
                for place in places:
                    move(place)
                    pause()

            def pause() -> None:
                if contest.turns[0] % 2:
                    time.sleep(PAUSE)

            take = {"delete": deleted, "close": closed, "move": moved}[way]

            def turn(_: int) -> bool:
                take()
                pause()
                return True

            contest.worker(1, turn)
            contest.worker(3, guest.turn)
            contest.run()
            if way == "move":
                move(0)
            elif way == "delete":
                owner.set_user_memory_region2(SLOT, 0, size, guest_memfd=self.task.fd(memory))
            if way != "close":
                contest.wrong += guest.lost(pages)
                owner.delete_slot(SLOT)
        return Other(contest.wrong[0]) if contest.wrong else 0
