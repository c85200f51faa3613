# SPDX-License-Identifier: Apache-2.0
"""What is known of local variables: the values they can have, and where they are still needed."""

from __future__ import annotations

from collections.abc import Sequence

from guestmem.checker.ir import (
    INT_HI,
    INT_LO,
    Block,
    Call,
    Choose,
    Const,
    Expr,
    If,
    Interval,
    Load,
    Local,
    Op,
    Part,
    Return,
    Set,
    Var,
    assigned,
    expressions,
    locals_in,
)
from guestmem.checker.lower import Body
from guestmem.checker.pools import Pools
from guestmem.model.record import BoolType

ROUNDS = 30


class Intervals:
    """The values each local of a body can have; bodies that are called must have been analysed before."""

    def __init__(self, pools: Pools, blocks: Sequence[Block], parameters: Sequence[Var], results: dict[Body, list[Interval]]):
        self.pools = pools
        self.of: dict[Var, Interval] = {p: pools.interval(p.type) for p in parameters}
        self.results = results
        for round_ in range(ROUNDS + 1):
            if not self._round(blocks, widen=round_ >= ROUNDS - 1):
                break

    def _round(self, blocks: Sequence[Block], widen: bool) -> bool:
        changed = False
        for block in blocks:
            for instr in block.instrs:
                found: list[tuple[Var, Interval | None]] = []
                match instr:
                    case Set(var, value):
                        found = [(var, self.expr(value))]
                    case Choose(var, _, _):
                        found = [(var, None)]
                    case Call(body, _, variables, _):
                        found = list(zip(variables, self.results[body], strict=True))
                for var, interval in found:
                    changed |= self._join(var, interval, widen)
        return changed

    def _join(self, var: Var, interval: Interval | None, widen: bool) -> bool:
        if var.bounds is not None:
            start, end = self.expr(var.bounds[0]), self.expr(var.bounds[1])
            interval = (start[0], max(start[0], end[1] - 1)) if start and end else None
        if interval is None:
            return False
        before = self.of.get(var)
        joined = interval if before is None else (min(before[0], interval[0]), max(before[1], interval[1]))
        if joined == before:
            return False
        self.of[var] = self.pools.interval(var.type) if widen and before is not None else joined
        return self.of[var] != before

    def expr(self, expr: Expr) -> Interval | None:
        """The values an expression can have; None where control has not been seen to come."""
        match expr:
            case Const(value=value):
                return value, value
            case Local(var):
                return self.of.get(var)
            case Load(field=field, changes=changes):
                if changes:
                    return self.pools.interval(field.type)
                values = self.pools.values(field)
                return min(values), max(values)
            case Part(field=field):
                numbers = self.pools.values(field)
                return min(numbers), max(numbers)
            case Op(op="current"):
                return 0, len(self.pools.world.threads) - 1
            case Op(type=BoolType()):
                return 0, 1
            case Op(op=op, args=args):
                operands = [self.expr(a) for a in args]
                if any(o is None for o in operands):
                    return None
                low, high = self._arithmetic(op, [o for o in operands if o is not None])
                if not isinstance(expr.type, BoolType):
                    first, last = self.pools.interval(expr.type)
                    low, high = max(low, first), min(high, last)
                return (low, high) if low <= high else (first, last)
        raise AssertionError(expr)

    @staticmethod
    def _arithmetic(op: str, operands: list[Interval]) -> Interval:
        (a, b), (c, d) = operands
        match op:
            case "+":
                return a + c, b + d
            case "-":
                return a - d, b - c
            case "*":
                products = [a * c, a * d, b * c, b * d]
                return min(products), max(products)
            case "min":
                return min(a, c), min(b, d)
            case "max":
                return max(a, c), max(b, d)
            case "floordiv" if c > 0:
                quotients = [a // c, a // d, b // c, b // d]
                return min(quotients), max(quotients)
            case "floormod" if c > 0:
                return 0, d - 1
            case "<<" if a >= 0 and c >= 0 and d < 31:
                return a << c, b << d
            case ">>" if a >= 0 and c >= 0:
                return a >> d, b >> c
            case "&" if a >= 0 and c >= 0:
                return 0, min(b, d)
            case "|" | "^" if a >= 0 and c >= 0:
                return 0, (1 << max(b, d).bit_length()) - 1
        return INT_LO, INT_HI


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
            live -= set(assigned(instr))
            live |= set().union(*map(locals_in, expressions(instr)))
        return live

    def at(self, block: Block, position: int = 0) -> list[Var]:
        """The locals needed before the instruction at a position of a block."""
        return sorted(self._at(block, position), key=lambda var: var.number)
