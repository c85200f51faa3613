# SPDX-License-Identifier: Apache-2.0
"""The routines that a call may come to, among the classes that a world has."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any

from guestmem.checker.frontend.signature import fit
from guestmem.checker.frontend.source import Function, function_of
from guestmem.checker.frontend.tree import Callee, Element, Expr, FieldOf, Routine, Target
from guestmem.checker.pools import Pools
from guestmem.model.record import Array, Field, Record, RefType

#: An argument, with its keyword if it has one.
Argument = tuple[str | None, Expr]
RoutineOf = Callable[[Function, type[Record] | None], Routine]
DefaultOf = Callable[[Function, ast.expr], Expr]


class Callees:
    """Finds them; ``routine_of`` reads a function for a class of ``self``, ``default_of`` a default argument of one.

    Attributes:
        guards: the routines that say whether a field may be changed.
    """

    def __init__(self, pools: Pools, routine_of: RoutineOf, default_of: DefaultOf) -> None:
        self.pools = pools
        self.routine_of = routine_of
        self.default_of = default_of
        self.guards: dict[Routine, None] = {}
        self._parts: dict[tuple[Field, type[Record]], list[type[Record]]] = {}

    def classes(self, ref: Expr) -> list[type[Record]]:
        """The classes a reference may point to, among the records there are; at least that which it is declared as."""
        assert isinstance(ref.type, RefType)
        match ref:
            case FieldOf(field=field, owner=owner) if field.kind == "part":
                found = self._embedded(field, owner)
            case Element(array=array) if array.field.parts:
                found = self._embedded(array.field, array.owner)
            case _:
                found = self.pools.classes(ref.type.cls)
        return found or [ref.type.cls]

    def _embedded(self, field: Field, owner: Expr) -> list[type[Record]]:
        """The classes of the records that are parts of others."""
        assert isinstance(owner.type, RefType)
        key = field, owner.type.cls
        if key not in self._parts:
            values = [getattr(record, field.name) for record in self.pools.records(owner.type.cls)]
            parts = [part for value in values for part in (value if isinstance(value, Array) else [value])]
            self._parts[key] = list(dict.fromkeys(map(type, parts)))
        return self._parts[key]

    def function(self, caller: Function, node: ast.expr, python: Any, arguments: Sequence[Argument]) -> Callee:
        """A function that is no method."""
        return Callee([self._target(caller, node, function_of(python), None, [], arguments)])

    def method(self, caller: Function, node: ast.AST, ref: Expr, name: str, arguments: Sequence[Argument] = ()) -> Callee:
        """A method or property, of whichever class the record is."""
        found: dict[type[Record], Function] = {}
        for cls in self.classes(ref):
            attribute = getattr(cls, name, None)
            if isinstance(attribute, property):
                attribute = attribute.fget
            if not isinstance(attribute, types.FunctionType):
                caller.refuse(node, f"{cls.__name__} has no method {name!r}", "define it")
            found[cls] = function_of(attribute)
        return self._methods(caller, node, ref, found, arguments)

    def guard(self, caller: Function, node: ast.stmt, ref: Expr, name: str) -> Callee:
        """The method that guards a field, a function of the state alone."""
        callee = self.method(caller, node, ref, name)
        self.guards.update(dict.fromkeys(target.routine for target in callee.targets))
        return callee

    def inherited(
        self, caller: Function, receiver: type[Record], node: ast.expr, this: Expr, name: str, arguments: Sequence[Argument]
    ) -> Callee:
        """What the class of the record itself has after the class that says ``super()``."""
        owner = owner_of(caller, receiver)
        found: dict[type[Record], Function] = {}
        for cls in self.classes(this):
            attribute = getattr(super(owner, cls), name, None)
            if not isinstance(attribute, types.FunctionType):
                caller.refuse(node, f"super().{name}", "name a method that a base class has")
            found[cls] = function_of(attribute)
        return self._methods(caller, node, this, found, arguments)

    def _methods(
        self, caller: Function, node: ast.AST, ref: Expr, found: dict[type[Record], Function], arguments: Sequence[Argument]
    ) -> Callee:
        given: list[Argument] = [(None, ref), *arguments]
        together: dict[Function, list[type[Record]]] = {}
        for cls, function in found.items():
            together.setdefault(function, []).append(cls)
        targets = []
        for function, classes in together.items():
            receiver = common_base(classes, owner_of(function, classes[0]))
            targets.append(self._target(caller, node, function, receiver, classes, given))
        if len(found) == 1:
            return Callee(targets, dict.fromkeys(found, targets[0]))
        exact = {cls: self._target(caller, node, function, cls, [cls], given) for cls, function in found.items()}
        return Callee(targets, exact)

    def _target(
        self,
        caller: Function,
        node: ast.AST,
        function: Function,
        receiver: type[Record] | None,
        classes: list[type[Record]],
        arguments: Sequence[Argument],
    ) -> Target:
        """A routine, called with these arguments."""
        routine = self.routine_of(function, receiver)
        plain = [position for position, (name, _) in enumerate(arguments) if name is None]
        named = {name: position for position, (name, _) in enumerate(arguments) if name is not None}
        bound: list[int | Expr] = list(plain)
        for parameter in function.parameters[len(plain) :]:
            if parameter in named:
                bound.append(named.pop(parameter))
            elif parameter in function.defaults:
                bound.append(self.default_of(function, function.defaults[parameter]))
            else:
                caller.refuse(node, f"{function.name} without its {parameter!r}", "pass it")
        if named or len(bound) > len(function.parameters):
            extra = ", ".join(named) or f"{len(bound)} arguments"
            caller.refuse(node, f"{extra} passed to {function.name}", f"it takes {', '.join(function.parameters) or 'nothing'}")
        for parameter, which in zip(function.parameters, bound, strict=True):
            if receiver is not None and which == 0:
                continue
            value = arguments[which][1] if isinstance(which, int) else which
            fit(caller, node, routine.parameters[parameter], value, f"{parameter!r} of {function.name}")
        return Target(routine, classes, bound)


def common_base(classes: Sequence[type[Record]], owner: type[Record]) -> type[Record]:
    """The most derived class that all of these are or come from, at least ``owner``."""
    common = (base for base in classes[0].__mro__ if all(issubclass(cls, base) for cls in classes))
    return next(base for base in common if issubclass(base, owner))


def owner_of(function: Function, cls: type[Record]) -> type[Record]:
    """The class in which a method of ``cls`` is defined."""
    return next(base for base in cls.__mro__ if any(is_definition(value, function) for value in vars(base).values()))


def is_definition(value: Any, function: Function) -> bool:
    """Whether a class attribute is the definition of a function, as a method or a property."""
    value = value.fget if isinstance(value, property) else value
    return isinstance(value, types.FunctionType) and inspect.unwrap(value) is function.python
