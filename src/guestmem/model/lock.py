# SPDX-License-Identifier: Apache-2.0
"""Locks, written in the model language itself: who holds what is part of the state, so rules can speak of it."""

from guestmem.model.control import current, guard, require, step, when
from guestmem.model.errors import HOLDER_RELEASES, NO_SLEEP, TAKEN_ONCE
from guestmem.model.record import Index, Record, array, bounded

__all__ = ["Depth", "Mutex", "Preempt", "RwSem", "SpinLock", "might_sleep"]


class Depth(Index, below=8):
    """How many spin locks a thread holds."""


class Preempt(Record):
    """Who must not sleep (preempt_count).

    Attributes:
        depth: by thread, how many spin locks it holds.
    """

    depth: list[Depth] = array("threads")


def might_sleep(preempt: Preempt | None) -> None:
    """The running thread may have to wait here for what others do at their leisure.  None: nobody asks in this world."""
    require(preempt is None or preempt.depth[current()] == 0, NO_SLEEP)


class Mutex(Record):
    """One holder at a time, and who waits sleeps (struct mutex, the folio lock)."""

    holder: int = bounded("threads")
    preempt: Preempt | None = None

    @step
    def acquire(self) -> None:
        """Wait until nobody holds the lock, then hold it."""
        might_sleep(self.preempt)
        require(self.holder != current() + 1, TAKEN_ONCE)
        when(self.holder == 0)
        self.holder = current() + 1

    @step
    def try_acquire(self) -> bool:
        """Hold the lock if nobody does; whether it worked."""
        if self.holder != 0:
            return False
        self.holder = current() + 1
        return True

    @step
    def release(self) -> None:
        """Let the next one in."""
        require(self.holder == current() + 1, HOLDER_RELEASES)
        self.holder = 0

    def held(self) -> bool:
        """Whether the running thread holds the lock."""
        return self.holder == current() + 1

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            self.release()


class SpinLock(Mutex):
    """One holder at a time, and who waits spins; the holder must not sleep (spinlock_t, rwlock_t held for writing)."""

    @step
    def acquire(self) -> None:
        """Wait until nobody holds the lock, then hold it."""
        require(self.holder != current() + 1, TAKEN_ONCE)
        when(self.holder == 0)
        self.holder = current() + 1
        self.count(1)

    @step
    def try_acquire(self) -> bool:
        """Hold the lock if nobody does; whether it worked."""
        if self.holder != 0:
            return False
        self.holder = current() + 1
        self.count(1)
        return True

    @step
    def release(self) -> None:
        """Let the next one in."""
        require(self.holder == current() + 1, HOLDER_RELEASES)
        self.holder = 0
        self.count(-1)

    def count(self, more: int) -> None:
        """The running thread holds so many spin locks more."""
        if self.preempt is not None:
            self.preempt.depth[current()] = Depth(self.preempt.depth[current()] + more)


class RwSem(Record):
    """Several readers or one writer (struct rw_semaphore, as the invalidate lock of a mapping)."""

    writer: int = bounded("threads")
    readers: list[bool] = array("threads")
    preempt: Preempt | None = None

    shared = guard("down_read", "up_read")
    exclusive = guard("down_write", "up_write")

    @step
    def down_read(self) -> None:
        """Wait until there is no writer, then read."""
        might_sleep(self.preempt)
        require(not self.held(), TAKEN_ONCE)
        when(self.writer == 0)
        self.readers[current()] = True

    @step
    def down_read_trylock(self) -> bool:
        """Read if there is no writer; whether it worked."""
        require(not self.held(), TAKEN_ONCE)
        if self.writer != 0:
            return False
        self.readers[current()] = True
        return True

    @step
    def up_read(self) -> None:
        """Stop reading."""
        require(self.readers[current()], HOLDER_RELEASES)
        self.readers[current()] = False

    @step
    def down_write(self) -> None:
        """Wait until there is nobody, then write."""
        might_sleep(self.preempt)
        require(not self.held(), TAKEN_ONCE)
        when(self.writer == 0 and not any(self.readers))
        self.writer = current() + 1

    @step
    def up_write(self) -> None:
        """Stop writing."""
        require(self.writer == current() + 1, HOLDER_RELEASES)
        self.writer = 0

    def held(self) -> bool:
        """Whether the running thread holds the lock, either way."""
        return self.writer == current() + 1 or self.readers[current()]

    def writing(self) -> bool:
        """Whether the running thread holds the lock exclusively."""
        return self.writer == current() + 1

    def busy(self) -> bool:
        """Whether anybody holds the lock, either way."""
        return self.writer != 0 or any(self.readers)
