# SPDX-License-Identifier: Apache-2.0
"""A field that is changed only under a lock."""

from guestmem.model import Mutex, World, bounded, guards, part, step, thread


class W(World):
    lock: Mutex = part()
    n: int = bounded(1)

    @guards("n")
    def locked(self) -> bool:
        return self.lock.held()

    @thread
    def only(self) -> None:
        with self.lock:
            self.act()

    @step
    def act(self) -> None:
        self.n = 1
