# SPDX-License-Identifier: Apache-2.0
"""The records of a world as numbers.

Records of one family (a class directly below Record, with its subclasses) form a pool; a reference is the position in
the pool plus one, and 0 is None.  Subclasses stand together, so "is it a Gunyah driver" is a range of numbers.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from guestmem.model.record import BoolType, EnumType, Field, IntType, Record, RefType, ScalarType, evaluate
from guestmem.model.world import World, records_of


def family_of(cls: type[Record]) -> type[Record]:
    """The class directly below Record from which ``cls`` comes."""
    return [base for base in cls.__mro__ if issubclass(base, Record) and base is not Record][-1]


class Pools:
    """All records of a world, numbered."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.geometry: dict[str, int] = world.geometry
        families: dict[type[Record], dict[type[Record], list[Record]]] = defaultdict(lambda: defaultdict(list))
        for record in records_of(world):
            families[family_of(type(record))][type(record)].append(record)
        self.pool: dict[type[Record], list[Record]] = {}
        self.numbers: dict[int, int] = {}
        self._intervals: dict[ScalarType, tuple[int, int]] = {}
        for family, classes in families.items():
            order = sorted(classes, key=lambda cls: [base.__qualname__ for base in reversed(cls.__mro__)])
            self.pool[family] = [record for cls in order for record in classes[cls]]
            self.numbers.update({id(record): i + 1 for i, record in enumerate(self.pool[family])})

    def number(self, record: Record | None) -> int:
        """The number of a record; 0 for None."""
        return 0 if record is None else self.numbers[id(record)]

    def records(self, cls: type[Record]) -> list[Record]:
        """The records of a class and its subclasses, in order of their numbers."""
        return [r for r in self.pool.get(family_of(cls), []) if isinstance(r, cls)]

    def record(self, cls: type[Record], number: int) -> Record | None:
        """The record with a number, in the pool of ``cls``."""
        return self.pool[family_of(cls)][number - 1] if number else None

    def interval(self, type_: ScalarType) -> tuple[int, int]:
        """The numbers a value of a type may have."""
        if type_ not in self._intervals:
            self._intervals[type_] = self._interval(type_)
        return self._intervals[type_]

    def _interval(self, type_: ScalarType) -> tuple[int, int]:
        match type_:
            case BoolType():
                return 0, 1
            case IntType(lo=lo, hi=hi):
                return evaluate(lo, self.geometry), evaluate(hi, self.geometry)
            case EnumType(members=members):
                return 0, len(members) - 1
            case RefType(cls=cls, optional=optional):
                records = self.records(cls)
                if not records:
                    return 0, 0
                first, last = self.number(records[0]), self.number(records[-1])
                return (0 if optional else first), last
        raise AssertionError(type_)

    def encode(self, value: Any, type_: ScalarType) -> int:
        """A Python value as its number."""
        if isinstance(type_, RefType):
            return self.number(value)
        if isinstance(type_, EnumType):
            return type_.members.index(value)
        return int(value)

    def decode(self, number: int, type_: ScalarType) -> Any:
        """A number as the Python value it stands for."""
        match type_:
            case BoolType():
                return bool(number)
            case IntType(index=index):
                return index(number) if index else number
            case EnumType(members=members):
                return members[number]
            case RefType(cls=cls):
                return self.record(cls, number)
        raise AssertionError(type_)

    def values(self, field: Field) -> list[int]:
        """The numbers a scalar or array field holds in the world as built: record by record, element by element."""
        found: list[int] = []
        for record in self.records(field.owner):
            value = getattr(record, field.name)
            for element in value if field.kind == "array" else [value]:
                found.append(self.encode(element, field.type))
        return found

    def length(self, field: Field) -> int:
        """Elements in an array field; 1 for a scalar."""
        return evaluate(field.length, self.geometry) if field.kind == "array" else 1

    def embedded(self, field: Field) -> list[int]:
        """The numbers of the records embedded in a field: record by record, element by element."""
        found: list[int] = []
        for record in self.records(field.owner):
            value = getattr(record, field.name)
            found.extend(self.number(element) for element in (value if field.kind == "array" else [value]))
        return found
