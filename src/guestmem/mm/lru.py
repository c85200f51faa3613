# SPDX-License-Identifier: Apache-2.0
"""The batches in which CPUs put new folios on the LRU lists (mm/swap.c); memory that cannot be evicted is no exception."""

from __future__ import annotations

from guestmem.mm.folio import Folio, Kernel
from guestmem.model import might_sleep, reached, step

__all__ = ["BatchingKernel"]


class BatchingKernel(Kernel):
    """A kernel that has a reference to a new folio until its batch is full, or drained.  A batch is full with one.

    Attributes:
        batch: what is in it.
    """

    batch: Folio | None = None

    @step
    def folio_add_lru(self, folio: Folio) -> None:
        before = self.batch
        self.batch = folio
        folio.refcount += 1
        if before is not None:
            self.put(before, 1)

    @step
    def lru_add_drain_all(self) -> None:
        might_sleep(self.preempt)
        before = self.batch
        self.batch = None
        if before is not None:
            reached("a reference that a batch had is dropped")
            self.put(before, 1)
