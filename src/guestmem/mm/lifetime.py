# SPDX-License-Identifier: Apache-2.0
"""Objects that live and die, and readers for whom their end waits (struct kref, SRCU)."""

from guestmem.model import Preempt, Record, array, bounded, current, guard, might_sleep, require, step, when
from guestmem.rules import USED_ALIVE

__all__ = ["Object", "Srcu"]


class Object(Record):
    """An object with references to it, in memory that is anybody's before it is made and after it is freed.

    What reads or writes its fields says ``use()`` in the same step.  The size ``references`` is the most that there are.

    Attributes:
        live: the memory is the object's.
        refcount: who may use it; the last one to go frees it.
    """

    live: bool = False
    refcount: int = bounded("references")

    def make(self) -> None:
        """The object comes to life, with the maker's reference (kref_init)."""
        self.live = True
        self.refcount = 1

    def use(self) -> None:
        """Somebody relies on the object's being there."""
        require(self.live, USED_ALIVE)

    @step
    def get(self) -> None:
        """One more reference, by somebody who has one (kref_get)."""
        self.use()
        require(self.refcount > 0, USED_ALIVE)
        self.refcount += 1

    @step
    def get_unless_zero(self) -> bool:
        """A reference, if the last has not gone (kref_get_unless_zero, get_file_active); the memory must be there yet."""
        self.use()
        if self.refcount == 0:
            return False
        self.refcount += 1
        return True

    @step
    def put(self) -> bool:
        """Drop a reference; whether it was the last, after which its owner frees the object (kref_put)."""
        self.use()
        require(self.refcount > 0, USED_ALIVE)
        self.refcount -= 1
        return self.refcount == 0

    @step
    def free(self) -> None:
        """Give the memory back (kfree)."""
        self.use()
        self.live = False


class Srcu(Record):
    """Sleepable RCU: whoever takes an object away waits for those who may have found it before (kernel/rcu/srcutree.c).

    Attributes:
        readers: by thread, it is in a section of a reader.
        awaited: by thread, a grace period that has begun waits for its section to end.
    """

    readers: list[bool] = array("threads")
    awaited: list[bool] = array("threads")
    preempt: Preempt | None = None

    reading = guard("read_lock", "read_unlock")

    @step
    def read_lock(self) -> None:
        """What is found from here on stays until ``read_unlock``; nothing waits."""
        self.readers[current()] = True

    @step
    def read_unlock(self) -> None:
        """What was found may go."""
        self.readers[current()] = False
        self.awaited[current()] = False

    def synchronize(self) -> None:
        """Wait until all readers have gone that are there now; not for those who come later."""
        might_sleep(self.preempt)
        self.begin()
        self.wait()

    @step
    def begin(self) -> None:
        """A grace period begins; one at a time."""
        when(not any(self.awaited))
        for thread, reads in enumerate(self.readers):
            self.awaited[thread] = reads

    @step
    def wait(self) -> None:
        """It ends."""
        when(not any(self.awaited))
