# SPDX-License-Identifier: Apache-2.0
"""The typed tree: what a model function says, every name resolved, every type known, nothing in it to be refused.

A routine is a function as it is for one class of ``self``.  A call only names the routines that it may come to.  ::

    routine    = function for receiver: parameter..., result..., statement...

    statement  = Assign   name = value                  | Unpack  name, ... = call
               | SetField record.field = value          | SetElement array[index] = value
               | Update   target op= value              | Do      call
               | If       test: ... else: ...           | While   test: ...
               | For      name in Range or Array: ...   | With    lock: ...
               | Return   value, ... or call            | Jump    break or continue

    value      = Number | Name | FieldOf record.field   | Element array[index]
               | Arithmetic a op b | Negative -a        | Extreme min or max
               | Comparison a op b op ... | Logic a and b and ... | Not a | Truth a != 0 | Integer of a boolean
               | Either a if test else b                | Reduction all, any, sum | Length of an array
               | AsIndex Pgoff(a) | Current | Chosen | Call
    call       = Call | When | Require | Reached | Charge

An ``Array`` is no value, but something to index, to measure or to go through.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from guestmem.checker.frontend.source import Function
from guestmem.model.record import Field, Record, RefType, ScalarType


@dataclass(eq=False)
class Expr:
    """An expression, and where it stands: a message may quote it."""

    node: ast.expr
    type: ScalarType


@dataclass(eq=False)
class Number(Expr):
    """What is written in the source, or found in a module or class; a None has the type ``Record | None``."""

    value: int


@dataclass(eq=False)
class Name(Expr):
    """A local or a parameter."""

    name: str


@dataclass(eq=False)
class FieldOf(Expr):
    """A field of a record, or the record that is a part of it."""

    field: Field
    owner: Expr


@dataclass(eq=False)
class Array(Expr):
    """An array field of a record; ``type`` is that of its elements."""

    field: Field
    owner: Expr


@dataclass(eq=False)
class Element(Expr):
    """An element of an array."""

    array: Array
    index: Expr


@dataclass(eq=False)
class Arithmetic(Expr):
    """An operation on two integers, by its name in the IR."""

    op: str
    left: Expr
    right: Expr


@dataclass(eq=False)
class Unary(Expr):
    """What is computed of one value."""

    operand: Expr


@dataclass(eq=False)
class Negative(Unary):
    """An integer with the other sign."""


@dataclass(eq=False)
class Extreme(Expr):
    """The lesser ("min") or greater ("max") of two integers."""

    op: str
    left: Expr
    right: Expr


@dataclass(eq=False)
class Comparison(Expr):
    """A chain of comparisons, each operand evaluated once; ``ops`` are == != < <= > >=."""

    ops: list[str]
    operands: list[Expr]


@dataclass(eq=False)
class Logic(Expr):
    """All (``every``) or any of some conditions, evaluated up to the one that decides."""

    every: bool
    parts: list[Expr]


@dataclass(eq=False)
class Not(Unary):
    """The other boolean."""


@dataclass(eq=False)
class Truth(Unary):
    """Whether a number is not 0."""


@dataclass(eq=False)
class Integer(Unary):
    """A boolean as a number."""


@dataclass(eq=False)
class Either(Expr):
    """One of two values."""

    test: Expr
    then: Expr
    other: Expr


@dataclass(eq=False)
class Length(Expr):
    """The number of elements of an array."""

    array: Array


@dataclass(eq=False)
class Range:
    """The numbers from ``start`` up to ``end``, each of this type."""

    node: ast.expr
    start: Expr
    end: Expr
    type: ScalarType


@dataclass(eq=False)
class Iteration:
    """What a loop goes through: ``counter`` is the name for the number, ``element`` that for the element of an array."""

    over: Range | Array
    counter: str
    element: str
    tests: list[Expr] = field(default_factory=list)  # of a generator: only where these hold


@dataclass(eq=False)
class Reduction(Expr):
    """``all``, ``any`` or ``sum`` of a value over some nested iterations."""

    word: str
    loops: list[Iteration]
    value: Expr


@dataclass(eq=False)
class AsIndex(Expr):
    """A number as an index; one out of range breaks a rule."""

    value: Expr


@dataclass(eq=False)
class Current(Expr):
    """The number of the running thread."""


@dataclass(eq=False)
class Chosen(Expr):
    """Any of 0..n-1; ``word`` and ``label`` as they are written, the label empty where it is no plain text."""

    n: Expr
    word: str
    label: str


@dataclass(eq=False)
class Routine:
    """A function for a class of ``self`` (None if it is no method): what it takes, gives and does."""

    function: Function
    receiver: type[Record] | None
    parameters: dict[str, ScalarType]
    results: list[ScalarType]
    body: list[Stmt] = field(default_factory=list)

    def __repr__(self) -> str:
        """The function, and whose it is where that is not the class that defines it."""
        receiver = self.receiver.__name__ if self.receiver else ""
        outer = self.function.name.startswith(f"{receiver}.") or not receiver
        return self.function.name if outer else f"{self.function.name} of {receiver}"


@dataclass(eq=False)
class Target:
    """A routine that a call may come to: for records of which classes, and where each parameter's value comes from.

    That is the position among the values given, or a default.
    """

    routine: Routine
    classes: list[type[Record]]
    bound: list[int | Expr]


@dataclass(eq=False)
class Callee:
    """The routines of which a call comes to one, by the class of the record.

    ``exact`` has the one for each class, for where that is known.  A function that is no method has a single target.
    """

    targets: list[Target]
    exact: dict[type[Record], Target] = field(default_factory=dict)


@dataclass(eq=False)
class Action(Expr):
    """What may stand as a statement; it has any number of results, and a type where that is one."""

    results: list[ScalarType]


@dataclass(eq=False)
class Call(Action):
    """A call; for a method ``owner`` is the record."""

    callee: Callee
    owner: Expr | None
    arguments: list[Expr]


@dataclass(eq=False)
class When(Action):
    """Wait until a condition holds."""

    condition: Expr


@dataclass(eq=False)
class Require(Action):
    """Break a rule unless a condition holds."""

    condition: Expr
    rule: str
    detail: str


@dataclass(eq=False)
class Reached(Action):
    """Note a situation."""

    situation: str


@dataclass(eq=False)
class Charge(Action):
    """What it costs is no part of a state; that its arguments are evaluated may be."""

    arguments: list[Expr]


@dataclass(eq=False)
class Stmt:
    """A statement, and where it stands."""

    node: ast.stmt


@dataclass(eq=False)
class Assign(Stmt):
    """Assign a local, which may be declared."""

    name: str
    value: Expr
    type: ScalarType | None = None


@dataclass(eq=False)
class Unpack(Stmt):
    """Assign the results of a call; a name is None where the result is dropped."""

    names: list[str | None]
    call: Expr


@dataclass(eq=False)
class SetField(Stmt):
    """Assign a field; ``guard`` is the method that says whether that may be."""

    field: Field
    owner: Expr
    value: Expr
    guard: Callee | None


@dataclass(eq=False)
class SetElement(Stmt):
    """Assign an element of an array."""

    array: Array
    index: Expr
    value: Expr
    guard: Callee | None


@dataclass(eq=False)
class Update(Stmt):
    """Assign what an operation makes of the value before; what the target names is looked up once."""

    target: Name | FieldOf | Element
    op: str
    value: Expr
    guard: Callee | None


@dataclass(eq=False)
class Do(Stmt):
    """A call whose results are dropped."""

    call: Expr


@dataclass(eq=False)
class If(Stmt):
    """One of two ways; one that no world takes is empty."""

    test: Expr
    then: list[Stmt]
    other: list[Stmt]


@dataclass(eq=False)
class While(Stmt):
    """As long as a condition holds."""

    test: Expr
    body: list[Stmt]


@dataclass(eq=False)
class For(Stmt):
    """For each number of a range or element of an array."""

    iteration: Iteration
    body: list[Stmt]


@dataclass(eq=False)
class With(Stmt):
    """Enter a lock, and leave it on every way out."""

    lock: Expr
    enter: Callee
    leave: Callee
    body: list[Stmt]


@dataclass(eq=False)
class Return(Stmt):
    """Leave the routine with some values, or with what a call gives."""

    values: list[Expr]
    call: Expr | None


@dataclass(eq=False)
class Jump(Stmt):
    """``continue`` (``again``) or ``break``."""

    again: bool


def is_none(value: Expr) -> bool:
    """Whether a value is the None that is written in the source, which has no type yet."""
    return isinstance(value, Number) and isinstance(value.type, RefType) and value.type.cls is Record
