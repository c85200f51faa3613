# expected of `guestmem check tests/trust/iterated_once.py:W`: violated: what is iterated is looked up once, so the mark is seen
from guestmem.model import Record, World, array, part, require, step, thread


class Node(Record):
    marks: list[bool] = array(3)


class W(World):
    p: Node = part()
    q: Node = part()

    @thread
    def walker(self) -> None:
        self.walk()

    @step
    def walk(self) -> None:
        self.p.marks[1] = True
        node = self.p
        for mark in node.marks:
            node = self.q
            require(not mark, "no mark is seen")
