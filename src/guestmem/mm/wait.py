# SPDX-License-Identifier: Apache-2.0
"""Threads that sleep until somebody wakes them (wait_queue_head_t)."""

from guestmem.model import Preempt, Record, array, current, might_sleep, step, when

__all__ = ["WaitQueue"]


class WaitQueue(Record):
    """Sleepers that wait for a condition of their own.

    A sleeper says ``prepare()``, looks at its condition, and where it must wait says ``schedule()`` and begins anew; in the
    end ``finish()``.  Whoever changes the condition says ``wake_up()`` after it.  The condition asked before ``prepare()``
    is a wake-up that may be lost.

    Attributes:
        asleep: by thread, it is about to sleep, or sleeps, and was not woken since.
    """

    asleep: list[bool] = array("threads")
    preempt: Preempt | None = None

    @step
    def prepare(self) -> None:
        """From here on a wake-up is not lost (prepare_to_wait)."""
        self.asleep[current()] = True

    def schedule(self) -> None:
        """Sleep until woken; not at all where that was after ``prepare`` (schedule)."""
        might_sleep(self.preempt)
        self.sleep()

    @step
    def sleep(self) -> None:
        """The part of ``schedule`` that waits."""
        when(not self.asleep[current()])

    @step
    def finish(self) -> None:
        """The running thread waits no more (finish_wait)."""
        self.asleep[current()] = False

    @step
    def wake_up(self) -> None:
        """Wake all (wake_up_all)."""
        for thread in range(len(self.asleep)):
            self.asleep[thread] = False
