# SPDX-License-Identifier: Apache-2.0
"""Random programs of the model language: each is refused by name, or runs in lockstep with plain Python.

By hand: ``python tests/programs.py --programs 10000 --seed 1``.  It prints how many programs were refused and how many
steps were compared; a program whose translation differs from Python is printed, made as small as possible.  A program is
drawn anew from the seed and its number: ``--first N --programs 1``.
"""

from __future__ import annotations

import _ctypes
import argparse
import ast
import contextlib
import functools
import importlib.util
import itertools
import linecache
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from guestmem.checker.engine.compile import QUICK
from guestmem.checker.explore import Steps
from guestmem.checker.frontend import source
from guestmem.model import Refused
from lockstep import Lockstep

ROOT = Path(__file__).parents[1]
#: So many programs are run in one process.
BATCH = 100

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


class Author:
    """Writes one program; ``below(n)``, one of 0..n-1, decides."""

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

    # ---- the whole

    def program(self) -> str:
        """The text of a module with a world W."""
        self.write_classes()
        for _ in range(1 + self.below(6)):
            self.write_callee()
        self.write_step("tick")
        for _ in range(1 + self.below(3)):
            self.write_thread()
        for _ in range(self.below(3)):
            condition = self.boolean(Scope("W", "pure", ("bool",)), 2)
            if self.chance(80):
                condition = f"{self.boolean(Scope('W', 'pure', ('bool',)), 1)} or not ({condition}) or {condition}"
            self.methods["W"] += [f'@always("rule {next(self.names)}")', f"def {self.fresh('holds')}(self) -> bool:"]
            self.methods["W"].append(f"    return {condition}")
        return HEAD + "\n".join(self.text())

    def text(self) -> Iterator[str]:
        records = [name for name in self.classes if name not in ("Root", "W")]
        for name in records:
            yield from self.class_text(name)
        yield from self.functions
        yield from self.class_text("Root")
        yield from self.class_text("W")

    def class_text(self, name: str) -> Iterator[str]:
        bases = [base.__name__ for base in self.classes[name].__bases__ if base is not object] or ["Record"]
        if name == "Root":
            bases = ["World"]
        yield f"class {name}({', '.join(bases)}):"
        if name == "Root":
            yield f"    geometry = {{'slots': {SLOTS}}}"
        body = [declared.text() for declared in self.own[name]] + self.methods[name]
        yield from (f"    {line}" for line in body or ["pass"])
        yield ""

    def write_classes(self) -> None:
        for name in ("Plain", "Base", "Left", "Right", "Both", "Last")[: 2 + self.below(5)]:
            bases: tuple[type, ...] = ()
            if name not in ("Plain", "Base"):
                known = [c for c in self.classes.values() if c.__name__ != "Plain"]
                one, other = known[-1 - self.below(len(known))], self.pick([known[0], *self.classes.values()])
                bases = (one,) if issubclass(one, other) or not self.chance(60) else (one, other)
            try:
                self.classes[name] = type(name, bases, {})
            except TypeError:
                self.classes[name] = type(name, bases[:1], {})
            self.methods[name] = []
            self.own[name] = []
            for i in range(1 + self.below(4 if name == "Base" else 2)):
                self.own[name].append(self.scalar(f"{name.lower()}{i}", name))
            if name == "Base" and self.chance(40):
                self.own[name].append(Declared("inner", "part", "Plain"))
        root = [Declared("lock", "part", "Mutex"), Declared("sem", "part", "RwSem")]
        root += [Declared(f"the_{name.lower()}", "part", name) for name in self.classes]
        root += [Declared(f"all_{name.lower()}", "parts", name, length=2) for name in self.classes if self.chance(30)]
        root += [self.scalar(f"w{i}", self.pick(list(self.classes))) for i in range(2 + self.below(4))]
        self.classes["Root"] = type("Root", (), {})
        self.classes["W"] = type("W", (self.classes["Root"],), {})
        self.own["Root"], self.own["W"] = root, []
        setup = ["def setup(self) -> None:", "    pass"]
        for path, cls in [("self", "W"), *self.instances()]:
            for declared in self.fields(cls):
                if declared.kind == "scalar" and record_of(declared.type):
                    others = [text for text, other in self.instances() if self.fits(other, record_of(declared.type))]
                    if not optional(declared.type) or self.chance(50):
                        setup.append(f"    {path}.{declared.name} = {self.pick(others)}")
                elif declared.kind == "scalar" and declared.type == "int" and declared.low <= 0 and self.chance(20):
                    setup.append(f"    {path}.{declared.name} = {min(1, declared.high)}")
        self.methods["Root"], self.methods["W"] = setup, []

    def instances(self) -> Iterator[tuple[str, str]]:
        """The records of the world, by path and class."""
        for declared in self.own["Root"]:
            if declared.type in ("Mutex", "RwSem") or declared.kind not in ("part", "parts"):
                continue
            paths = [f"self.{declared.name}"]
            if declared.kind == "parts":
                paths = [f"self.{declared.name}[{i}]" for i in range(declared.length)]
            for path in paths:
                yield path, declared.type
                for inner in self.fields(declared.type):
                    if inner.kind == "part":
                        yield f"{path}.{inner.name}", inner.type

    def scalar(self, name: str, cls: str) -> Declared:
        """A field of bits or references, or an array of them."""
        kind = "array" if self.chance(30) else "scalar"
        type_ = self.pick(["bool", "int", "int", "Colour", "Slot", f"{cls} | None", cls])
        low, high = self.pick(RANGES[:6]) if not self.chance(5) else self.pick(RANGES)
        if kind == "array":
            low = 0
            type_ = f"{cls} | None" if type_ == cls else type_
        return Declared(name, kind, type_, low, high, self.pick([SLOTS, 2]) if kind == "array" else 0)

    def fields(self, cls: str) -> list[Declared]:
        """The fields of a class, those of its bases first."""
        return [f for base in reversed(self.classes[cls].__mro__) for f in self.own.get(base.__name__, [])]

    def fits(self, cls: str, wanted: str) -> bool:
        """Whether a record of one class can stand where another is expected."""
        if cls not in self.classes or wanted not in self.classes:
            return cls == wanted
        return issubclass(self.classes[cls], self.classes[wanted])

    # ---- functions

    def a_type(self) -> str:
        records = [name for name in self.classes if name not in ("W", "Root")]
        cls = self.pick(records)
        return str(self.pick(["int", "int", "bool", "Colour", "Slot", cls, f"{cls} | None"]))

    def write_callee(self) -> None:
        owner = self.pick(["W", "Root", "", *(c for c in self.classes if c not in ("W", "Root"))])
        is_property = bool(owner) and self.chance(20)
        mode = self.pick(["atomic", "step", "pure", "interruptible"])
        waits = mode == "step" and owner in ("W", "Root") and self.chance(20)
        parameters: list[tuple[str, str, str]] = []
        for i in range(0 if is_property else self.below(4)):
            type_ = self.a_type()
            default = ""
            if (self.chance(25) or (parameters and parameters[-1][2])) and not (record_of(type_) and not optional(type_)):
                default = {"int": "2", "bool": "True", "Colour": "Colour.BLUE", "Slot": "Slot(1)"}.get(type_, "None")
            elif parameters and parameters[-1][2]:
                type_, default = "int", "1"
            parameters.append((f"p{i}", type_, default))
        results = [self.a_type() for _ in range(1 if is_property else self.pick([1, 0, 2]))]
        callee = Callee(
            WORDS[len(self.callees)],
            owner,
            tuple(parameters),
            tuple(results),
            mode,
            waits or mode == "interruptible",
            is_property,
        )
        self.write_function(callee, owner, waits)
        if owner:
            for cls in self.classes:
                if cls != owner and self.fits(cls, owner) and self.chance(60):
                    self.write_function(callee, cls, waits)
        self.callees.append(callee)

    def write_function(self, callee: Callee, owner: str, waits: bool) -> None:
        """One definition of a function; of a method one in its own class and others in derived ones."""
        into = self.methods[owner] if owner else self.functions
        if callee.is_property:
            into.append("@property")
        if callee.mode == "step":
            into.append("@step")
        given = [f"{name}: {type_}{f' = {default}' if default else ''}" for name, type_, default in callee.parameters]
        if owner:
            given.insert(0, "self")
        result = ", ".join(callee.results)
        if len(callee.results) != 1:
            result = f"tuple[{result}]" if callee.results else "None"
        into.append(f"def {callee.name}({', '.join(given)}) -> {result}:")
        scope = Scope(owner, callee.mode, callee.results, {name: type_ for name, type_, _ in callee.parameters})
        if owner != callee.owner and not callee.is_property:
            scope.parent = f"super().{callee.name}"
        lines: list[str] = []
        if waits and self.chance(80):
            lines.append(f"when({self.boolean(scope.inside(mode='pure'), 1)})")
        if scope.parent and self.chance(70):
            self.call_parent(lines, scope, callee)
        open_ = self.block(lines, scope, 3)
        if open_ and callee.results and not self.chance(2):
            lines.append(f"return {self.results(scope, 2)}")
        into += [f"    {line}" for line in lines]

    def call_parent(self, lines: list[str], scope: Scope, callee: Callee) -> None:
        call = f"{scope.parent}({self.arguments(scope, callee, 1)})"
        if not callee.results:
            lines.append(call)
            return
        names = [self.fresh("s") for _ in callee.results]
        lines.append(f"{', '.join(names)} = {call}")
        scope.names.update(zip(names, callee.results, strict=True))

    def write_step(self, name: str) -> None:
        self.write_function(Callee(name, "W", (), (), "step", False), "W", False)
        self.callees.append(Callee(name, "W", (), (), "step", False))

    def write_thread(self) -> None:
        several = self.chance(25)
        into = self.methods["W"]
        scope = Scope("W", "interruptible", (), {"i": "int"} if several else {}, frozenset({"i"}))
        into.append("@thread(2)" if several else "@thread")
        into.append(f"def {self.fresh('t')}(self{', i: int' if several else ''}) -> None:")
        lines: list[str] = []
        if self.chance(20):
            self.block(lines, scope, 2)
        self.left += 12
        if self.chance(85):
            inner = ["self.tick()"]
            self.block(inner, scope.inside(loops=1), 3)
            lines += ["while True:", *(f"    {line}" for line in inner)]
        else:
            self.block(lines, scope, 3)
            lines.append("self.tick()")
        into += [f"    {line}" for line in lines]

    # ---- statements

    def block(self, lines: list[str], scope: Scope, depth: int) -> bool:
        """Some statements; whether control can go on after them."""
        for _ in range(1 + self.below(3 if depth > 1 else 2)):
            self.left -= 1
            if self.left < 0:
                break
            if not self.statement(lines, scope, depth):
                return False
        if not lines:
            lines.append("pass")
        return True

    def nested(self, lines: list[str], scope: Scope, depth: int, first: Sequence[str] = ()) -> bool:
        inner = list(first)
        goes_on = self.block(inner, scope, depth)
        lines += [f"    {line}" for line in inner]
        return goes_on

    def statement(self, lines: list[str], scope: Scope, depth: int) -> bool:
        writers: list[Callable[[list[str], Scope, int], bool]] = [self.assign_local, self.assign_local, self.call_statement]
        if scope.mode != "pure":
            writers += [self.assign_field, self.assign_field, self.augment, self.augment, self.call_statement]
        if depth > 0:
            writers += [self.write_if, self.write_if, self.write_for, self.write_for, self.write_while, self.narrow]
            if scope.mode == "interruptible" and scope.owner in ("W", "Root") and not scope.guarded:
                writers += [self.write_with]
        writers += [self.leave, self.check]
        write: Callable[[list[str], Scope, int], bool] = self.pick(writers)
        return write(lines, scope, depth)

    def assign_local(self, lines: list[str], scope: Scope, depth: int) -> bool:
        known = [n for n in scope.names if n not in scope.fixed]
        if known and self.chance(45):
            name = self.pick(known)
            value = self.value(scope, scope.names[name], 2)
            lines.append(f"{name} = {value}")
            scope.records -= {name}
            return True
        name, type_ = self.fresh("x"), self.a_type()
        annotated = f": {type_}" if optional(type_) or self.chance(20) else ""
        lines.append(f"{name}{annotated} = {self.value(scope, type_, 2)}")
        scope.names[name] = type_
        return True

    def assign_field(self, lines: list[str], scope: Scope, depth: int) -> bool:
        places = self.places(scope)
        if not places:
            return self.check(lines, scope, depth)
        path, declared = self.pick(places)
        target = self.fill(scope, path, 1)
        lines.append(f"{target} = {self.stored(scope, declared)}")
        return True

    def stored(self, scope: Scope, declared: Declared) -> str:
        """A value for a field, mostly in its range."""
        if declared.type != "int" or self.chance(7):
            return self.value(scope, declared.type, 2)
        if declared.high - declared.low > 1000:
            return str(self.pick([declared.high, declared.low, "EDGE", self.integer(scope, 1)]))
        size = declared.high - declared.low + 1
        shift = f" - {-declared.low}" if declared.low else ""
        return f"({self.integer(scope, 2)}) % {size}{shift}"

    def augment(self, lines: list[str], scope: Scope, depth: int) -> bool:
        places = [(path, d) for path, d in self.places(scope) if d.type == "int"]
        local = [n for n, t in scope.names.items() if t == "int" and n not in scope.fixed]
        if not places and not local:
            return self.check(lines, scope, depth)
        if local and (not places or self.chance(30)):
            lines.append(f"{self.pick(local)} {self.pick(['+', '-', '&', '%', '//'])}= {self.pick(['1', '3', 'LIMIT'])}")
            return True
        path, declared = self.pick(places)
        target = self.fill(scope, path, 1)
        if self.chance(30) or declared.low < 0:
            lines.append(f"{target} += 1")
        else:
            lines.append(f"{target} {self.pick(['%', '//', '&', '>>'])}= {1 + self.below(3)}")
        return True

    def call_statement(self, lines: list[str], scope: Scope, depth: int) -> bool:
        callees = [c for c in self.callable(scope) if not c.is_property]
        if not callees:
            return self.check(lines, scope, depth)
        callee = self.pick(callees)
        call = self.call(scope, callee, 2)
        if len(callee.results) == 2 or (callee.results and self.chance(50)):
            names = [self.fresh("r") for _ in callee.results]
            if len(names) == 2 and self.chance(20):
                names[0] = "_"
            lines.append(f"{', '.join(names)} = {call}")
            scope.names.update({n: t for n, t in zip(names, callee.results, strict=True) if n != "_"})
        else:
            lines.append(call)
        return True

    def write_if(self, lines: list[str], scope: Scope, depth: int) -> bool:
        lines.append(f"if {self.boolean(scope, 2)}:")
        leaks = self.chance(2)
        then = scope if leaks else scope.inside()
        going = [self.nested(lines, then, depth - 1)]
        if self.chance(20):
            lines.append(f"elif {self.boolean(scope, 1)}:")
            going.append(self.nested(lines, scope.inside(), depth - 1))
        if self.chance(50):
            lines.append("else:")
            going.append(self.nested(lines, scope.inside(), depth - 1))
        else:
            going.append(True)
        return any(going)

    def narrow(self, lines: list[str], scope: Scope, depth: int) -> bool:
        """A look at a reference that may be None."""
        names = [n for n, t in scope.names.items() if optional(t) and n not in scope.records]
        if not names:
            return self.write_if(lines, scope, depth)
        name = self.pick(names)
        if self.chance(50) and (not scope.results or depth > 1):
            lines.append(f"if {name} is None:")
            goes_on = self.nested(lines, scope.inside(), 0)
            if goes_on:
                lines.append(f"    return {self.results(scope, 1)}".rstrip())
            scope.records |= {name}
            return True
        lines.append(f"if {name} is not None:")
        self.nested(lines, scope.inside(records=scope.records | {name}), depth - 1)
        scope.records -= {name}
        return True

    def write_for(self, lines: list[str], scope: Scope, depth: int) -> bool:
        name = self.fresh("v") if not self.chance(30) else next(n for n in ("i", "j", "k", "l", "m", "n") if n not in scope.names)
        kind = self.pick(["range", "span", "array", "enumerate", "range2"])
        arrays = self.arrays(scope)
        inside = scope.inside(loops=scope.loops + 1)
        if kind == "range" or (kind in ("array", "enumerate") and not arrays):
            over, type_ = f"range({self.small(scope)})", "int"
        elif kind == "range2":
            over, type_ = f"range({self.small(scope)}, {self.small(scope)})", "int"
        elif kind == "span":
            end = str(SLOTS) if not self.chance(10) else self.small(scope)
            over, type_ = f"Slot.span({self.pick(['0', '1'])}, {end})", "Slot"
        else:
            path, declared = self.pick(arrays)
            over, type_ = self.fill(scope, path, 1), declared.type
            if kind == "enumerate":
                number = self.fresh("at")
                inside.names[number] = "int"
                inside.fixed |= {number}
                lines.append(f"for {number}, {name} in enumerate({over}):")
        if kind != "enumerate" or not arrays:
            lines.append(f"for {name} in {over}:")
        inside.names[name] = type_
        inside.fixed |= {name}
        self.assigned_in_loop(scope, inside)
        self.nested(lines, inside, depth - 1)
        return True

    @staticmethod
    def assigned_in_loop(scope: Scope, inside: Scope) -> None:
        """What is assigned in a loop is not known in it, nor after it."""
        fixed = frozenset(n for n in scope.records if n in scope.fixed)
        scope.records = inside.records = fixed

    def write_while(self, lines: list[str], scope: Scope, depth: int) -> bool:
        """A loop that ends: it counts."""
        name = self.fresh("c")
        lines.append(f"{name} = 0")
        scope.names[name] = "int"
        inside = scope.inside(loops=scope.loops + 1)
        inside.fixed |= {name}
        self.assigned_in_loop(scope, inside)
        condition = f"{name} < {1 + self.below(3)}"
        if self.chance(40):
            condition = f"{condition} and {self.boolean(inside, 1)}"
        lines.append(f"while {condition}:")
        step = f"{name} += 1" if scope.mode != "interruptible" else f"{name} = min({name} + 1, 3)"
        self.nested(lines, inside, depth - 1, [step])
        return True

    def write_with(self, lines: list[str], scope: Scope, depth: int) -> bool:
        lines.append(f"with {self.pick(['self.lock', 'self.sem.shared', 'self.sem.exclusive'])}:")
        return self.nested(lines, scope.inside(guarded=True), depth - 1)

    def leave(self, lines: list[str], scope: Scope, depth: int) -> bool:
        """Leave a loop or the function, mostly on a condition."""
        ways = ["return"]
        if scope.loops:
            ways += ["break", "continue"]
        way = self.pick(ways)
        if way == "return":
            way = f"return {self.results(scope, 1)}".rstrip()
        if depth < 3 and self.chance(30):
            lines.append(way)
            return False
        lines += [f"if {self.boolean(scope, 1)}:", f"    {way}"]
        return True

    def check(self, lines: list[str], scope: Scope, depth: int) -> bool:
        if scope.mode == "pure" or self.chance(30):
            lines.append("pass" if scope.mode == "pure" else f'reached("{self.fresh("situation")}")')
        else:
            condition = self.boolean(scope, 1)
            lines.append(f'require({condition} or {self.boolean(scope, 1)} or True, "{self.fresh("rule")}")')
            if self.chance(20):
                lines[-1] = lines[-1].replace(" or True", "")
        return True

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


def programs() -> st.SearchStrategy[str]:
    """The texts of modules of the model language, each with a world W."""
    return st.randoms(use_true_random=False).map(lambda random: Author(random.randrange).program())


# ---- running them


@dataclass
class Tally:
    """What a number of programs came to."""

    drawn: int = 0
    refused: int = 0
    compared: int = 0
    wide: int = 0  # left where more can happen in a state than is listed
    steps: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    constructs: Counter[str] = field(default_factory=Counter)
    differences: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Count what another has counted as well."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@contextlib.contextmanager
def imported(text: str, directory: Path, name: str) -> Iterator[Any]:
    """A program as a module; forgotten when left."""
    file = directory / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]
        source.READ.clear()
        linecache.clearcache()
        for cache in (source.tree_of, source._definitions):
            cache.cache_clear()
        file.unlink()


def run(text: str, directory: Path, tally: Tally, schedules: int = 3, steps: int = 25) -> None:
    """Refuse a program or run it in lockstep; an error or a difference is raised."""
    tally.drawn += 1
    name = f"program_{tally.drawn}"
    with imported(text, directory, name) as module:
        try:
            model = Steps(module.W(), flags=QUICK)
        except Refused as refused:
            if f"{name}.py:" not in refused.where:
                raise AssertionError(f"refused without a line of the program: {refused}") from refused
            tally.refused += 1
            tally.reasons[re.sub(r"\d+", "N", re.sub(r"'[^']*'", "...", refused.what))[:60]] += 1
            return
        try:
            tally.compared += 1
            tally.constructs.update(set(constructs(text)))
            for number in range(schedules):
                tally.steps += Lockstep(module.W, model).run(number, steps)
        except OverflowError:
            tally.compared -= 1
            tally.wide += 1
        finally:
            _ctypes.dlclose(model.library._handle)


def constructs(text: str) -> Iterator[str]:
    """The kinds of things a program contains."""
    names = ("choose", "may", "when", "require", "reached", "enumerate", "span", "all", "any", "sum", "super", "min", "max")
    for node in ast.walk(ast.parse(text.removeprefix(HEAD))):
        match node:
            case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.UnaryOp(op=op) | ast.BoolOp(op=op):
                yield f"{type(node).__name__} {type(op).__name__}"
            case ast.Compare(ops=ops):
                yield "Compare, chained" if len(ops) > 1 else f"Compare {type(ops[0]).__name__}"
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)):
                yield f"Call {called}" if called in names else "Call of the program's own"
                if any(k.arg for k in node.keywords):
                    yield "Call with keywords"
            case ast.ClassDef(bases=bases) if len(bases) > 1:
                yield "ClassDef of several bases"
            case ast.FunctionDef(decorator_list=decorators):
                yield from (f"FunctionDef @{ast.unparse(d).partition('(')[0]}" for d in decorators)
            case ast.stmt() | ast.expr():
                yield type(node).__name__


def failure(text: str, directory: Path, tally: Tally) -> str:
    """How a program fails: an error and where it was raised; empty if it does not."""
    try:
        run(text, directory, tally)
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(at.filename).name}:{at.lineno}: {at.line}" if at.filename.startswith(str(ROOT)) else ""
        return f"{type(error).__name__} {where}"
    return ""


def cuts(tree: ast.Module) -> Iterator[Callable[[], None]]:
    """Ways to make a program smaller, statements first; each changes the tree, and gives what takes that back."""
    blocks = [
        block
        for node in ast.walk(tree)
        for name in ("body", "orelse")
        if isinstance(block := getattr(node, name, None), list) and not isinstance(node, ast.Lambda)
    ]
    for block in blocks:
        for i in range(len(block) - 1, -1, -1):
            if i >= len(block) or isinstance(block[i], ast.Pass):
                continue
            kept = list(block)
            inner: list[ast.stmt] = [] if isinstance(kept[i], (ast.ClassDef, ast.FunctionDef)) else getattr(kept[i], "body", [])
            for instead in ([], inner) if inner else ([],):
                block[i : i + 1] = instead
                if not block and block is not tree.body:
                    block.append(ast.Pass())
                yield functools.partial(block.__setitem__, slice(None), kept)
    for node in ast.walk(tree):
        for name, value in ast.iter_fields(node):
            places: list[tuple[Callable[[ast.expr], None], ast.expr]] = []
            if isinstance(value, ast.expr) and not isinstance(value, (ast.Name, ast.Constant)):
                places.append((functools.partial(setattr, node, name), value))
            elif isinstance(value, list):
                places += [(functools.partial(value.__setitem__, i), v) for i, v in enumerate(value) if isinstance(v, ast.expr)]
            for put, old in places:
                parts = [part for part in ast.iter_child_nodes(old) if isinstance(part, ast.expr)]
                for new in [*parts, *map(ast.Constant, (0, 1, True))]:
                    if ast.dump(new) != ast.dump(old):
                        put(new)
                        yield functools.partial(put, old)


def reduced(text: str, directory: Path, seconds: float = 120) -> str:
    """A smaller program that fails in the same way."""
    tree, scrap = ast.parse(text), Tally()
    wanted = failure(text, directory, scrap)
    until = time.monotonic() + seconds
    progress = True
    while progress:
        progress = False
        for undo in cuts(tree):
            if time.monotonic() > until:
                undo()
                return ast.unparse(tree)
            try:
                smaller = ast.unparse(ast.fix_missing_locations(tree))
                ast.parse(smaller)
                same = failure(smaller, directory, scrap) == wanted
            except (SyntaxError, ValueError):
                same = False
            if same:
                progress = True
            else:
                undo()
    return ast.unparse(tree)


def batch(seed: int, as_drawn: bool, numbers: range) -> Tally:
    """Run some programs, in a process of their own: what an interpreter keeps of each is gone with it."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        for number in numbers:
            text = Author(Random(f"{seed} {number}").randrange).program()
            how = failure(text, Path(scratch), tally)
            if how:
                if not tally.differences[how]:
                    shown = text if as_drawn else reduced(text, Path(scratch))
                    print(f"---- seed {seed}, program {number}: {how}\n{shown}\n", flush=True)
                tally.differences[how] += 1
            shutil.rmtree(Path(scratch, "guestmem"), ignore_errors=True)
    return tally


def main() -> int:
    """Draw, run, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the program to begin with")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="programs at a time (default: one a CPU)")
    parser.add_argument("--statistics", action="store_true", help="how many programs contain what, and why some were refused")
    parser.add_argument("--as-drawn", action="store_true", help="print a program that differs as it is, not made smaller")
    arguments = parser.parse_args()
    began = time.monotonic()
    end = arguments.first + arguments.programs
    batches = [range(first, min(first + BATCH, end)) for first in range(arguments.first, end, BATCH)]
    work = functools.partial(batch, arguments.seed, arguments.as_drawn)
    total = Tally()
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        for tally in pool.imap_unordered(work, batches):
            total.add(tally)
            print(f"{total.drawn} programs, {total.steps} steps, {total.differences.total()} differences", file=sys.stderr)
    if arguments.statistics:
        for title, counts in (("compared", total.constructs), ("refused", total.reasons), ("different", total.differences)):
            for name, count in counts.most_common():
                print(f"{title} {count:6} {name}")
    print(
        f"seed {arguments.seed}: {total.drawn} programs drawn, {total.refused} refused, {total.compared} compared in lockstep, "
        f"{total.wide} left as too much can happen in one state, "
        f"{total.steps} steps, {total.differences.total()} differences, {time.monotonic() - began:.0f} s"
    )
    return 1 if total.differences else 0


if __name__ == "__main__":
    sys.exit(main())
