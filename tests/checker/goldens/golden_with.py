# SPDX-License-Identifier: Apache-2.0
"""A lock, left on every way out."""

from guestmem.model import Mutex, RwSem, World, bounded, part, step, thread


class W(World):
    lock: Mutex = part()
    sem: RwSem = part()
    n: int = bounded(1)

    @thread
    def only(self) -> None:
        self.locked()

    def locked(self) -> int:
        with self.lock:
            self.act()
            with self.sem.shared:
                if self.look() == 1:
                    return -1
        return 0

    @step
    def look(self) -> int:
        return self.n

    @step
    def act(self) -> None:
        self.n = 1
