# expected of `guestmem check tests/trust/none_after_early_return.py:W`: violated: no None is used as a record
from __future__ import annotations

from guestmem.model import Record, World, bounded, may, part, step, thread


class Node(Record):
    n: int = bounded(9)

    @step
    def poke(self) -> None:
        self.n = 1


class W(World):
    node: Node = part()

    @thread
    def visitor(self) -> None:
        found = self.find()
        self.visit(found)
        self.use(found)

    @step
    def find(self) -> Node | None:
        if may("found"):
            return self.node
        return None

    def visit(self, node: Node | None) -> None:
        if node is None:
            return
        node.poke()

    def use(self, node: Node | None) -> None:
        node.poke()
