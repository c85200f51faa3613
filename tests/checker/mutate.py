# SPDX-License-Identifier: Apache-2.0
"""A world whose rule notices some changes and not others; ``test_mutate.py`` changes it."""

from guestmem.model import Mutex, Record, World, always, bounded, may, part, step, thread


class Slot(Record):
    full: bool = False

    @step
    def fill(self) -> int:
        if may("the device is out of memory"):
            return -12
        self.full = True
        return 0

    def unused(self) -> None:
        self.full = False


class Ring(World):
    """Two producers and one slot."""

    slot: Slot = part()
    used: int = bounded(1)
    lock: Mutex = part()

    @thread(2)
    def producer(self, me: int) -> None:
        while True:
            with self.lock:
                if not self.slot.full and self.slot.fill() == 0:
                    self.used += 1

    @always("the counter counts the slot, when it is full")
    def counted(self) -> bool:
        return self.used <= 1 and (self.used == 0 or self.slot.full)
