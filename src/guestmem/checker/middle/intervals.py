# SPDX-License-Identifier: Apache-2.0
"""The values that locals can have, through all bodies of a program.

What a body is called with flows into its parameters, what it returns into those who call it.  Numbers have no bounds in
Python; the checker computes with 127 bits (with 63, where a local grows
without bound), and an operation whose result may not fit them is one that can stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from guestmem.checker.ir import (
    Block,
    Body,
    Call,
    Choose,
    Const,
    Expr,
    If,
    Load,
    Local,
    Op,
    Part,
    Require,
    Return,
    Set,
    Store,
    ThreadBody,
    Var,
    When,
    children,
    expressions,
)
from guestmem.checker.middle.bodies import Bodies
from guestmem.checker.pools import Pools
from guestmem.checker.values import WORD_HI, WORD_LO, Interval, fits, fits_word
from guestmem.model.record import BoolType, RefType

#: Times that a local's interval may grow before the end that grows is taken to be that of a word, and then to have no bound.
GROWTH = 30


def ranges(pools: Pools, bodies: Bodies) -> Ranges:
    """The intervals in all bodies of a program; the properties are called with the world."""
    world = (pools.number(pools.world),) * 2
    properties = [body for _, body in bodies.always + bodies.sometimes]
    return Ranges(pools, bodies.threads, [(body, [world for _ in body.parameters]) for body in properties])


class Ranges:
    """The intervals of every body and thread."""

    def __init__(self, pools: Pools, threads: Iterable[ThreadBody], roots: Iterable[tuple[Body, list[Interval]]]) -> None:
        self.pools = pools
        self.bodies: dict[Body, Intervals] = {}
        self.threads: dict[ThreadBody, Intervals] = {}
        for thread in threads:
            self.threads[thread] = known = Intervals(self, thread.blocks)
            known.update()
        for body, arguments in roots:
            self.call(body, arguments)

    def call(self, body: Body, arguments: Sequence[Interval | None]) -> list[Interval | None]:
        """The results of a body, called with these values too; None where control has not been seen to come."""
        new = body not in self.bodies
        if new:
            self.bodies[body] = Intervals(self, body.blocks)
        known = self.bodies[body]
        comes = None not in arguments
        grown = [comes and known.join(var, interval) for var, interval in zip(body.parameters, arguments, strict=True)]
        if new or any(grown):
            known.update()
        return self.results(body)

    def results(self, body: Body) -> list[Interval | None]:
        """The results of a body, with what it has been called with."""
        known, ends = self.bodies[body], [block.end for block in body.blocks if isinstance(block.end, Return)]
        return [known.expr(value) for value in ends[0].values] if ends else [None] * len(body.results)

    def stopping(self, bodies: Iterable[Body]) -> set[Body]:
        """The bodies that can end without a result; ``bodies`` are given callees first."""
        found: set[Body] = set()
        for body in bodies:
            if any(map(self.bodies[body].can_stop, body.blocks)) or not found.isdisjoint(body.calls):
                found.add(body)
        return found


class Intervals:
    """The values each local of a body can have, whatever the path."""

    def __init__(self, ranges: Ranges, blocks: Sequence[Block]) -> None:
        self.ranges = ranges
        self.pools = ranges.pools
        self.blocks = blocks
        self.of: dict[Var, Interval] = {}
        self._growth: dict[Var, int] = {}
        self._counts: set[int] = set()  # the ids of what locals are set to that grow without bound

    def update(self) -> None:
        """Go through the body until nothing grows."""
        grown = True
        while grown:
            grown = False
            for block in self.blocks:
                for instr in block.instrs:
                    grown |= self._instruction(instr)

    def _instruction(self, instr: object) -> bool:
        match instr:
            case Set(var, value):
                if self._growth.get(var, 0) > GROWTH:
                    self._counts.add(id(value))
                return self.join(var, self.expr(value))
            case Choose(var, _, _):
                return self.join(var, None)
            case Call(body, arguments, variables, _):
                results = self.ranges.call(body, [self.expr(a) for a in arguments])
                grown = [self.join(var, result) for var, result in zip(variables, results, strict=True)]
                return any(grown)
        return False

    def join(self, var: Var, interval: Interval | None) -> bool:
        """Note that a local can have these values too; whether that is news."""
        if var.bounds is not None:
            start, end = self.expr(var.bounds[0]), self.expr(var.bounds[1])
            interval = (start[0], max(start[0], end[1] - 1)) if start and end else None
        if interval is None:
            return False
        low, high = within(interval, self.pools.interval(var.type))
        before = self.of.get(var)
        if before is not None:
            if before[0] <= low and high <= before[1]:
                return False
            first, last = self.pools.interval(var.type)
            growth = self._growth[var] = self._growth.get(var, 0) + 1
            if growth > GROWTH:
                low = low if low >= before[0] else max(first, WORD_LO) if low >= WORD_LO else first
                high = high if high <= before[1] else min(last, WORD_HI) if high <= WORD_HI else last
            low, high = min(low, before[0]), max(high, before[1])
        self.of[var] = low, high
        return True

    def expr(self, expr: Expr) -> Interval | None:
        """The values an expression can have; None where control has not been seen to come."""
        match expr:
            case Op(type=type_) if not isinstance(type_, BoolType):
                exact = self.exact(expr)
                limits = (WORD_LO, WORD_HI) if self.stays_in_word(expr) else self.pools.interval(type_)
                return exact and within(exact, limits)
            case Const(value=value):
                return value, value
            case Local(var):
                return self.of.get(var)
            case Load(field=field, changes=True):
                return self.pools.interval(field.type)
            case Load(field=field):
                values = self.pools.values(field)
                return min(values), max(values)
            case Part(field=field):
                numbers = self.pools.values(field)
                return min(numbers), max(numbers)
            case Op():
                return 0, 1
        raise AssertionError(expr)

    def exact(self, op: Op) -> Interval | None:
        """The values that Python's numbers would have."""
        if op.op == "current":
            return 0, len(self.pools.world.threads) - 1
        left, right = (self.expr(argument) for argument in op.args)
        return left and right and arithmetic(op.op, left, right)

    def fits(self, store: Store) -> bool:
        """Whether what is stored lies in the range of the field."""
        low, high = self.pools.interval(store.field.type)
        values = self.expr(store.value)
        if values is None:  # control does not come here
            return True
        if isinstance(store.field.type, RefType):  # a None that must not be is another rule's
            return values[1] <= high and (values[0] >= low or values[0] == 0)
        return low <= values[0] and values[1] <= high

    def can_stop(self, block: Block) -> bool:
        """Whether a body can end in a block without a result: it waits, chooses, breaks a rule, or has too large a number."""
        evaluated = [e for instr in block.instrs for e in expressions(instr)]
        match block.end:
            case If(condition, _, _):
                evaluated.append(condition)
            case Return(values):
                evaluated += values
        stops = any(isinstance(i, (When, Require, Choose)) or (isinstance(i, Store) and not self.fits(i)) for i in block.instrs)
        return stops or any(map(self.overflows, evaluated))

    def overflows(self, expr: Expr) -> bool:
        """Whether a number in an expression may not fit those that the checker computes with."""
        return self.op_overflows(expr) or any(map(self.overflows, children(expr)))

    def is_wide(self, expr: Expr) -> bool:
        """Whether an expression may have values that do not fit a word."""
        values = self.expr(expr)
        return values is not None and not fits_word(values)

    def stays_in_word(self, op: Op) -> bool:
        """Whether an operation counts, or sums up, and stops at a word: most that do have a bound, which is not seen here."""
        return id(op) in self._counts and not any(map(self.is_wide, op.args))

    def computes_wide(self, op: Op) -> bool:
        """Whether an operation, or what it works on, may leave a word."""
        exact = None if isinstance(op.type, BoolType) or self.stays_in_word(op) else self.exact(op)
        return (exact is not None and not fits_word(exact)) or any(map(self.is_wide, op.args))

    def op_overflows(self, expr: Expr) -> bool:
        """Whether the result of an operation may not fit."""
        if not isinstance(expr, Op) or isinstance(expr.type, BoolType):
            return False
        exact = self.exact(expr)
        return exact is not None and not (fits_word(exact) if self.stays_in_word(expr) else all(map(fits, exact)))


def within(interval: Interval, bounds: Interval) -> Interval:
    """The part of an interval inside bounds; the bounds, where there is none."""
    low, high = max(interval[0], bounds[0]), min(interval[1], bounds[1])
    return (low, high) if low <= high else bounds


def arithmetic(op: str, left: Interval, right: Interval) -> Interval:
    """The results of an operation on integers; divisors are not 0 and shift counts not negative, that is tested before."""
    (a, b), (c, d) = left, right
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
        case "floordiv":
            most = max(abs(a), abs(b))
            return -most, most
        case "floormod":
            return min(0, c + 1), max(0, d - 1)
        case "<<":
            shifted = [n << min(max(s, 0), 128) for n in (a, b) for s in (c, d)]  # 128 is too much, whatever is above it
            return min(shifted), max(shifted)
        case ">>":
            shifted = [n >> min(max(s, 0), 128) for n in (a, b) for s in (c, d)]
            return min(shifted), max(shifted)
        case "&" if a >= 0 or c >= 0:
            return 0, min(n for low, n in (left, right) if low >= 0)
        case "&" | "|" | "^":
            width = max((n if n >= 0 else ~n).bit_length() for n in (a, b, c, d))
            return (0 if a >= 0 and c >= 0 else -1 << width), (1 << width) - 1
    raise AssertionError(op)
