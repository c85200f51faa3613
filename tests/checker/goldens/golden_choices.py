# SPDX-License-Identifier: Apache-2.0
"""choose and may: in a thread a boundary, in a step not."""

from guestmem.model import World, bounded, choose, may, step, thread


class W(World):
    n: int = bounded(3)

    @thread
    def only(self) -> None:
        if may("begin"):
            self.put(choose(3))

    @step
    def put(self, value: int) -> None:
        self.n = value + choose(2, "low, high")
