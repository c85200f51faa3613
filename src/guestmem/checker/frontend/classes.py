# SPDX-License-Identifier: Apache-2.0
"""Classes of a user's file that nothing hears: a name that was to override another, a class that was to replace one.

Python says nothing about either, and a check of such a world holds for the wrong reason.
"""

from __future__ import annotations

import ast
import difflib
import enum
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from guestmem.checker.frontend.source import Place, tree_of
from guestmem.model.errors import Refused
from guestmem.model.record import Field, Record, RefType
from guestmem.model.world import World, records_of

__all__ = ["definition_of", "is_method", "is_own", "refuse_lost_overrides", "refuse_unplugged", "unused"]

#: How alike two names are, of which one is taken for the other misspelt (difflib's ratio).
NEAR = 0.8
MARKS = ("_thread", "_always", "_sometimes")


def is_own(module: str) -> bool:
    """Whether a module is one of this package."""
    return module.partition(".")[0] == __name__.partition(".")[0]


def users(cls: type[Record]) -> list[type[Record]]:
    """The classes that a class is made of and that stand in a user's file, itself first."""
    return [base for base in cls.__mro__ if issubclass(base, Record) and not is_own(base.__module__)]


def parts_of(cls: type[Record]) -> Iterator[type[Record]]:
    """The class of a record and those of its parts."""
    yield cls
    for field in cls.fields().values():
        if isinstance(field.type, RefType) and (field.kind == "part" or field.parts):
            yield from parts_of(field.type.cls)


def refuse_lost_overrides(world: type[World]) -> None:
    """Refuse what looks like an override and is none, in a world and the classes of its parts.

    A method or field that nothing uses and whose name is nearly that of one in a base class; a method that takes other
    parameters than the one it overrides; a plain attribute that would set a field.
    """
    for cls in dict.fromkeys(parts_of(world)):
        for mine in users(cls):
            _Overrides(cls, mine).refuse()


class _Overrides:
    """What ``mine`` declares, against the classes that come after it in the order of resolution of ``cls``."""

    def __init__(self, cls: type[Record], mine: type[Record]) -> None:
        self.mine = mine
        after = cls.__mro__[cls.__mro__.index(mine) + 1 :]
        self.bases = [base for base in after if issubclass(base, Record)]
        self.fields = {name: field.owner for base in self.bases for name, field in base.fields().items()}
        self.methods = {name: base for base in self.bases for name, value in vars(base).items() if is_method(value)}
        self.own = [name for name, field in mine.fields().items() if field.owner is mine]

    def refuse(self) -> None:
        for name, value in vars(self.mine).items():
            if name.startswith("_") or name in self.own:
                continue
            if is_method(value):
                self._method(name, value)
            elif name in self.fields:
                self._refuse(name, "sets nothing", f"{name} is a field of {self.fields[name].__name__}, set it in setup()")
            elif isinstance(value, (int, enum.Enum)):
                self._near(name, self.fields)
        for name in self.own:
            if name not in self.fields:
                self._near(name, self.fields)

    def _method(self, name: str, value: Any) -> None:
        if name not in self.methods:
            if not any(hasattr(value, mark) for mark in MARKS):
                self._near(name, self.methods)
            return
        base = next(b for b in self.bases if name in vars(b))
        theirs, ours = parameters(vars(base)[name]), parameters(value)
        if theirs is not None and ours is not None and theirs != ours:
            what = f"takes ({', '.join(ours)}) where {base.__name__}.{name} takes ({', '.join(theirs)})"
            self._refuse(name, what, "take the same parameters")

    def _near(self, name: str, known: dict[str, type[Record]]) -> None:
        """Refuse a name that nothing uses and that is nearly one of ``known`` which the class leaves alone."""
        others = [other for other in known if other not in vars(self.mine)]
        near = difflib.get_close_matches(name, others, 1, NEAR)
        if near and name not in names_read({self.mine.__module__, *(base.__module__ for base in self.bases)}):
            self._refuse(name, "overrides nothing", f"{known[near[0]].__name__} has {near[0]}")

    def _refuse(self, name: str, what: str, instead: str) -> None:
        raise Refused(str(place_of(self.mine, name)), f"{self.mine.__name__}.{name} {what}", instead)


def is_method(value: Any) -> bool:
    """Whether what stands in a class is a method or a property."""
    return isinstance(value, (types.FunctionType, property))


def parameters(value: Any) -> list[str] | None:
    """The names of a method's parameters; None for a property."""
    return None if isinstance(value, property) else list(inspect.signature(value).parameters)


def names_read(modules: Iterable[str]) -> set[str]:
    """The names of attributes that some modules use."""
    files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
    nodes = (node for file in files if file for node in ast.walk(tree_of(file)))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def definition_of(cls: type) -> tuple[str, ast.ClassDef | None]:
    """The file of a class, and its tree."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
    if not file.endswith(".py"):
        return file, None
    found = [node for node in ast.walk(tree_of(file)) if isinstance(node, ast.ClassDef) and node.name == cls.__name__]
    return file, found[0] if found else None


def place_of(cls: type, name: str) -> Place:
    """Where a class, or with a name what it calls that, is defined."""
    file, definition = definition_of(cls)
    for node in definition.body if definition else []:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if getattr(node, "name", None) == name or any(isinstance(t, ast.Name) and t.id == name for t in targets):
            return Place(file, node.lineno)
    return Place(file, definition.lineno if definition else 0)


# ---- classes that no world has


def unused(world: World) -> list[type[Record]]:
    """The classes of the world's file of which neither it nor another world of the file has an object.

    Of classes that derive from each other only the last.
    """
    if is_own(type(world).__module__):
        return []
    module = sys.modules[type(world).__module__]
    named = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Record)]
    classes = [cls for cls in named if cls.__module__ == module.__name__]
    present = {type(record) for record in records_of(world)}
    for other in classes:
        if issubclass(other, World):
            present.update(has(other))
    idle = [c for c in classes if not issubclass(c, World) and not any(issubclass(p, c) for p in present)]
    return [c for c in idle if not any(issubclass(other, c) for other in idle if other is not c)]


def has(cls: type[Record]) -> Iterator[type[Record]]:
    """The classes of the records that a record of a class has."""
    yield cls
    for field in cls.fields().values():
        if isinstance(field.type, RefType) and (field.kind == "part" or field.parts):
            yield from has(field.type.cls)


def refuse_unplugged(world: World) -> None:
    """Refuse a class of the world's file that nothing uses, where the world has the class it derives from instead."""
    present = {type(record) for record in records_of(world)}
    for cls in unused(world):
        if any(base in present for base in cls.__mro__[1:]):
            raise Refused(str(place_of(cls, "")), f"class {cls.__name__} is used by nothing", plug(world, cls))


def plug(world: World, cls: type[Record]) -> str:
    """What to write for a world to have a record of a class."""

    def takes(field: Field) -> bool:
        return field.kind == "part" and isinstance(field.type, RefType) and issubclass(cls, field.type.cls)

    names = [field.name for field in world.fields().values() if takes(field)] or ["a_name"]
    return f"write {' or '.join(f'{name}: {cls.__name__} = part()' for name in names)} in {type(world).__name__}"
