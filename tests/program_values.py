# SPDX-License-Identifier: Apache-2.0
"""What random programs are written with: names, places, values, calls.  A case for an expression goes here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

HEAD = """\
from __future__ import annotations
from enum import Enum
from guestmem.model import (Index, Mutex, Record, RwSem, World, always, array, bounded, choose, current, may, part,
    reached, require, step, thread, when)

LIMIT = 3
EDGE = 2**31 - 1

class Colour(Enum):
    RED = 0
    GREEN = 1
    BLUE = 2

class Slot(Index, below="slots"):
    pass

"""

SLOTS = 3
COLOURS = ("Colour.RED", "Colour.GREEN", "Colour.BLUE")
WORDS = ("adopt", "bring", "count_up", "divide", "enter", "fetch", "gather")  # names that are not near to each other
RANGES = ((0, 3), (0, 7), (0, 1), (-3, 3), (0, 255), (-128, 127), (0, 2**31 - 1), (-(2**31), 2**31 - 1))
EDGES = ("EDGE", "-EDGE - 1", "31", "32", "-1", "EDGE + 1", "4294967296")


@dataclass(frozen=True)
class Declared:
    """A field: ``type`` of its value or element; ``kind`` is scalar, part, array or parts."""

    name: str
    kind: str
    type: str
    low: int = 0
    high: int = 0
    length: int = 0

    def text(self) -> str:
        """The declaration."""
        if self.kind == "part":
            return f"{self.name}: {self.type} = part()"
        length = '"slots"' if self.length == SLOTS else self.length
        if self.kind == "parts":
            return f"{self.name}: list[{self.type}] = array({length})"
        if self.kind == "array":
            return f"{self.name}: list[{self.type}] = array({length}{f', hi={self.high}' if self.type == 'int' else ''})"
        if self.type == "int":
            return f"{self.name}: int = bounded({self.high}{f', lo={self.low}' if self.low else ''})"
        return f"{self.name}: {self.type}" + {"bool": " = False", "Slot": " = Slot(0)", "Colour": " = Colour.RED"}.get(
            self.type, " = None" if optional(self.type) else ""
        )


@dataclass(frozen=True)
class Callee:
    """A function, method or property that code written later may call."""

    name: str
    owner: str  # a class, or "" for a function
    parameters: tuple[tuple[str, str, str], ...]  # name, type, default
    results: tuple[str, ...]
    mode: str  # pure, atomic, step or interruptible
    waits: bool
    is_property: bool = False


@dataclass
class Scope:
    """What the code being written may use."""

    owner: str  # the class of self, or ""
    mode: str
    results: tuple[str, ...]
    names: dict[str, str] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()  # parameters and loop variables that are not assigned
    records: frozenset[str] = frozenset()  # optional locals known not to be None
    loops: int = 0
    guarded: bool = False
    waits: bool = False
    parent: str = ""  # the method of the same name that super() finds: its call, arguments missing

    def inside(self, **changes: Any) -> Scope:
        """A block of this code: what it assigns first is not known after it."""
        return replace(self, names=dict(self.names), **changes)


def optional(type_: str) -> bool:
    """Whether values of the type may be None."""
    return type_.endswith("| None")


def record_of(type_: str) -> str:
    """The class of a reference; empty for other types."""
    name = type_.removesuffix(" | None")
    return "" if name in ("bool", "int", "Slot", "Colour") else name


class Values:
    """Writes expressions; ``below(n)``, one of 0..n-1, decides."""

    def __init__(self, below: Callable[[int], int]) -> None:
        self._below = below
        self.classes: dict[str, type] = {}
        self.own: dict[str, list[Declared]] = {}
        self.methods: dict[str, list[str]] = {}
        self.functions: list[str] = []
        self.callees: list[Callee] = []
        self.names = itertools.count()
        self.left = 60  # statements

    # ---- decisions

    def below(self, n: int) -> int:
        return self._below(n) if n > 1 else 0

    def chance(self, percent: int) -> bool:
        """Whether something unusual happens; simpler programs are those where it does not."""
        return self._below(100) >= 100 - percent

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def fresh(self, prefix: str) -> str:
        return f"{prefix}{next(self.names)}"

    # ---- classes

    def fields(self, cls: str) -> list[Declared]:
        """The fields of a class, those of its bases first."""
        return [f for base in reversed(self.classes[cls].__mro__) for f in self.own.get(base.__name__, [])]

    def fits(self, cls: str, wanted: str) -> bool:
        """Whether a record of one class can stand where another is expected."""
        if cls not in self.classes or wanted not in self.classes:
            return cls == wanted
        return issubclass(self.classes[cls], self.classes[wanted])

    def results(self, scope: Scope, depth: int) -> str:
        return ", ".join(self.value(scope, type_, depth) for type_ in scope.results)

    # ---- places

    def roots(self, scope: Scope) -> list[tuple[str, str]]:
        found = [("self", scope.owner)] if scope.owner else []
        for name, type_ in scope.names.items():
            if record_of(type_) and (not optional(type_) or name in scope.records):
                found.append((name, record_of(type_)))
        return found

    def paths(self, scope: Scope) -> Iterator[tuple[str, Declared]]:
        """What can be reached from here; indices are left open."""
        for root, cls in self.roots(scope):
            if cls not in self.classes:
                continue
            for declared in self.fields(cls):
                path = f"{root}.{declared.name}"
                yield path, declared
                inner = declared.type
                if inner in self.classes and declared.kind in ("part", "parts", "scalar"):
                    at = f"[{declared.length}?]" if declared.kind == "parts" else ""
                    for deeper in self.fields(inner):
                        yield f"{path}{at}.{deeper.name}", deeper

    def places(self, scope: Scope) -> list[tuple[str, Declared]]:
        """What can be assigned."""
        found = []
        for path, declared in self.paths(scope):
            if declared.kind in ("scalar", "array"):
                found.append((path + (f"[{declared.length}?]" if declared.kind == "array" else ""), declared))
        return found

    def arrays(self, scope: Scope) -> list[tuple[str, Declared]]:
        return [(path, d) for path, d in self.paths(scope) if d.kind in ("array", "parts")]

    def fill(self, scope: Scope, path: str, depth: int) -> str:
        """A path with its indices."""
        return re.sub(r"\[(\d+)\?\]", lambda match: f"[{self.index(scope, int(match[1]), depth)}]", path)

    def index(self, scope: Scope, length: int, depth: int) -> str:
        if self.chance(4):
            return self.integer(scope, 1)
        slots = [n for n, t in scope.names.items() if t == "Slot"]
        if length == SLOTS and slots and self.chance(60):
            return str(self.pick(slots))
        if depth > 0 and self.chance(40):
            return f"({self.integer(scope, depth)}) % {length}"
        return str(self.below(length))

    # ---- values

    def value(self, scope: Scope, type_: str, depth: int) -> str:
        match type_:
            case "int":
                value = self.integer(scope, depth)
                return f"({value}) % 8" if scope.mode == "interruptible" else value
            case "bool":
                return self.boolean(scope, depth)
            case "Colour":
                return self.other(scope, type_, depth, COLOURS)
            case "Slot":
                made = f"Slot(({self.integer(scope, depth - 1)}) % {SLOTS})" if depth > 0 else "Slot(1)"
                return self.other(scope, type_, depth, ("Slot(0)", "Slot(2)", made))
        return self.reference(scope, type_, depth)

    def readable(self, scope: Scope, wanted: Callable[[str], bool]) -> list[str]:
        """Names and places of a type, indices left open."""
        found = [name for name, type_ in scope.names.items() if wanted(type_)]
        return found + [path for path, d in self.places(scope) if wanted(d.type)]

    def called(self, scope: Scope, wanted: Callable[[str], bool]) -> list[Callee]:
        return [c for c in self.callable(scope) if len(c.results) == 1 and wanted(c.results[0])]

    def other(self, scope: Scope, type_: str, depth: int, constants: Sequence[str]) -> str:
        """An enum member, an index: what is not calculated with."""
        places = self.readable(scope, lambda t: t == type_)
        calls = self.called(scope, lambda t: t == type_)
        if depth > 0 and calls and self.chance(25):
            return self.call(scope, self.pick(calls), depth - 1)
        if depth > 0 and self.chance(15):
            one, two = self.other(scope, type_, 0, constants), self.other(scope, type_, 0, constants)
            return f"({one} if {self.boolean(scope, depth - 1)} else {two})"
        if places and self.chance(60):
            return self.fill(scope, self.pick(places), depth - 1)
        return str(self.pick(constants))

    def reference(self, scope: Scope, type_: str, depth: int) -> str:
        wanted = record_of(type_)

        def good(t: str) -> bool:
            return bool(record_of(t)) and self.fits(record_of(t), wanted) and (optional(type_) or not optional(t))

        found = [text for text, cls in self.roots(scope) if self.fits(cls, wanted)]
        found += self.readable(scope, good)
        for path, d in self.paths(scope):
            if d.kind in ("part", "parts") and self.fits(d.type, wanted):
                found.append(path + (f"[{d.length}?]" if d.kind == "parts" else ""))
        calls = self.called(scope, good)
        if depth > 0 and calls and self.chance(25):
            return self.call(scope, self.pick(calls), depth - 1)
        if depth > 0 and found and self.chance(15):
            one, two = self.reference(scope, type_, 0), self.reference(scope, type_, 0)
            return f"({one} if {self.boolean(scope, depth - 1)} else {two})"
        if optional(type_) and (not found or self.chance(20)):
            return "None"
        if not found:  # no such record is at hand: this is refused, as it has no type or no value
            return "None"
        return self.fill(scope, self.pick(found), depth - 1)

    def small(self, scope: Scope) -> str:
        """A number of turns."""
        if self.chance(50):
            return f"({self.integer(scope, 1)}) % 4"
        return str(self.pick(["2", "3", "LIMIT", "1", "0"]))

    def integer(self, scope: Scope, depth: int) -> str:
        if depth <= 0:
            places = self.readable(scope, lambda t: t == "int")
            if places and not self.chance(30):
                return self.fill(scope, self.pick(places), 0)
            if self.chance(6):
                return str(self.pick(EDGES))
            return str(self.pick(["0", "1", "2", "3", "LIMIT", "7"]))
        kinds = ["read", "+", "-", "%", "//", "&", "call", "if", "*", "|", "^", "<<", ">>", "min", "neg", "sum", "len"]
        kinds += ["int", "current"] if scope.mode != "pure" else []
        kinds += ["choose"] if scope.mode != "pure" else []
        kind = self.pick(kinds)
        if kind == "call":
            calls = self.called(scope, lambda t: t == "int")
            if calls:
                return self.call(scope, self.pick(calls), depth - 1)
            kind = "+"
        match kind:
            case "+" | "-" | "&" | "|" | "^":
                return f"({self.integer(scope, depth - 1)} {kind} {self.integer(scope, depth - 1)})"
            case "*":
                return f"({self.integer(scope, depth - 1)}) * {self.pick(['2', '3', '-1', self.integer(scope, 0)])}"
            case "%" | "//":
                by = self.integer(scope, 0) if self.chance(8) else self.pick(["2", "3", "-2", "4"])
                return f"({self.integer(scope, depth - 1)}) {kind} {by}"
            case "<<" | ">>":
                by = self.integer(scope, 0) if self.chance(5) else self.pick(["1", "2", "4"])
                return f"(({self.integer(scope, depth - 1)}) % 64 {kind} {by})"
            case "if":
                one, two = self.integer(scope, depth - 1), self.integer(scope, depth - 1)
                return f"({one} if {self.boolean(scope, depth - 1)} else {two})"
            case "min":
                return f"{self.pick(['min', 'max'])}({self.integer(scope, depth - 1)}, {self.integer(scope, depth - 1)})"
            case "neg":
                return f"-({self.integer(scope, depth - 1)})"
            case "sum":
                arrays = self.arrays(scope)
                if arrays:
                    return self.generator(scope, "sum", depth)
            case "len":
                arrays = self.arrays(scope)
                if arrays:
                    return f"len({self.fill(scope, self.pick(arrays)[0], 0)})"
            case "int":
                return f"int({self.boolean(scope, depth - 1)})"
            case "current":
                return "current()"
            case "choose":
                return f"choose({self.pick(['2', '3', self.small(scope) + ' + 1'])})"
        return self.integer(scope, 0)

    def generator(self, scope: Scope, name: str, depth: int) -> str:
        """``all``, ``any`` or ``sum``."""
        arrays = self.arrays(scope)
        if name != "sum":
            plain = [path for path, d in arrays if d.type == "bool"]
            if plain and self.chance(30):
                return f"{name}({self.fill(scope, self.pick(plain), 0)})"
        element = self.fresh("e")
        inside = scope.inside()
        if arrays and not self.chance(30):
            path, declared = self.pick(arrays)
            over, type_ = self.fill(scope, path, 0), declared.type
        else:
            over, type_ = self.pick([("range(3)", "int"), ("Slot.span(0, 3)", "Slot")])
        inside.names[element] = type_
        inside.fixed |= {element}
        test = ""
        if optional(type_) and not self.chance(5):
            test = f" if {element} is not None"
            inside.records |= {element}
        elif self.chance(25):
            test = f" if {self.boolean(inside, 0)}"
        value = self.integer(inside, depth - 1) if name == "sum" else self.boolean(inside, depth - 1)
        return f"{name}({value} for {element} in {over}{test})"

    def boolean(self, scope: Scope, depth: int) -> str:
        if depth <= 0:
            places = self.readable(scope, lambda t: t == "bool")
            if places and not self.chance(25):
                return self.fill(scope, self.pick(places), 0)
            if not self.chance(30):
                return f"{self.integer(scope, 0)} {self.pick(['==', '<', '!=', '<=', '>', '>='])} {self.integer(scope, 0)}"
            return str(self.pick(["True", "False"]))
        kinds = ["read", "compare", "not", "and", "chain", "colour", "none", "same", "call", "all", "if"]
        kinds += ["may"] if scope.mode != "pure" else []
        match self.pick(kinds):
            case "compare":
                sign = self.pick(["==", "<", "!=", "<=", ">", ">="])
                return f"{self.integer(scope, depth - 1)} {sign} {self.integer(scope, depth - 1)}"
            case "not":
                return f"not ({self.boolean(scope, depth - 1)})"
            case "and":
                parts = [self.boolean(scope, depth - 1) for _ in range(2 + self.below(2))]
                joined = self.pick([" and ", " or "]).join(parts)
                return f"({joined})"
            case "chain":
                parts = [self.integer(scope, depth - 1) for _ in range(3)]
                return f"{parts[0]} {self.pick(['<', '<=', '=='])} {parts[1]} {self.pick(['<', '!=', '>='])} {parts[2]}"
            case "colour":
                one, two = self.value(scope, "Colour", depth - 1), self.value(scope, "Colour", depth - 1)
                return f"{one} {self.pick(['==', 'is', '!=', 'is not'])} {two}"
            case "none":
                places = self.readable(scope, optional)
                if places:
                    place = self.pick(places)
                    if place in scope.names and self.chance(60):
                        inside = scope.inside(records=scope.records | {place})
                        return f"({place} is not None and {self.boolean(inside, depth - 1)})"
                    return f"{self.fill(scope, place, 0)} {self.pick(['is', 'is not', '=='])} None"
            case "same":
                cls = self.pick([c for c in self.classes if c not in ("W", "Root")])
                one, two = self.reference(scope, f"{cls} | None", 0), self.reference(scope, f"{cls} | None", 0)
                return f"{one} {self.pick(['is', '==', 'is not'])} {two}"
            case "call":
                calls = self.called(scope, lambda t: t == "bool")
                if calls:
                    return self.call(scope, self.pick(calls), depth - 1)
            case "all":
                return self.generator(scope, self.pick(["all", "any"]), depth)
            case "if":
                one, two = self.boolean(scope, depth - 1), self.boolean(scope, depth - 1)
                return f"({one} if {self.boolean(scope, depth - 1)} else {two})"
            case "may":
                return 'may("it happens")'
        return self.boolean(scope, 0)

    # ---- calls

    def callable(self, scope: Scope) -> list[Callee]:
        """What may be called here, and has something to be called on."""
        allowed = {
            "pure": ("pure",),
            "atomic": ("pure", "atomic"),
            "step": ("pure", "atomic", "step", "interruptible"),
            "interruptible": ("pure", "atomic", "step", "interruptible"),
        }[scope.mode]
        roots = [cls for _, cls in self.roots(scope)]
        reach = roots + [d.type for _, d in self.paths(scope) if d.kind in ("part", "parts") or record_of(d.type) == d.type]
        return [
            c
            for c in self.callees
            if c.mode in allowed
            and not (c.waits and scope.mode == "step")
            and (not c.owner or any(self.fits(cls, c.owner) for cls in reach))
        ]

    def call(self, scope: Scope, callee: Callee, depth: int) -> str:
        name = callee.name
        if callee.owner:
            name = f"{self.reference(scope, callee.owner, 0)}.{name}"
        return name if callee.is_property else f"{name}({self.arguments(scope, callee, depth)})"

    def arguments(self, scope: Scope, callee: Callee, depth: int) -> str:
        plain: list[str] = []
        named: list[str] = []
        for name, type_, default in callee.parameters:
            if default and self.chance(40):
                named.append("")
                continue
            value = self.value(scope, type_, max(depth - 1, 0))
            if named or self.chance(15):
                named.append(f"{name}={value}")
            else:
                plain.append(value)
        if self.chance(30):
            named.reverse()
        return ", ".join([*plain, *filter(None, named)])
