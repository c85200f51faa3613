# SPDX-License-Identifier: Apache-2.0
"""A body being built: the functions it is in, where it can be interrupted, and what operations on values become."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from guestmem.checker.frontend import tree
from guestmem.checker.frontend.source import Place
from guestmem.checker.frontend.tree import Routine
from guestmem.checker.ir import (
    Block,
    Boundary,
    Const,
    Expr,
    Left,
    Local,
    Loop,
    Require,
    Set,
    Suspend,
    Var,
    begins,
    locals_in,
    reads_state,
)
from guestmem.checker.middle.builder import Builder
from guestmem.checker.middle.specialise import Known
from guestmem.checker.values import BOOL, INT
from guestmem.model.errors import IN_RANGE, NO_NONE
from guestmem.model.record import IntType, Record, RefType, ScalarType


@dataclass
class Frame:
    """A routine being lowered into a body: the outermost, or one inlined."""

    routine: Routine
    env: dict[str, Expr]
    results: list[Var]
    exit: Block
    returns: list[set[Var]] = field(default_factory=list)  # for each way to the exit, what is known not to be None
    guards: list[Callable[[], object]] = field(default_factory=list)
    loops: list[tuple[Block, Block, int]] = field(default_factory=list)  # continue, break, guards held outside
    at: Place | None = None
    around: Loop | None = None  # the loop that its caller is in

    @property
    def assigned_once(self) -> set[str]:
        return self.routine.function.assigned_once


class Frames(Builder):
    """The frames of a body that is built, ``number`` that of a thread; what is ``known`` is folded."""

    def __init__(self, known: Known, number: int | None) -> None:
        super().__init__()
        self.known = known
        self.pools = known.pools
        self.number = number
        self.is_thread = number is not None
        self.frames: list[Frame] = []
        self.within: Loop | None = None  # the innermost `while` that is being lowered

    def enter(self, routine: Routine, env: dict[str, Expr]) -> None:
        variables = [self.new_var("", type_) for type_ in routine.results]
        self.frames.append(Frame(routine, env, variables, self.new_block(), around=self.within))

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def place(self, node: ast.AST) -> Place:
        return self.frame.routine.function.place(node)

    def suspend(self, kind: str, node: ast.AST) -> None:
        """Put a boundary here, before what the next block does."""
        if self.block.end is not None:
            return
        places = [frame.at for frame in self.frames[1:]] + [self.place(node)]
        stack = []
        for frame, place in zip(self.frames, places, strict=True):
            assert place is not None
            stack.append((frame.routine.function, place, {n: e.var for n, e in frame.env.items() if isinstance(e, Local)}))
        resume = self.new_block()
        while self.block.instrs and begins(self.block.instrs[-1]):  # a statement that begins with the step
            resume.instrs.insert(0, self.block.instrs.pop())
        self.block.end = Suspend(Boundary(kind, stack, self.within, [dict(frame.env) for frame in self.frames]), resume)
        self.block = resume

    def settled(self, value: Expr) -> Expr:
        """A value that stays what it is while the statements run that follow in this function."""
        frame = self.frame
        moving = {e.var for name, e in frame.env.items() if isinstance(e, Local) and name not in frame.assigned_once}
        return value if moving.isdisjoint(locals_in(value)) and not reads_state(value) else self.temp(value)

    def require(self, condition: Expr, rule: str, detail: str, node: ast.AST) -> None:
        self.emit(Require(condition, rule, detail, self.place(node)))

    def expect(self, node: ast.AST, type_: ScalarType, value: Expr, what: object, rule: str = NO_NONE) -> None:
        """Break a rule where a value is None that must not be."""
        if isinstance(type_, RefType) and not type_.optional and self.can_be_none(value):
            self.require(self.known.not_zero(value), rule, f"None for {what}", node)
            if isinstance(value, Local):
                self.not_none.add(value.var)

    def leave(self, *loops: Loop) -> None:
        """Note that loops are over, where they can be interrupted."""
        if self.is_thread:
            for loop in loops:
                self.emit(Left(loop))

    def release(self, held: int) -> None:
        """Leave the guards entered since ``held`` of them were, innermost first."""
        frame = self.frame
        saved = list(frame.guards)
        while len(frame.guards) > held:
            leave = frame.guards.pop()
            leave()
        frame.guards = saved

    def facts(self, test: tree.Expr, truth: bool) -> set[Var]:
        """The locals known not to be None when a condition turned out ``truth``."""
        match test:
            case tree.Comparison(ops=[op], operands=[tree.Name(name=name), none]) if tree.is_none(none):
                if op == ("!=" if truth else "=="):
                    known = self.frame.env.get(name)
                    return {known.var} if isinstance(known, Local) else set()
            case tree.Not(operand=operand):
                return self.facts(operand, not truth)
            case tree.Logic(every=every, parts=parts) if every == truth:
                return set().union(*(self.facts(part, truth) for part in parts))
        return set()

    # ---- operations

    def arithmetic(self, node: ast.AST, op: str, a: Expr, b: Expr) -> Expr:
        """An operation on integers; a divisor and a shift count are tested unless they are known."""
        low, high = self.known.interval(b)
        divides, shifts = op.startswith("floor") and low <= 0 <= high, op in ("<<", ">>") and low < 0
        if divides or shifts:
            b = self.simple(b)
            condition = self.known.fold("!=" if divides else ">=", [b, Const(0, INT)], BOOL)
            what = "division by zero" if divides else "negative shift count"
            self.require(condition, IN_RANGE, f"{ast.unparse(node)}: {what}", node)
        return self.known.fold(op, [a, b], INT, self.place(node))

    def check_index(self, node: ast.expr, kind: IntType, value: Expr) -> Expr:
        """Break a rule where a value becomes an index that is out of its range, unless its type says that it is not."""
        low, high = self.known.interval(value)
        first, last = self.pools.interval(kind)
        if low < first or high > last:
            value = self.simple(value)
            detail = f"{ast.unparse(node)} outside {first}..{last}"
            self.require(self.known.inside(value, first, last), IN_RANGE, detail, node)
        return value

    def lazily(self, every: bool, parts: Sequence[Callable[[], Expr]]) -> Expr:
        """All of some conditions, or any of them, none evaluated after one that decides."""
        op = "&&" if every else "||"
        result = parts[0]()
        for part in parts[1:]:
            if isinstance(result, Const) and bool(result.value) != every:
                return result
            saved = set(self.not_none)
            before = self.block
            inside = self.new_block()
            self.block = inside
            right = part()
            self.not_none = saved
            if self.block is inside and not inside.instrs:
                self.block = before
                result = self.known.fold(op, [result, right], BOOL)
                continue
            var = self.new_var("", BOOL)
            self.emit(Set(var, right))
            join = self.new_block()
            self.goto(join)
            self.block = before
            self.emit(Set(var, result))
            self.branch(Local(var), inside if every else join, join if every else inside)
            self.block = join
            result = Local(var)
        return result

    def as_class(self, ref: Expr, cls: type[Record] | None) -> Expr:
        """A reference known to point to a record of ``cls``."""
        assert isinstance(ref.type, RefType)
        if cls is None or (issubclass(ref.type.cls, cls) and not isinstance(ref, Const)):
            return ref
        if isinstance(ref, Const):
            return Const(ref.value, RefType(cls, False))
        var = self.new_var("", RefType(cls, False))
        self.emit(Set(var, ref))
        return Local(var)
