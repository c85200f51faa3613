# SPDX-License-Identifier: Apache-2.0
"""A memory slot that comes and goes under a running guest, on the model: the steps of both, interleaved at random."""

from __future__ import annotations

from abc import ABC, abstractmethod
from errno import EFAULT as NO_SUCH_PAGE

from guestmem.contract.interface import PAGE_SIZE
from guestmem.contract.results import EFAULT, MMIO, Denied, Result
from guestmem.contract.seen import Seen
from guestmem.contract.syscalls.objects import Gmem, Slot, Vcpu
from guestmem.contract.syscalls.race import AGAIN, SEEDS, RandomSchedule
from guestmem.contract.syscalls.vms import Vms
from guestmem.linux.uapi import KVM_MEM_GUEST_MEMFD
from guestmem.machine.guest import Gfn
from guestmem.model import step

__all__ = ["ClosedFile", "DeletedSlot", "MovedSlot", "SlotRace", "race_slot"]

SLOT = 0
TURNS = 4
A_FAULT = 20  # steps


@step
def another_turn() -> None:
    """Others may come first."""


class SlotRace(ABC):
    """A guest, and who takes a slot from it and makes it again; ``wrong`` says what should not be."""

    def __init__(self, vms: Vms, vcpu: Vcpu, pages: int) -> None:
        self.vms = vms
        self.kernel = vms.kernel
        self.vm = vcpu.vm
        self.pages = pages
        self.seen = Seen()
        self.wrong: list[str] = []
        self.tries = self.accesses = 0
        self.over = False

    @abstractmethod
    def access(self, page: int, value: int | None) -> int | None:
        """The guest stores a byte to a page, or loads it; None where the slot is gone."""

    @abstractmethod
    def make(self) -> None:
        """The slot comes."""

    @abstractmethod
    def take(self) -> None:
        """The slot goes."""

    def guest(self) -> None:
        """Store and load, as long as the slot comes and goes."""
        while not self.over:
            page = self.tries // 2 * 3 % self.pages
            self.look(page, self.tries % 255 + 1)
            self.look(page, None)

    def look(self, page: int, value: int | None) -> bool:
        """Store or load, and see whether the byte may be what it is; False where the slot is gone."""
        began = self.seen.generation
        self.tries += 1
        got = self.access(page, value)
        if got is None:
            return False
        self.accesses += 1
        if value is not None:
            self.seen.stored(page, value, began)
        elif got not in self.seen.may(page, began):
            self.wrong.append(f"the guest sees {got} in page {page}")
        return True

    def slot(self) -> None:
        """Make the slot and take it."""
        self.over = False
        for turn in range(TURNS):
            self.make()
            for _ in range(turn * A_FAULT):
                another_turn()
            self.take()
        self.over = True

    def has_free(self) -> bool:
        """Whether the guest has a page that is free."""
        return False

    def check(self) -> None:
        """Look on after a step."""
        if self.has_free():
            self.wrong.append("the guest has a page that is free")

    def finish(self) -> None:
        """What was stored is there when nobody runs any more."""
        with self.kernel.running():
            self.make()
            for page in range(self.pages):
                if not self.look(page, None) and not self.look(page, None):
                    self.wrong.append(f"page {page} is gone")
            self.take()


class DeletedSlot(SlotRace):
    """The slot of a file is deleted, and the file stays."""

    def __init__(self, vms: Vms, vcpu: Vcpu, pages: int, gmem: Gmem) -> None:
        super().__init__(vms, vcpu, pages)
        self.use(gmem)

    def use(self, gmem: Gmem) -> None:
        """Have the pages of a file in places that stay."""
        self.gmem = gmem
        self.places = [gmem.at(pgoff) for pgoff in range(self.pages)]

    def access(self, page: int, value: int | None) -> int | None:
        guest, gfn = self.gmem.guest, Gfn(self.places[page])
        while not guest.touch(gfn):
            slot = self.vm.slots.get(SLOT)
            err = -NO_SUCH_PAGE
            if slot is not None and slot.file is not None:
                err = slot.file.file.guest_fault(self.kernel.cpu, guest, gfn)
            guest.exited -= 1
            if (new := guest.entries[gfn].frame) is not None:
                self.kernel.cells(new)  # a page that was cleared has no bytes of its last user
            if err == -NO_SUCH_PAGE:
                return None
            if err not in AGAIN:
                self.wrong.append(f"the guest cannot fault page {page} in: {err}")
                return None
        frame = guest.entries[gfn].frame
        assert frame is not None
        cells = self.kernel.cells(frame)
        if value is not None:
            cells[0] = value
        return cells.get(0, 0)

    def make(self) -> None:
        slot = Slot(KVM_MEM_GUEST_MEMFD, 0, self.pages, None)
        slot.file, slot.gmem_only = self.gmem, True
        self.vms.may_bind(slot)
        self.gmem.bind(slot)
        self.vm.slots[SLOT] = slot

    def take(self) -> None:
        self.vms.delete_slot(self.vm, SLOT)
        if not self.gmem.guest.empty():
            self.wrong.append("the guest has pages of a slot that is gone")

    def has_free(self) -> bool:
        frames = [entry.frame for entry in self.gmem.guest.entries if entry.frame is not None]
        return any(self.kernel.mm.folios[frame.pfn].free for frame in frames)


class ClosedFile(DeletedSlot):
    """The file of the slot is closed, and the next slot has a new one."""

    def __init__(self, vms: Vms, vcpu: Vcpu, pages: int, flags: int) -> None:
        self.flags = flags
        super().__init__(vms, vcpu, pages, vms.new_file(vcpu.vm, pages * PAGE_SIZE, flags))
        self.gmem.uses = 1

    def make(self) -> None:
        if not self.gmem.uses:
            self.seen.generation += 1
            self.use(self.vms.new_file(self.vm, self.pages * PAGE_SIZE, self.flags))
            self.gmem.uses = 1
        super().make()

    def take(self) -> None:
        self.vms.task.drop(self.gmem)
        super().take()


class MovedSlot(SlotRace):
    """An ordinary slot is moved to and fro; its memory is a mapping."""

    def __init__(self, vms: Vms, vcpu: Vcpu, pages: int, vm: Result, mapping: Result) -> None:
        super().__init__(vms, vcpu, pages)
        self.at = vm, mapping
        self.moves = 0

    def access(self, page: int, value: int | None) -> int | None:
        another_turn()
        gpa = (page + self.tries % 2 * self.pages) * PAGE_SIZE
        try:
            return self.vms.faulted_in(self.vm, gpa, value, False)
        except Denied as denied:
            if denied.failure not in (MMIO, EFAULT):
                self.wrong.append(f"KVM_RUN ends with {denied.failure}")
            return None

    def make(self) -> None:
        another_turn()
        vm, mapping = self.at
        gpa, size = self.moves % 2 * self.pages * PAGE_SIZE, self.pages * PAGE_SIZE
        self.moves += 1
        self.vms.set_user_memory_region2(vm, SLOT, 0, gpa, size, mapping, -1, 0)

    def take(self) -> None:
        self.make()

    def finish(self) -> None:
        super().finish()
        with self.kernel.running():
            self.vms.delete_slot(self.vm, SLOT)


def race_slot(contest: SlotRace) -> list[str]:
    """Let the guest and who takes its slot run; what was wrong.

    Raises :class:`~guestmem.model.Verdict` when a rule of the model is broken on the way.
    """
    world = contest.kernel.world
    world.jobs[:] = [contest.guest, contest.slot]
    try:
        for seed in range(SEEDS):
            with RandomSchedule(world, contest.kernel.serial, seed) as schedule:
                schedule.finish(len(world.jobs), contest.check)
    finally:
        world.jobs.clear()
    if contest.accesses <= SEEDS:
        contest.wrong.append("a guest that did next to nothing")
    contest.finish()
    return contest.wrong
