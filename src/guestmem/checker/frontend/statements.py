# SPDX-License-Identifier: Apache-2.0
"""Statements of a function, as the typed tree has them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from guestmem.checker.frontend.expressions import Expressions, Scope
from guestmem.checker.frontend.signature import type_of_hint
from guestmem.checker.frontend.tree import (
    Action,
    Array,
    Assign,
    Callee,
    Do,
    Element,
    Expr,
    FieldOf,
    For,
    If,
    Jump,
    Name,
    Number,
    Return,
    Routine,
    SetElement,
    SetField,
    Stmt,
    Unpack,
    Update,
    While,
    With,
    is_none,
)
from guestmem.checker.frontend.words import is_text
from guestmem.checker.values import widened
from guestmem.model import control
from guestmem.model.record import Field, IntType, RefType, ScalarType


def says_nothing(node: ast.stmt) -> bool:
    """Whether a statement is ``pass`` or a text."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and is_text(node.value))


class Statements:
    """Reads the statements of one routine."""

    def __init__(self, routine: Routine, expressions: Expressions) -> None:
        self.routine = routine
        self.read = expressions
        self.scope: Scope = expressions.scope
        self.refuse = expressions.refuse

    def all(self, nodes: Sequence[ast.stmt]) -> list[Stmt]:
        """Statements one after the other; without those that say nothing."""
        return [self.statement(node) for node in nodes if not says_nothing(node)]

    def statement(self, node: ast.stmt) -> Stmt:
        match node:
            case ast.Expr(value=ast.Call() as call):
                return Do(node, self.read.call(call))
            case ast.Assign(targets=[target], value=value):
                return self.assign(node, target, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                given = self.read.expr(value)
                return self.assign_name(node, name, given, self.annotation(node, node.annotation))
            case ast.AugAssign():
                return self.update(node)
            case ast.If(test=test, body=body, orelse=orelse):
                return self.if_statement(node, test, body, orelse)
            case ast.While(test=test, body=body, orelse=[]):
                return While(node, self.read.condition(test), self.all(body))
            case ast.For(target=target, iter=iterable, body=body, orelse=[]):
                return self.for_statement(node, target, iterable, body)
            case ast.With(items=items, body=body):
                return self.with_statement(node, items, body)
            case ast.Return(value=value):
                return self.return_statement(node, value)
            case ast.Break() | ast.Continue():
                return Jump(node, isinstance(node, ast.Continue))
            case ast.Raise():
                self.refuse(node, "raise", "return -ERRNO, or panic(why)")
            case ast.Assert():
                self.refuse(node, "assert", "use require(condition, rule)")
            case ast.Try():
                self.refuse(node, "try", "return -ERRNO and test it")
            case ast.For() | ast.While():
                self.refuse(node, "else on a loop", "set a variable")
            case ast.Match():
                self.refuse(node, "match", "use if and elif")
            case ast.Delete() | ast.Global() | ast.Nonlocal() | ast.Import() | ast.ImportFrom():
                self.refuse(node, f"{type(node).__name__.lower()} in a function", "put imports and state outside")
            case ast.FunctionDef() | ast.ClassDef():
                self.refuse(node, "a definition inside a function", "put it at the top of the module")
            case ast.AnnAssign():
                self.refuse(node, "a declaration without a value", "assign a value")
            case ast.Assign():
                self.refuse(node, "several targets in one assignment", "assign one after the other")
        self.refuse(node, f"{type(node).__name__} as a statement", "use assignments, calls, if, while, for, with, return")

    def annotation(self, node: ast.stmt, annotation: ast.expr) -> ScalarType:
        """The type that a local is declared with."""
        function = self.scope.function
        try:
            hint: Any = eval(compile(ast.Expression(annotation), "annotation", "eval"), function.globals)
        except Exception as error:
            self.refuse(annotation, f"the annotation {ast.unparse(annotation)}: {error}", "use a type known in the module")
        return type_of_hint(function, node, hint)

    # ---- assignments

    def assign(self, node: ast.stmt, target: ast.expr, value: ast.expr) -> Stmt:
        match target:
            case ast.Name(id=name):
                return self.assign_name(node, name, self.read.expr(value))
            case ast.Tuple(elts=elements):
                return self.unpack(node, elements, value)
            case ast.Attribute():
                given = self.read.value(value)
                field, owner = self.assigned_field(target)
                self.check(node, field, given)
                return SetField(node, field, owner, given, self.guard(node, field, owner))
            case ast.Subscript(slice=index):
                given = self.read.value(value)
                array = self.assigned_array(target)
                position = self.read.integer(index)
                self.check(node, array.field, given)
                return SetElement(node, array, position, given, self.guard(node, array.field, array.owner))
        self.refuse(target, f"assignment to {ast.unparse(target)}", "assign a name, a field or an element")

    def assign_name(self, node: ast.stmt, name: str, value: Expr, type_: ScalarType | None = None) -> Assign:
        if isinstance(value, Array):
            self.refuse(node, f"the array {value.field!r} in a variable", "name the array where it is used")
        self.know(node, name, value, type_)
        return Assign(node, name, value, type_)

    def know(self, node: ast.stmt, name: str, value: Expr, type_: ScalarType | None = None) -> None:
        """From here on a local has a value."""
        names = self.scope.names
        if type_ is not None:
            self.read.fit(node, type_, value, name)
        if isinstance(value, Number) and name in self.scope.function.assigned_once:
            names[name] = Number(value.node, type_ or value.type, value.value)
            return
        known = names.get(name)
        if known is None or isinstance(known, Number):
            if type_ is None and is_none(value):
                self.refuse(node, f"None in {name!r}, which has no type yet", f"write {name}: Record | None = None")
            known = names[name] = type_ or widened(value.type)
        self.read.fit(node, known, value, name)

    def unpack(self, node: ast.stmt, elements: list[ast.expr], value: ast.expr) -> Unpack:
        if not isinstance(value, ast.Call):
            self.refuse(node, "several values assigned at once", "assign one after the other")
        call = self.read.call(value)
        results = call.results if isinstance(call, Action) else [call.type]
        if len(results) != len(elements):
            self.refuse(node, f"{len(results)} results for {len(elements)} names", "name each result")
        names: list[str | None] = []
        for element, type_ in zip(elements, results, strict=True):
            if not isinstance(element, ast.Name):
                self.refuse(element, "a result assigned to something that is no name", "assign it in a second statement")
            names.append(None if element.id == "_" else element.id)
            if element.id != "_":
                self.know(node, element.id, Name(value, type_, element.id))
        return Unpack(node, names, call)

    def update(self, node: ast.AugAssign) -> Update:
        """``target op= value``."""
        target, read = node.target, self.read
        found: Name | FieldOf | Element
        guard = None
        match target:
            case ast.Name(id=name):
                before = read.as_integer(read.name(target, name), target)
                found = Name(target, before.type, name)
            case ast.Attribute():
                field, owner = self.assigned_field(target)
                found = FieldOf(target, field.type, field, owner)
                guard = self.guard(node, field, owner)
            case ast.Subscript(slice=index):
                array = self.assigned_array(target)
                found = Element(target, array.type, array, read.integer(index))
                guard = self.guard(node, array.field, array.owner)
        read.as_integer(found, target)
        value = read.integer(node.value)
        update = Update(node, found, read.operation(node, node.op), value, guard)
        made = read.arithmetic(node, node.op, found, value)
        if isinstance(found, Name):
            self.know(node, found.name, made)
        else:
            read.fit(node, found.type, made, repr(found.field if isinstance(found, FieldOf) else found.array.field))
        return update

    def assigned_field(self, target: ast.Attribute) -> tuple[Field, Expr]:
        """The field that an assignment sets, and the record."""
        owner = self.read.record(target.value)
        field = self.read.field(target, owner, target.attr)
        if field.kind != "scalar":
            self.refuse(target, f"assignment to the {field.kind} {target.attr!r}", "assign its fields or elements")
        return field, owner

    def assigned_array(self, target: ast.Subscript) -> Array:
        """The array of which an assignment sets an element."""
        array = self.read.array(target.value)
        if array.field.parts:
            self.refuse(target, f"assignment to an element of {array.field!r}", "assign the fields of the record")
        return array

    def check(self, node: ast.stmt, field: Field, value: Expr) -> None:
        """Refuse what a field cannot hold."""
        self.read.fit(node, field.type, value, repr(field))
        exists = bool(self.read.pools.records(field.owner))
        if isinstance(value, Number) and isinstance(field.type, IntType) and exists and not self.scope.is_dead:
            low, high = self.read.pools.interval(field.type)
            if not low <= value.value <= high:
                self.refuse(node, f"{value.value} for {field!r}, which is {low}..{high}", "widen the field, or store less")

    def guard(self, node: ast.stmt, field: Field, owner: Expr) -> Callee | None:
        """The method that says whether a field may be changed."""
        if not field.guard:
            return None
        return self.read.callees.guard(self.scope.function, node, owner, field.guard)

    # ---- what is done, and whether

    def if_statement(self, node: ast.stmt, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]) -> If:
        condition = self.read.condition(test)
        ways: list[list[Stmt]] = []
        for nodes, truth in ((body, True), (orelse, False)):
            if isinstance(condition, Number) and bool(condition.value) != truth:
                with self.scope.dead():
                    self.all(nodes)
                ways.append([])
            else:
                ways.append(self.all(nodes))
        return If(node, condition, *ways)

    def for_statement(self, node: ast.stmt, target: ast.expr, iterable: ast.expr, body: list[ast.stmt]) -> For:
        names = [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]
        for inside in body:
            for child in ast.walk(inside):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store) and child.id in names:
                    self.refuse(child, f"assignment to the loop variable {child.id!r}", "use another name")
        loop = For(node, self.read.iteration(target, iterable), self.all(body))
        for name in names:
            self.scope.names.pop(name, None)
        return loop

    def with_statement(self, node: ast.stmt, items: list[ast.withitem], body: list[ast.stmt]) -> With:
        if len(items) != 1 or items[0].optional_vars is not None:
            self.refuse(items[0].context_expr, "several guards, or a guard with a name", "write one `with lock:` inside another")
        what, read = items[0].context_expr, self.read
        enter, leave = "acquire", "release"
        lock = read.record(what.value if isinstance(what, ast.Attribute) else what)
        if isinstance(what, ast.Attribute):
            assert isinstance(lock.type, RefType)
            attribute = getattr(lock.type.cls, what.attr, None)
            if isinstance(attribute, control.guard):
                enter, leave = attribute.enter, attribute.leave
            else:
                lock = read.as_record(read.attribute(what, lock, what.attr))
        function, callees = self.scope.function, read.callees
        entering, leaving = (callees.method(function, what, lock, name) for name in (enter, leave))
        return With(node, lock, entering, leaving, self.all(body))

    def return_statement(self, node: ast.stmt, value: ast.expr | None) -> Return:
        wanted = self.routine.results
        nodes: list[ast.expr] = []
        if isinstance(value, ast.Tuple):
            nodes = value.elts
        elif value is not None and not (isinstance(value, ast.Constant) and value.value is None and not wanted):
            nodes = [value]
        call: Expr | None = None
        if len(wanted) != 1 and len(nodes) == 1 and isinstance(nodes[0], ast.Call):
            call = self.read.call(nodes[0])
            kinds = call.results if isinstance(call, Action) else [call.type]
            values: list[Expr] = [Name(nodes[0], kind, "") for kind in kinds]
        else:
            values = [self.read.value(each) for each in nodes]
        if len(values) != len(wanted):
            self.refuse(node, f"{len(values)} results where {len(wanted)} are declared", "return what the annotation says")
        for type_, given in zip(wanted, values, strict=True):
            self.read.fit(node, type_, given, "the result")
        return Return(node, [] if call else values, call)
