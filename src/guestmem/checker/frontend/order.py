# SPDX-License-Identifier: Apache-2.0
"""Operands, evaluated once and in Python's order.

An expression of the translation is evaluated where it stands, and what is translated after it may change what it reads:
a call that assigns a field, a boundary at which others go on, a loop inside a generator.  Whoever needs several values
adds each as soon as it is translated, and takes them all when the last is: those that something later may have changed
are kept in a local at the moment they were added.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from guestmem.checker.ir import ArrayOf, Block, Call, Expr, Instr, Local, Set, Store, Suspend, assigned, fields_in, locals_in
from guestmem.model.record import Field

if TYPE_CHECKING:
    from guestmem.checker.lower import Lowering

E = TypeVar("E", bound=Expr)


class _Operand(NamedTuple):
    """A value, and the moment at which it was evaluated."""

    value: Expr
    none: bool
    block: Block
    position: int
    blocks: int


class Operands:
    """The operands of one operation, in the order in which Python evaluates them."""

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering
        self.operands: list[_Operand] = []

    def add(self, value: E) -> E:
        """The next operand; what is returned is its value until something else is translated."""
        low = self.lowering
        moment = low.block, len(low.block.instrs), len(low.blocks)
        self.operands.append(_Operand(value, low.can_be_none(value), *moment))
        return value

    def take(self) -> list[Expr]:
        """All operands, each with the value that it had when it was added."""
        values = [self._keep(operand, operand.value) for operand in reversed(self.operands)]  # each inserts before the last
        return values[::-1]

    def _keep(self, operand: _Operand, value: Expr) -> Expr:
        if isinstance(value, ArrayOf):
            return replace(value, ref=self._keep(operand, value.ref))
        if not self._may_change(operand, value):
            return value
        var = self.lowering.new_var("", value.type)
        operand.block.instrs.insert(operand.position, Set(var, value))
        if not operand.none:
            self.lowering.not_none.add(var)
        return Local(var)

    def _may_change(self, operand: _Operand, value: Expr) -> bool:
        """Whether something translated since an operand was added assigns what its value reads."""
        variables, fields = locals_in(value), fields_in(value)
        later = self.lowering.blocks[operand.blocks :]
        if fields and any(isinstance(block.end, Suspend) for block in (operand.block, *later)):
            return True
        instrs = [*operand.block.instrs[operand.position :], *(instr for block in later for instr in block.instrs)]
        return any(not fields.isdisjoint(_stores(i)) or not variables.isdisjoint(assigned(i)) for i in instrs)


def _stores(instr: Instr) -> set[Field]:
    """The fields that an instruction may assign."""
    match instr:
        case Store(field=field):
            return {field}
        case Call(body=body):
            return body.writes
    return set()
