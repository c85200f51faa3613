# SPDX-License-Identifier: Apache-2.0
"""Where local variables are still needed."""

from __future__ import annotations

from collections.abc import Sequence

from guestmem.checker.ir import Block, Const, If, Require, Return, Suspend, Var, assigned, expressions, locals_in
from guestmem.checker.middle.bodies import Bodies


class Liveness:
    """The locals still needed at each point of some blocks."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._before: dict[Block, set[Var]] = {block: set() for block in blocks}
        changed = True
        while changed:
            changed = False
            for block in reversed(blocks):
                live = self._at(block, 0)
                if live != self._before[block]:
                    self._before[block] = live
                    changed = True

    def _at(self, block: Block, position: int) -> set[Var]:
        live = set().union(*(self._before[successor] for successor in block.successors()))
        match block.end:
            case If(condition, _, _):
                live |= locals_in(condition)
            case Return(values):
                live |= set().union(*map(locals_in, values))
        for instr in reversed(block.instrs[position:]):
            if isinstance(instr, Require) and isinstance(instr.condition, Const) and not instr.condition.value:
                live = set()  # a panic: nothing comes after it
            live -= set(assigned(instr))
            live |= set().union(*map(locals_in, expressions(instr)))
        return live

    def at(self, block: Block, position: int = 0) -> list[Var]:
        """The locals needed before the instruction at a position of a block."""
        return sorted(self._at(block, position), key=lambda var: var.number)


def note_live(bodies: Bodies) -> None:
    """Note at each boundary of the threads which locals are needed after it."""
    for thread in bodies.threads:
        live = Liveness(thread.blocks)
        for block in thread.blocks:
            if isinstance(block.end, Suspend):
                block.end.boundary.live = live.at(block.end.resume)
