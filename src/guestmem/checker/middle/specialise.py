# SPDX-License-Identifier: Apache-2.0
"""What the world as built already decides: fields that nothing assigns, parts, who is the only one of a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from guestmem.checker.frontend import tree
from guestmem.checker.frontend.source import Place
from guestmem.checker.ir import Const, Expr, Load, Local, Op, Part
from guestmem.checker.pools import Pools
from guestmem.checker.values import BOOL, INT, Interval, fits, result
from guestmem.model.record import Field, IntType, Record, RefType, ScalarType


class Known:
    """Makes expressions of the IR, each a constant where it can be; fields that are not among ``changing`` are."""

    def __init__(self, pools: Pools, changing: set[Field] | None) -> None:
        self.pools = pools
        self.changing = changing  # None: not known yet, every field may change
        self._constants: dict[Field, list[int]] = {}

    def changes(self, field: Field) -> bool:
        """Whether a field may change."""
        return self.changing is None or field in self.changing

    def constant(self, field: Field) -> list[int] | None:
        """The values of a field nothing assigns; None if it can change."""
        if self.changes(field):
            return None
        if field not in self._constants:
            self._constants[field] = self.pools.values(field)
        return self._constants[field]

    def only(self, type_: ScalarType) -> Const | None:
        """The one record that a parameter of a type can be, if there is no other."""
        low, high = self.pools.interval(type_)
        return Const(low, type_) if isinstance(type_, RefType) and low == high else None

    def field(self, declared: Field, ref: Expr, index: Expr | None = None) -> Expr:
        """A field of a record, or an element of it."""
        if declared.kind == "part" or declared.parts:
            return self._part(declared, ref, index)
        if not self.pools.records(declared.owner):  # no record has the field: this is never evaluated
            return Const(self.pools.interval(declared.type)[0], declared.type)
        values = self.constant(declared)
        if values:
            position = self._position(declared, ref, index)
            if position is not None:
                return Const(values[position], declared.type)
            if len(set(values)) == 1:
                return Const(values[0], declared.type)
        if isinstance(declared.type, IntType):
            low, high = self.pools.interval(declared.type)
            if low == high:
                return Const(low, declared.type)
        return Load(declared, ref, index, declared.type, changes=values is None)

    def _part(self, declared: Field, ref: Expr, index: Expr | None) -> Expr:
        position = self._position(declared, ref, index)
        if position is not None:
            return Const(self.pools.values(declared)[position], declared.type)
        if not self.pools.records(declared.owner):
            return Const(0, declared.type)
        return Part(declared, ref, index, declared.type)

    def _position(self, declared: Field, ref: Expr, index: Expr | None) -> int | None:
        """Where a field's value stands among all its values, if that is known."""
        if not isinstance(ref, Const) or ref.value == 0 or not (index is None or isinstance(index, Const)):
            return None
        first = self.pools.interval(RefType(declared.owner, False))[0]
        offset = index.value if isinstance(index, Const) else 0
        if not 0 <= offset < self.pools.length(declared):
            return None  # never reached: the index has broken a rule
        return (ref.value - first) * self.pools.length(declared) + offset

    def fold(self, op: str, args: list[Expr], type_: ScalarType, place: Place | None = None) -> Expr:
        """An operation, computed now if it can be."""
        a, b = args
        if isinstance(a, Const) and isinstance(b, Const):
            number = result(op, a.value, b.value)
            if number is not None and fits(number):
                return Const(number, type_)
        if op in ("&&", "||"):
            for one, two in ((a, b), (b, a)):
                if isinstance(one, Const):
                    absorbs = bool(one.value) == (op == "||")
                    return Const(int(op == "||"), BOOL) if absorbs else two
        return Op(op, args, type_, place)

    def compared(self, op: str, a: Expr, b: Expr, can_be_none: Callable[[Expr], bool]) -> Expr:
        """A comparison; what can not be None is known to differ from it."""
        for one, other in ((a, b), (b, a)):
            none = isinstance(one, Const) and one.value == 0 and isinstance(one.type, RefType)
            if none and not isinstance(other, Const) and not can_be_none(other):
                return Const(int(op == "!="), BOOL)
        return self.fold(op, [a, b], BOOL)

    def unary(self, node: tree.Unary, operand: Expr, place: Place | None = None) -> Expr:
        """The negative, the opposite, the truth of a value, or a boolean as a number."""
        match node:
            case tree.Negative():
                return self.fold("-", [Const(0, INT), operand], INT, place)
            case tree.Not():
                return self.fold("==", [operand, Const(0, INT)], BOOL)
            case tree.Truth():
                return self.not_zero(operand)
            case _:
                return self.fold("+", [operand, Const(0, INT)], INT)

    def not_zero(self, value: Expr) -> Expr:
        """Whether a number is not 0, a record not None."""
        return self.fold("!=", [value, Const(0, INT)], BOOL)

    def inside(self, value: Expr, low: int, high: int) -> Expr:
        """Whether low <= value <= high."""
        above = self.fold(">=", [value, Const(low, INT)], BOOL)
        return self.fold("&&", [above, self.fold("<=", [value, Const(high, INT)], BOOL)], BOOL)

    def interval(self, value: Expr) -> Interval:
        """What the type of a value, or the loop that counts it, says of its bounds."""
        if isinstance(value, Const):
            return value.value, value.value
        if isinstance(value, Local) and value.var.bounds is not None:
            start, end = value.var.bounds
            return self.interval(start)[0], self.interval(end)[1] - 1
        return self.pools.interval(value.type)

    def classes(self, ref: Expr) -> list[type[Record]]:
        """The classes a reference may point to, among the records there are."""
        assert isinstance(ref.type, RefType)
        if isinstance(ref, Const):
            record = self.pools.record(ref.type.cls, ref.value)
            return [] if record is None else [type(record)]
        return self.pools.classes(ref.type.cls)

    def is_one_of(self, ref: Expr, classes: Sequence[type[Record]]) -> Expr:
        """Whether a record is of one of these classes."""
        found: Expr = Const(0, BOOL)
        for cls in classes:
            numbers = [self.pools.number(r) for r in self.pools.records(cls) if type(r) is cls]
            found = self.fold("||", [found, self.inside(ref, numbers[0], numbers[-1])], BOOL)
        return found
