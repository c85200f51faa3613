# SPDX-License-Identifier: Apache-2.0
"""Threads that repeat one step, with the step's choices unfolded.

Choices are normally tried by running a slice again for each of them.  Where a thread does nothing but one step over
and over (an uninvited accessor, an environment), the step is cut at its choices instead, and what follows a choice is
compiled once for each alternative, with the number known: guards then are a test of a few bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from guestmem.checker.ir import (
    Block,
    Body,
    Call,
    Choose,
    Const,
    Expr,
    Goto,
    Instr,
    Reached,
    Suspend,
    ThreadBody,
    begins,
    used_bodies,
)
from guestmem.checker.middle.bodies import Bodies

#: Alternatives times instructions beyond which unfolding costs more compile time than it saves.
LARGEST = 20000


class Fork:
    """A step cut at its choices: a part for its beginning (None) and one after each choice."""

    def __init__(self, body: Body, arguments: list[Expr], marks: Sequence[Instr]) -> None:
        self.body = body
        self.arguments = arguments
        self.marks = marks  # of the statement that is the step
        self._starts: dict[Choose | None, tuple[Block, int]] = {None: (body.blocks[0], 0)}
        for block in body.blocks:
            for position, instr in enumerate(block.instrs):
                if isinstance(instr, Choose):
                    self._starts[instr] = (block, position + 1)
        self.order: list[Choose | None] = []

    def start(self, choice: Choose | None) -> tuple[Block, int]:
        """Where the part after a choice begins."""
        return self._starts[choice]

    def part(self, choice: Choose | None) -> list[tuple[Block, int]]:
        """The blocks of a part, each with the position of its first instruction there."""
        found = [self._starts[choice]]
        for block, position in found:
            if not any(isinstance(instr, Choose) for instr in block.instrs[position:]):
                found += [(b, 0) for b in dict.fromkeys(block.successors()) if (b, 0) not in found]
        return found

    def following(self, choice: Choose | None) -> list[Choose]:
        """The choices at which a part ends."""
        firsts = [next((i for i in b.instrs[position:] if isinstance(i, Choose)), None) for b, position in self.part(choice)]
        return [c for c in firsts if c is not None]

    def settle(self) -> bool:
        """Order the parts, each before those that follow it; False if a choice can come again."""

        def visit(choice: Choose | None, path: list[Choose | None]) -> bool:
            if choice in path:
                return False
            if choice not in self.order:
                if not all(visit(c, [*path, choice]) for c in self.following(choice)):
                    return False
                self.order.insert(0, choice)
            return True

        return visit(None, [])

    def size(self, choice: Choose | None = None) -> int:
        """Instructions after unfolding, roughly."""
        own = sum(len(block.instrs) + 1 for block, _ in self.part(choice))
        return own + sum(c.n.value * self.size(c) for c in self.following(choice) if isinstance(c.n, Const))


def fork_of(thread: ThreadBody) -> Fork | None:
    """The unfolded form of a thread, if it only repeats one step that chooses among fixed numbers."""
    if len(thread.boundaries) != 1 or thread.boundaries[0].live or thread.boundaries[0].kind != "step":
        return None
    suspended = next(block for block in thread.blocks if isinstance(block.end, Suspend))
    assert isinstance(suspended.end, Suspend)
    resume = suspended.end.resume
    match resume:
        case Block(instrs=[*marks, Call(body=body, args=args)], end=Goto(target)) if (
            target is suspended and not suspended.instrs and all(map(begins, marks))
        ):
            pass
        case _:
            return None
    everything = [instr for used in used_bodies([body]) for block in used.blocks for instr in block.instrs]
    choices = [instr for instr in everything if isinstance(instr, Choose)]
    if not choices or any(isinstance(i, Reached) for i in everything) or not all(isinstance(c.n, Const) for c in choices):
        return None
    fork = Fork(body, args, marks)
    callees = sum(len(block.instrs) for used in used_bodies(body.calls) for block in used.blocks)
    return fork if fork.settle() and fork.size() * (1 + callees // 8) <= LARGEST else None


def unfolded(bodies: Bodies) -> dict[int, Fork]:
    """The unfolded form of those threads that have one, by their numbers."""
    forks = ((number, fork_of(thread)) for number, thread in enumerate(bodies.threads))
    return {number: fork for number, fork in forks if fork is not None}
