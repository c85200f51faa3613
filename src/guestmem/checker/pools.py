# SPDX-License-Identifier: Apache-2.0
"""The records of a world as numbers.

Records of one family (a class directly below Record, with its subclasses) form a pool; a class that comes from two
families makes them one.  A reference is the position in the pool plus one, and 0 is None.  The records of each class stand
together, so "is it a Gunyah driver" is a range of numbers; among those of a class and its subclasses others may stand.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from guestmem.model.record import BoolType, EnumType, Field, IntType, Record, RefType, ScalarType, evaluate
from guestmem.model.world import World, records_of


def families_of(cls: type[Record]) -> list[type[Record]]:
    """The classes directly below Record from which ``cls`` comes."""
    return [base for base in cls.__mro__ if Record in base.__bases__]


class Pools:
    """All records of a world, numbered."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.geometry: dict[str, int] = world.geometry
        classes: dict[type[Record], list[Record]] = defaultdict(list)
        for record in records_of(world):
            classes[type(record)].append(record)
        self.pool: dict[type[Record], list[Record]] = {}
        for cls in sorted(classes, key=lambda cls: [base.__qualname__ for base in reversed(cls.__mro__)]):
            together = {id(pool): pool for family in families_of(cls) if (pool := self.pool.get(family))}
            merged = [*itertools.chain(*together.values()), *classes[cls]]
            joined = [family for family, pool in self.pool.items() if id(pool) in together]
            self.pool.update(dict.fromkeys([*joined, *families_of(cls)], merged))
        self.numbers = {id(record): i for pool in self.pool.values() for i, record in enumerate(pool, 1)}
        self._intervals: dict[ScalarType, tuple[int, int]] = {}
        self._records: dict[type[Record], list[Record]] = {}
        self._classes: dict[type[Record], list[type[Record]]] = {}

    def number(self, record: Record | None) -> int:
        """The number of a record; 0 for None."""
        return 0 if record is None else self.numbers[id(record)]

    def records(self, cls: type[Record]) -> list[Record]:
        """The records of a class and its subclasses, in order of their numbers."""
        if cls not in self._records:
            families = families_of(cls)  # none, of Record itself
            pool = self.pool.get(families[0], []) if families else []
            self._records[cls] = [r for r in pool if isinstance(r, cls)]
        return self._records[cls]

    def classes(self, cls: type[Record]) -> list[type[Record]]:
        """The classes of those records."""
        if cls not in self._classes:
            self._classes[cls] = list(dict.fromkeys(map(type, self.records(cls))))
        return self._classes[cls]

    def cells(self, field: Field) -> Iterator[tuple[int, Record, int]]:
        """The cells of a field: number, record, index in its array.  Records of other classes leave gaps."""
        length = self.length(field)
        for record in self.records(field.owner):
            first = (self.number(record) - self.interval(RefType(field.owner, False))[0]) * length
            yield from ((first + index, record, index) for index in range(length))

    def room(self, field: Field) -> int:
        """Cells of a field, gaps included."""
        first, last = self.interval(RefType(field.owner, False))
        return (last - first + 1) * self.length(field) if last else 0

    def record(self, cls: type[Record], number: int) -> Record | None:
        """The record with a number, in the pool of ``cls``."""
        return self.pool[families_of(cls)[0]][number - 1] if number else None

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
        """The numbers a field holds in the world as built, cell by cell; a gap repeats another.

        For a part they are those of the records embedded.
        """
        found: dict[int, int] = {}
        for cell, record, index in self.cells(field):
            value = getattr(record, field.name)
            found[cell] = self.encode(value[index] if field.kind == "array" else value, field.type)
        return [found.get(cell, found[0]) for cell in range(self.room(field))]

    def length(self, field: Field) -> int:
        """Elements in an array field; 1 for a scalar."""
        return evaluate(field.length, self.geometry) if field.kind == "array" else 1
