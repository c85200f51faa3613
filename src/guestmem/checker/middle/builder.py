# SPDX-License-Identifier: Apache-2.0
"""Blocks being built: where instructions go, and which locals are known not to be None there."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

from guestmem.checker.ir import (
    ArrayOf,
    Block,
    Call,
    Const,
    Expr,
    Goto,
    If,
    Instr,
    Load,
    Local,
    Set,
    Store,
    Suspend,
    Var,
    assigned,
    fields_in,
    locals_in,
)
from guestmem.model.record import Field, RefType, ScalarType

E = TypeVar("E", bound=Expr)


class Builder:
    """The blocks of one body; ``block`` is the one that is being filled."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.block = self.new_block()
        self.vars = 0
        self.not_none: set[Var] = set()

    def new_block(self) -> Block:
        block = Block(len(self.blocks))
        self.blocks.append(block)
        return block

    def new_var(self, name: str, type_: ScalarType) -> Var:
        self.vars += 1
        return Var(name or "t", type_, self.vars, name)

    def emit(self, instr: Instr) -> None:
        if self.block.end is None:
            self.block.instrs.append(instr)

    def goto(self, target: Block) -> None:
        if self.block.end is None:
            self.block.end = Goto(target)

    def branch(self, condition: Expr, then: Block, other: Block) -> None:
        if self.block.end is None:
            if isinstance(condition, Const):
                self.block.end = Goto(then if condition.value else other)
            else:
                self.block.end = If(condition, then, other)

    def assign(self, var: Var, value: Expr) -> None:
        """Assign a local; what is known of the value is known of it."""
        self.not_none.discard(var)
        if isinstance(var.type, RefType) and not self.can_be_none(value):
            self.not_none.add(var)
        self.emit(Set(var, value))

    def temp(self, value: Expr) -> Expr:
        """The value of an expression now, whatever happens later."""
        if isinstance(value, Const):
            return value
        var = self.new_var("", value.type)
        self.assign(var, value)
        return Local(var)

    def simple(self, value: Expr) -> Expr:
        """A value that can be looked at twice."""
        return value if isinstance(value, (Const, Local)) else self.temp(value)

    def can_be_none(self, value: Expr) -> bool:
        match value:
            case Const(value=number, type=RefType()):
                return number == 0
            case Local(var):
                return isinstance(var.type, RefType) and var.type.optional and var not in self.not_none
            case Load(type=RefType(optional=optional)):
                return optional
        return False

    def reachable(self) -> list[Block]:
        """The blocks that can be reached, in order of creation, empty jumps skipped."""
        for block in self.blocks:
            match block.end:
                case Goto(target):
                    block.end = Goto(skip(target))
                case If(condition, then, other):
                    block.end = If(condition, skip(then), skip(other))
                case Suspend(boundary, resume):
                    block.end = Suspend(boundary, skip(resume))
        seen: set[Block] = set()
        work = [self.blocks[0]]
        while work:
            block = work.pop()
            if block not in seen:
                seen.add(block)
                work.extend(block.successors())
        return [block for block in self.blocks if block in seen]


def skip(block: Block) -> Block:
    """The first block from here that does something."""
    seen = set()
    while not block.instrs and isinstance(block.end, Goto) and block not in seen:
        seen.add(block)
        block = block.end.target
    return block


class _Operand(NamedTuple):
    """A value, and the moment at which it was evaluated."""

    value: Expr
    none: bool
    block: Block
    position: int
    blocks: int


class Operands:
    """The operands of one operation, evaluated once and in Python's order.

    An expression of the IR is evaluated where it stands, and what is built after it may change what it reads: a call
    that assigns a field, a boundary at which others go on, a loop inside a generator.  Whoever needs several values
    adds each as soon as it is built, and takes them all when the last is: those that something later may have changed
    are kept in a local at the moment they were added.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.operands: list[_Operand] = []

    def add(self, value: E) -> E:
        """The next operand; what is returned is its value until something else is built."""
        at = self.builder
        moment = at.block, len(at.block.instrs), len(at.blocks)
        self.operands.append(_Operand(value, at.can_be_none(value), *moment))
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
        var = self.builder.new_var("", value.type)
        operand.block.instrs.insert(operand.position, Set(var, value))
        if not operand.none:
            self.builder.not_none.add(var)
        return Local(var)

    def _may_change(self, operand: _Operand, value: Expr) -> bool:
        """Whether something built since an operand was added assigns what its value reads."""
        variables, fields = locals_in(value), fields_in(value)
        if not variables and not fields:
            return False
        later = self.builder.blocks[operand.blocks :]
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
