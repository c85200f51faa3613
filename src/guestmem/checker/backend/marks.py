# SPDX-License-Identifier: Apache-2.0
"""What is watched while a world is explored: a bit for each statement, and for each alternative of a decision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from guestmem.checker.ir import Block, Decision, Mark, Statement
from guestmem.checker.middle.intervals import Intervals

#: Alternatives of one decision that are told apart; the last bit is for all from there on.
MOST_TOLD = 64


def nothing(file: str) -> bool:
    """Watch no file."""
    return False


class HasBlocks(Protocol):
    """A body or a thread."""

    blocks: list[Block]


class Marks:
    """The numbers of the bits: one for a statement, one for each alternative of a decision.

    Attributes:
        statements: the bit of each statement.
        decisions: the first bit and the number of bits of each decision.
        words: how many 64-bit words the bits take.
    """

    def __init__(self, bodies: Iterable[tuple[HasBlocks, Intervals]]) -> None:
        self.statements: dict[Statement, int] = {}
        counts: dict[Decision, int] = {}
        for body, known in bodies:
            for mark in (i for block in body.blocks for i in block.instrs if isinstance(i, Mark)):
                if isinstance(mark.what, Statement):
                    self.statements.setdefault(mark.what, len(self.statements))
                elif mark.n is not None:
                    bounds = known.expr(mark.n)
                    most = min(bounds[1] if bounds else 0, MOST_TOLD)
                    counts[mark.what] = max(counts.get(mark.what, 0), most)
        self.decisions: dict[Decision, tuple[int, int]] = {}
        used = len(self.statements)
        for decision, count in counts.items():
            self.decisions[decision] = used, count
            used += count
        self.words = (used + 63) // 64

    def first(self, what: Statement | Decision) -> int:
        """The first bit of what is watched."""
        return self.statements[what] if isinstance(what, Statement) else self.decisions[what][0]

    def read(self, words: Sequence[int]) -> tuple[set[Statement], dict[Decision, list[bool]]]:
        """The statements that bits say were executed, and of each decision which alternatives were taken."""

        def on(bit: int) -> bool:
            return bool(words[bit // 64] >> bit % 64 & 1)

        statements = {statement for statement, bit in self.statements.items() if on(bit)}
        decisions = {what: [on(first + i) for i in range(count)] for what, (first, count) in self.decisions.items()}
        return statements, decisions
