# SPDX-License-Identifier: Apache-2.0
"""What a function takes and gives, by its annotations, and which values fit."""

from __future__ import annotations

import ast
import enum
import types
from typing import Any

from guestmem.checker.frontend.source import Function
from guestmem.checker.frontend.tree import Expr, is_none
from guestmem.checker.values import BOOL, INT, same_kind
from guestmem.model.record import EnumType, Index, IntType, Record, RefType, ScalarType


def index_type(cls: type[Index]) -> IntType:
    """The type of the values of an index class."""
    return IntType(0, f"{cls.below} - 1", cls)


def type_of_hint(function: Function, node: ast.AST, hint: Any) -> ScalarType:
    """The type that an annotation in a function says."""
    if hint is bool:
        return BOOL
    if hint is int:
        return INT
    if isinstance(hint, type):
        if issubclass(hint, Index):
            return index_type(hint)
        if issubclass(hint, enum.Enum):
            return EnumType(hint)
        if issubclass(hint, Record):
            return RefType(hint, False)
    if isinstance(hint, types.UnionType):
        options = [h for h in hint.__args__ if h is not type(None)]
        if len(options) == 1 and isinstance(options[0], type) and issubclass(options[0], Record):
            return RefType(options[0], True)
    function.refuse(node, f"the type {hint!r}", "use bool, int, an Enum, an Index, a Record or Record | None")


def parameters(function: Function, receiver: type[Record] | None) -> dict[str, ScalarType]:
    """The types of the parameters; the first of a method is ``receiver``."""
    found: dict[str, ScalarType] = {}
    for name in function.parameters:
        if name in function.hints:
            found[name] = type_of_hint(function, function.node, function.hints[name])
        elif receiver is not None and name == function.parameters[0]:
            found[name] = RefType(receiver, False)
        else:
            function.refuse(function.node, f"the parameter {name!r} without a type", "annotate it")
    return found


def results(function: Function) -> list[ScalarType]:
    """The types of the results."""
    if "return" not in function.hints:
        function.refuse(function.node, f"{function.name} without a result type", "annotate it, with -> None if there is none")
    hint = function.hints["return"]
    if hint is type(None):
        return []
    hints = hint.__args__ if getattr(hint, "__origin__", None) is tuple else [hint]
    return [type_of_hint(function, function.node, each) for each in hints]


def fit(function: Function, node: ast.AST, type_: ScalarType, value: Expr, what: object) -> None:
    """Refuse a value of another kind than ``type_``, in a function."""
    if is_none(value):
        if not isinstance(type_, RefType) or not type_.optional:
            function.refuse(node, f"None for {what}", f"annotate it {type_!r} | None")
    elif not same_kind(type_, value.type):
        function.refuse(node, f"{value.type!r} where {what} is {type_!r}", "use a value of that type")
