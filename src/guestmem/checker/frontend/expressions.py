# SPDX-License-Identifier: Apache-2.0
"""Expressions of a function, as the typed tree has them."""

from __future__ import annotations

import ast
import enum
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from guestmem.checker.frontend.callees import Callees
from guestmem.checker.frontend.signature import fit, index_type
from guestmem.checker.frontend.source import Function
from guestmem.checker.frontend.tree import (
    Action,
    Arithmetic,
    Array,
    AsIndex,
    Call,
    Callee,
    Chosen,
    Comparison,
    Either,
    Element,
    Expr,
    Extreme,
    FieldOf,
    Integer,
    Iteration,
    Length,
    Logic,
    Name,
    Negative,
    Not,
    Number,
    Range,
    Reduction,
    Truth,
    is_none,
)
from guestmem.checker.frontend.words import WORDS
from guestmem.checker.pools import Pools
from guestmem.checker.values import BOOL, INT, fits, result, same_kind, widened
from guestmem.model import control
from guestmem.model.record import BoolType, EnumType, Field, Index, IntType, Record, RefType, ScalarType

ARITHMETIC = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "floordiv",
    ast.Mod: "floormod",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
}
COMPARISON = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "==",
    ast.IsNot: "!=",
}
BUILTINS = ("len", "min", "max", "all", "any", "sum", "bool", "int")


@dataclass
class Scope:
    """What names stand for at one place of a function: a type, or a number that is known; and whether no world comes here."""

    function: Function
    receiver: type[Record] | None
    names: dict[str, ScalarType | Number] = field(default_factory=dict)
    is_dead: bool = False

    @contextmanager
    def dead(self) -> Iterator[None]:
        """What is read inside is never run; it may be wrong in any world, but not by the sizes of this one."""
        names, was = dict(self.names), self.is_dead
        self.is_dead = True
        yield
        self.names, self.is_dead = names, was


class Expressions:
    """Reads the expressions of one function."""

    def __init__(self, scope: Scope, pools: Pools, callees: Callees) -> None:
        self.scope = scope
        self.pools = pools
        self.callees = callees

    def refuse(self, node: ast.AST, what: str, instead: str) -> NoReturn:
        self.scope.function.refuse(node, what, instead)

    # ---- what kind of value is wanted

    def condition(self, node: ast.expr) -> Expr:
        """A condition; an integer is true when it is not 0."""
        if isinstance(node, ast.BoolOp):
            return self.logic(node, self.condition)
        value = self.value(node)
        if isinstance(value.type, IntType):
            return self.truth(value)
        if not isinstance(value.type, BoolType):
            self.refuse(node, f"{ast.unparse(node)} as a condition", "compare it, with `is not None` for a record")
        return value

    def boolean(self, node: ast.expr) -> Expr:
        value = self.value(node)
        if not isinstance(value.type, BoolType):
            self.refuse(node, f"{ast.unparse(node)} is no boolean", "compare it with != 0 or `is not None`")
        return value

    def integer(self, node: ast.expr) -> Expr:
        return self.as_integer(self.value(node), node)

    def as_integer(self, value: Expr, node: ast.expr) -> Expr:
        if not isinstance(value.type, IntType):
            self.refuse(node, f"{ast.unparse(node)} where an integer is expected", "use an integer")
        return value

    def record(self, node: ast.expr) -> Expr:
        """A reference that is going to be followed."""
        return self.as_record(self.expr(node))

    def as_record(self, value: Expr) -> Expr:
        if isinstance(value, Array) or not isinstance(value.type, RefType):
            self.refuse(value.node, f"{ast.unparse(value.node)} is no record", "use a record")
        return value

    def array(self, node: ast.expr) -> Array:
        value = self.expr(node)
        if not isinstance(value, Array):
            self.refuse(node, f"{ast.unparse(node)} is no array", "use an array field, range() or Index.span()")
        return value

    def value(self, node: ast.expr) -> Expr:
        value = self.expr(node)
        if isinstance(value, Array):
            self.refuse(node, f"the array {value.field!r} as a value", "name the array where it is used")
        return value

    def text(self, node: ast.expr) -> str:
        value: Any = None
        if isinstance(node, ast.Constant):
            value = node.value
        elif isinstance(node, ast.Name):
            value = self.scope.function.globals.get(node.id)
        elif isinstance(node, ast.Attribute) and self.outer_object(node.value) is not None:
            value = getattr(self.outer_object(node.value), node.attr, None)
        if not isinstance(value, str):
            self.refuse(node, f"{ast.unparse(node)} where a text is expected", "write a string, or name a constant")
        return value

    def fit(self, node: ast.AST, type_: ScalarType, value: Expr, what: object) -> None:
        fit(self.scope.function, node, type_, value, what)

    # ---- expressions

    def expr(self, node: ast.expr) -> Expr:
        match node:
            case ast.Constant(value=bool(value)):
                return Number(node, BOOL, int(value))
            case ast.Constant(value=int(value)):
                return self.number(node, value, IntType(value, value))
            case ast.Constant(value=None):
                return Number(node, RefType(Record, True), 0)
            case ast.Name(id=name):
                return self.name(node, name)
            case ast.Attribute(value=owner, attr=name):
                outer = self.outer_object(owner)
                if outer is not None:
                    return self.constant(node, getattr(outer, name, None))
                return self.attribute(node, self.record(owner), name)
            case ast.Subscript(value=container, slice=index):
                array = self.array(container)
                return Element(node, array.type, array, self.integer(index))
            case ast.BinOp(left=left, op=op, right=right):
                return self.arithmetic(node, op, self.integer(left), self.integer(right))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.condition(operand)
                return Number(node, BOOL, int(not inner.value)) if isinstance(inner, Number) else Not(node, BOOL, inner)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self.integer(operand)
                return self.number(node, -inner.value) if isinstance(inner, Number) else Negative(node, INT, inner)
            case ast.BoolOp():
                return self.logic(node, self.boolean)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self.comparison(node, [self.expr(left), *map(self.expr, comparators)], ops)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.either(node, test, body, orelse)
            case ast.Call():
                called = self.call(node)
                count = len(called.results) if isinstance(called, Action) else 1
                if count != 1:
                    self.refuse(node, f"{ast.unparse(node)} has {count} results, one is used", "assign them first")
                return called
        self.refuse(node, f"{type(node).__name__} in {ast.unparse(node)!r}", "use names, fields, arithmetic, comparisons, calls")

    def number(self, node: ast.expr, value: int, type_: ScalarType = INT) -> Number:
        """A number known now."""
        if not (fits(value) or self.scope.is_dead):
            self.refuse(node, "a number of more than 127 bits", "use smaller ones")
        return Number(node, type_, value)

    def name(self, node: ast.expr, name: str) -> Expr:
        known = self.scope.names.get(name)
        if isinstance(known, Number):
            return Number(node, known.type, known.value)
        if known is not None:
            return Name(node, known, name)
        if name in self.scope.function.globals:
            return self.constant(node, self.scope.function.globals[name])
        self.refuse(node, f"the name {name!r}", "assign it first; a loop variable ends with its loop")

    def constant(self, node: ast.expr, value: Any) -> Number:
        """A value found in a module or a class."""
        match value:
            case bool():
                return Number(node, BOOL, int(value))
            case Index():
                kind = index_type(type(value))
                first, last = self.pools.interval(kind)
                if not first <= value <= last and not self.scope.is_dead:
                    self.refuse(node, f"{int(value)} for {kind!r}, which is {first}..{last}", "use one inside, or a larger world")
                return Number(node, kind, int(value))
            case int():
                return self.number(node, value, IntType(value, value))
            case enum.Enum():
                return Number(node, EnumType(type(value)), list(type(value)).index(value))
        self.refuse(node, f"{ast.unparse(node)}, a {type(value).__name__}", "use numbers, enums, records and functions")

    def outer_object(self, node: ast.expr) -> Any:
        """A module, enum or other class named in the module of the function; None for anything else."""
        if isinstance(node, ast.Name) and node.id not in self.scope.names:
            value = self.scope.function.globals.get(node.id)
            if isinstance(value, (types.ModuleType, type)):
                return value
        return None

    def attribute(self, node: ast.expr, owner: Expr, name: str) -> Expr:
        """A field of a record, a property, or a constant of its class."""
        assert isinstance(owner.type, RefType)
        if name not in owner.type.cls.fields():
            value = getattr(owner.type.cls, name, None)
            if isinstance(value, property):
                return self.called(node, self.callees.method(self.scope.function, node, owner, name), owner, [])
            if isinstance(value, (int, enum.Enum)):
                return self.class_constant(node, owner, name)
        declared = self.field(node, owner, name)
        if declared.kind == "array":
            return Array(node, declared.type, declared, owner)
        return FieldOf(node, declared.type, declared, owner)

    def class_constant(self, node: ast.expr, owner: Expr, name: str) -> Number:
        found = {id(getattr(c, name)): getattr(c, name) for c in self.callees.classes(owner)}
        if len(found) != 1:
            self.refuse(node, f"{name!r}, which differs between the classes that may stand here", "make it a method or a field")
        return self.constant(node, next(iter(found.values())))

    def field(self, node: ast.AST, owner: Expr, name: str) -> Field:
        assert isinstance(owner.type, RefType)
        declared = owner.type.cls.fields().get(name)
        if declared is None:
            known = ", ".join(owner.type.cls.fields())
            self.refuse(node, f"{owner.type.cls.__name__} has no field {name!r}", f"use one of: {known}")
        return declared

    def arithmetic(self, node: ast.expr | ast.AugAssign, operator: ast.operator, a: Expr, b: Expr) -> Expr:
        """An operation on integers, computed now if both are known."""
        op = self.operation(node, operator)
        at = node if isinstance(node, ast.expr) else node.value
        if isinstance(a, Number) and isinstance(b, Number):
            if op == "<<" and b.value > 128 and a.value != 0:
                return self.number(at, 1 << 128)
            value = result(op, a.value, b.value)
            if value is not None:
                return self.number(at, value)
        return Arithmetic(at, INT, op, a, b)

    def operation(self, node: ast.AST, operator: ast.operator) -> str:
        """The name of an operator in the IR."""
        if type(operator) not in ARITHMETIC:
            self.refuse(node, f"the operator in {ast.unparse(node)}", "use + - * // % << >> & | ^")
        return ARITHMETIC[type(operator)]

    def truth(self, value: Expr) -> Expr:
        return Number(value.node, BOOL, int(value.value != 0)) if isinstance(value, Number) else Truth(value.node, BOOL, value)

    def comparison(self, node: ast.Compare, operands: list[Expr], operators: list[ast.cmpop]) -> Expr:
        ops = []
        for operator, a, b in zip(operators, operands, operands[1:], strict=False):
            ops.append(self.compared(node, operator, a, b))
        numbers = [operand.value for operand in operands if isinstance(operand, Number)]
        if len(numbers) == len(operands):
            holds = [result(op, a, b) for op, a, b in zip(ops, numbers, numbers[1:], strict=False)]
            return Number(node, BOOL, int(all(holds)))
        return Comparison(node, BOOL, ops, operands)

    def compared(self, node: ast.Compare, operator: ast.cmpop, a: Expr, b: Expr) -> str:
        """The comparison of two operands; refused if they cannot be compared so."""
        if type(operator) not in COMPARISON:
            self.refuse(node, f"the comparison in {ast.unparse(node)}", "use == != < <= > >= is, or a loop")
        op = COMPARISON[type(operator)]
        if isinstance(a, Array) or isinstance(b, Array):
            self.refuse(node, "an array in a comparison", "compare its elements")
        if is_none(a) or is_none(b):
            comparable = isinstance(a.type, RefType) and isinstance(b.type, RefType)
        else:
            comparable = same_kind(a.type, b.type) or same_kind(b.type, a.type)
        if isinstance(operator, (ast.Is, ast.IsNot)) and isinstance(a.type, IntType):
            self.refuse(node, f"`is` between numbers in {ast.unparse(node)}", "compare them with == or !=")
        ordered = op not in ("==", "!=")
        if not comparable or (ordered and not isinstance(a.type, IntType)):
            self.refuse(node, f"{a.type!r} compared with {b.type!r}", "compare values of one kind")
        return op

    def logic(self, node: ast.BoolOp, read: Callable[[ast.expr], Expr]) -> Expr:
        """All of some conditions, or any of them; what comes after one that decides is never run."""
        every = isinstance(node.op, ast.And)
        parts: list[Expr] = []
        for i, each in enumerate(node.values):
            part = read(each)
            if isinstance(part, Number) and bool(part.value) != every and not parts:
                with self.scope.dead():
                    for rest in node.values[i + 1 :]:
                        read(rest)
                return part
            if not isinstance(part, Number) or bool(part.value) != every or i + 1 == len(node.values):
                parts.append(part)
        return parts[0] if len(parts) == 1 else Logic(node, BOOL, every, parts)

    def either(self, node: ast.IfExp, test: ast.expr, body: ast.expr, orelse: ast.expr) -> Expr:
        condition = self.condition(test)
        if isinstance(condition, Number):
            taken, never = (body, orelse) if condition.value else (orelse, body)
            chosen = self.value(taken)
            with self.scope.dead():
                other = self.value(never)
                if not is_none(chosen):
                    self.fit(node, widened(chosen.type), other, "the other value")
            return chosen
        then, other = self.value(body), self.value(orelse)
        kind = widened(other.type if is_none(then) else then.type)
        for each in (then, other):
            self.fit(node, kind, each, "the other value")
        return Either(node, kind, condition, then, other)

    # ---- calls

    def call(self, node: ast.Call) -> Expr:
        """A call, of any number of results."""
        names, outside = self.scope.names, self.scope.function.globals
        match node.func:
            case ast.Name(id=name) if name not in names:
                if name in BUILTINS and name not in outside:
                    return self.builtin(node, name)
                if name not in outside:
                    self.refuse(node, f"the function {name!r}", "define or import it")
                return self.call_object(node, outside[name])
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"), args=[]), attr=name):
                arguments = self.arguments(node)
                function, receiver = self.scope.function, self.scope.receiver
                if receiver is None:
                    self.refuse(node, f"super().{name}", "name a method that a base class has")
                this = Name(node, RefType(receiver, False), function.parameters[0])
                return self.called(node, self.callees.inherited(function, receiver, node, this, name, arguments), this, arguments)
            case ast.Attribute(value=owner, attr=name):
                outer = self.outer_object(owner)
                if outer is not None:
                    return self.call_object(node, getattr(outer, name, None))
                record = self.record(owner)
                arguments = self.arguments(node)
                callee = self.callees.method(self.scope.function, node, record, name, arguments)
                return self.called(node, callee, record, arguments)
        self.refuse(node, f"the call {ast.unparse(node)}", "call a function, or a method of a record")

    def arguments(self, node: ast.Call) -> list[tuple[str | None, Expr]]:
        """The arguments in the order in which they are evaluated, each with its keyword; those with one are the last."""
        plain: list[tuple[str | None, Expr]] = [(None, self.value(a)) for a in node.args]
        return plain + [(k.arg, self.value(k.value)) for k in node.keywords]

    def called(self, node: ast.expr, callee: Callee, owner: Expr | None, arguments: Sequence[tuple[str | None, Expr]]) -> Call:
        results = callee.targets[0].routine.results
        return Call(node, results[0] if len(results) == 1 else BOOL, results, callee, owner, [value for _, value in arguments])

    def call_object(self, node: ast.Call, target: Any) -> Expr:
        if isinstance(target, type) and issubclass(target, Index):
            if len(node.args) != 1:
                self.refuse(node, f"{target.__name__} of {len(node.args)} values", "give one integer")
            return AsIndex(node, index_type(target), self.integer(node.args[0]))
        if not isinstance(target, types.FunctionType):
            self.refuse(node, f"the call of {ast.unparse(node.func)}", "call model functions and methods of records")
        if target.__module__ == control.__name__:
            return self.word(node, target.__name__)
        packages = getattr(target, "_exported_to", None)
        here = self.scope.function.python.__module__
        if packages and not any(here == package or here.startswith(package + ".") for package in packages):
            self.refuse(node, f"a call of {target.__name__} in {here}", f"it is exported to {' and '.join(packages)}; ask these")
        arguments = self.arguments(node)
        return self.called(node, self.callees.function(self.scope.function, node, target, arguments), None, arguments)

    def word(self, node: ast.Call, name: str) -> Expr:
        if node.keywords:
            self.refuse(node, f"keywords for {name}", "pass plain arguments")
        word, count = WORDS.get(name), len(node.args)
        if word is None or not len(word.takes) - word.optional <= count <= len(word.takes):
            self.refuse(node, f"{name} with {count} arguments", "see its documentation")
        read: dict[str, Callable[[ast.expr], Any]] = {
            "integer": self.integer,
            "condition": self.condition,
            "text": self.text,
            "value": self.value,
        }
        made = word.make(node, *(read[kind](argument) for kind, argument in zip(word.takes, node.args, strict=False)))
        if isinstance(made, Chosen):
            most = made.n.value if isinstance(made.n, Number) else self.pools.interval(made.n.type)[1]
            if most < 1:
                self.refuse(node, f"{ast.unparse(node)} has nothing to choose from", "give it 1 or more")
        return made

    def builtin(self, node: ast.Call, name: str) -> Expr:
        if node.keywords:
            self.refuse(node, f"keywords for {name}", "pass plain arguments")
        if name == "len" and len(node.args) == 1:
            array = self.array(node.args[0])
            length = self.pools.length(array.field)
            return Number(node, INT, length) if is_plain(array.owner) else Length(node, INT, array)
        if name in ("int", "bool") and len(node.args) == 1:
            value = self.value(node.args[0])
            if not isinstance(value.type, (IntType, BoolType)):
                self.refuse(node, f"{name} of {value.type!r}", "use integers and booleans")
            if isinstance(value, Number):
                return Number(node, INT, value.value) if name == "int" else Number(node, BOOL, int(value.value != 0))
            return Integer(node, INT, value) if name == "int" else Truth(node, BOOL, value)
        if name in ("min", "max") and len(node.args) == 2:
            a, b = self.integer(node.args[0]), self.integer(node.args[1])
            if isinstance(a, Number) and isinstance(b, Number):
                return Number(node, INT, (min if name == "min" else max)(a.value, b.value))
            return Extreme(node, INT, name, a, b)
        if name in ("all", "any", "sum") and len(node.args) == 1:
            return self.reduction(node, name, node.args[0])
        self.refuse(node, f"{name} of {len(node.args)} arguments", "see the language: len(a), min(a, b), all(... for x in a)")

    # ---- what is gone through

    def reduction(self, call: ast.Call, word: str, node: ast.expr) -> Expr:
        """``all``, ``any`` and ``sum`` over an array or a generator."""
        if isinstance(node, ast.GeneratorExp):
            generators, value = node.generators, node.elt
        else:
            target = ast.copy_location(ast.Name(id=" element", ctx=ast.Store()), node)
            value = ast.copy_location(ast.Name(id=" element", ctx=ast.Load()), node)
            generators = [ast.comprehension(target=target, iter=node, ifs=[], is_async=0)]
        outside = dict(self.scope.names)
        loops = []
        for each in generators:
            loop = self.iteration(each.target, each.iter)
            loop.tests = [self.condition(test) for test in each.ifs]
            loops.append(loop)
        if word == "sum":
            element = self.value(value)
            if not isinstance(element.type, (IntType, BoolType)):
                self.refuse(value, f"{ast.unparse(value)} where an integer is expected", "use an integer")
        else:
            element = self.boolean(value)
        self.scope.names = outside
        return Reduction(call, INT if word == "sum" else BOOL, word, loops, element)

    def iteration(self, target: ast.expr, iterable: ast.expr) -> Iteration:
        """What a loop goes through; its names are known from here on."""
        position: ast.expr | None = None
        match iterable:
            case ast.Call(func=ast.Name(id="enumerate"), args=[inner], keywords=[]) if isinstance(target, ast.Tuple):
                position, target = target.elts[0], target.elts[1]
                iterable = inner
        over = self.range_of(iterable) or self.array(iterable)
        if isinstance(over, Range):
            return Iteration(over, self.loop_name(target, over.type), "")
        counter = self.loop_name(position, INT) if position is not None else ""
        return Iteration(over, counter, self.loop_name(target, widened(over.type)))

    def loop_name(self, node: ast.expr, type_: ScalarType) -> str:
        if not isinstance(node, ast.Name):
            self.refuse(node, "a loop variable that is no name", "use a name")
        self.scope.names[node.id] = type_
        return node.id

    def range_of(self, iterable: ast.expr) -> Range | None:
        """``range(...)`` or ``Pgoff.span(...)``; None for anything else."""
        zero = Number(iterable, INT, 0)
        match iterable:
            case ast.Call(func=ast.Name(id=name)) if name in self.scope.function.globals:  # not Python's
                return None
            case ast.Call(func=ast.Name(id="range"), args=[end]):
                return Range(iterable, zero, self.integer(end), INT)
            case ast.Call(func=ast.Name(id="range"), args=[start, end]):
                return Range(iterable, self.integer(start), self.integer(end), INT)
            case ast.Call(func=ast.Name(id="range")):
                self.refuse(iterable, "range with a step", "use a while loop")
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="span"), args=[start, end]):
                cls = self.scope.function.globals.get(name)
                if isinstance(cls, type) and issubclass(cls, Index):
                    return Range(iterable, self.integer(start), self.integer(end), index_type(cls))
        return None


def is_plain(owner: Expr) -> bool:
    """Whether a record is named by what has no effects and is never None."""
    match owner:
        case Name(type=RefType(optional=optional)):
            return not optional
        case FieldOf(type=RefType(optional=optional), owner=outer):
            return not optional and is_plain(outer)
    return False
