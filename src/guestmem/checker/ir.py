# SPDX-License-Identifier: Apache-2.0
"""What the passes work on: expressions, instructions, basic blocks, and the bodies that these make up.

Two kinds of bodies there are: *atomic* ones (steps, and functions that contain none), which become C functions, and
*threads*, into which every call that can be interrupted is inlined, so that a thread is one graph with boundaries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from guestmem.checker.frontend.source import Function, Place
from guestmem.model.record import Field, ScalarType

#: Of which files the statements and decisions are marked.
Watches = Callable[[str], bool]


@dataclass(eq=False)
class Var:
    """A local variable of a translated body, after inlining."""

    name: str
    type: ScalarType
    number: int
    source: str = ""  # the name in the Python function; empty for temporaries
    bounds: tuple[Expr, Expr] | None = None  # start and end (exclusive) of what a loop or a choice counts through

    def c(self) -> str:
        """The name in C."""
        return f"v{self.number}"


class Expr:
    """An expression without effects: it may read locals and the state, nothing else."""

    type: ScalarType


@dataclass
class Const(Expr):
    """A number: for references the position in the pool plus one, or 0 for None."""

    value: int
    type: ScalarType


@dataclass
class Local(Expr):
    """The value of a local variable."""

    var: Var

    @property
    def type(self) -> ScalarType:  # type: ignore[override]
        return self.var.type


@dataclass
class Load(Expr):
    """A field of a record, or an element of its array."""

    field: Field
    ref: Expr
    index: Expr | None
    type: ScalarType
    changes: bool = True  # some thread assigns the field; otherwise it is a table of constants


@dataclass
class Part(Expr):
    """A reference to the record embedded in another (element ``index`` of an array of them)."""

    field: Field
    ref: Expr
    index: Expr | None
    type: ScalarType


@dataclass
class Op(Expr):
    """An operation; ``op`` is the C operator, or the name of a helper function."""

    op: str
    args: list[Expr]
    type: ScalarType
    place: Place | None = None  # of arithmetic: where a result that does not fit is reported


@dataclass
class ArrayOf(Expr):
    """An array field of a record; not a value, but something to index, measure or go through."""

    field: Field
    ref: Expr


@dataclass
class Set:
    """Assign a local."""

    var: Var
    value: Expr


@dataclass
class Store:
    """Assign a field or an element."""

    field: Field
    ref: Expr
    index: Expr | None
    value: Expr
    place: Place


@dataclass
class Call:
    """Call a translated function that cannot be interrupted."""

    body: Body
    args: list[Expr]
    results: list[Var]
    place: Place


@dataclass(eq=False)
class Choose:
    """Set a local to any of 0..n-1."""

    var: Var
    n: Expr
    place: Place


@dataclass
class When:
    """Go on only if the condition holds."""

    condition: Expr
    place: Place


@dataclass
class Require:
    """Break ``rule`` unless the condition holds."""

    condition: Expr
    rule: str
    detail: str
    place: Place


@dataclass
class Reached:
    """Note a situation."""

    situation: str


@dataclass(eq=False)
class Loop:
    """A ``while`` of a thread: ``place`` is the line that spins, ``outer`` the loop around it, through inlined calls."""

    place: Place
    outer: Loop | None


@dataclass
class Left:
    """Note that a loop is over."""

    loop: Loop


@dataclass(frozen=True)
class Statement:
    """A statement that is watched; ``column`` tells two in one line apart."""

    place: Place
    column: int


@dataclass(frozen=True)
class Decision:
    """A ``choose`` or ``may`` that is watched; ``label`` is empty where it is no plain text."""

    place: Place
    column: int
    word: str
    label: str


@dataclass
class Mark:
    """Note that a statement begins, or which of ``n`` alternatives a decision takes."""

    what: Statement | Decision
    taken: Expr | None = None
    n: Expr | None = None


Instr = Set | Store | Call | Choose | When | Require | Reached | Mark | Left


@dataclass(eq=False)
class Boundary:
    """A place where a thread can be interrupted: before a step or a choice, at its end, at its start if that matters."""

    kind: str  # "step", "choose", "end" or "start"
    stack: list[tuple[Function, Place, dict[str, Var]]]  # outermost first; the variables each frame has
    loop: Loop | None = None  # the innermost loop it lies in
    scopes: list[dict[str, Expr]] = field(default_factory=list)  # what names stand for in each frame of the stack
    pc: int = -1
    live: list[Var] = field(default_factory=list)


@dataclass
class Goto:
    """Continue at a block."""

    target: Block


@dataclass
class If:
    """Continue at one of two blocks."""

    condition: Expr
    then: Block
    other: Block


@dataclass
class Return:
    """Leave the body with results."""

    values: list[Expr]


@dataclass
class Suspend:
    """Reach a boundary; ``resume`` is what happens when the thread is scheduled again."""

    boundary: Boundary
    resume: Block


Terminator = Goto | If | Return | Suspend


@dataclass(eq=False)
class Block:
    """Straight-line code."""

    number: int
    instrs: list[Instr] = field(default_factory=list)
    end: Terminator | None = None

    def __repr__(self) -> str:  # not the graph, which has no end
        return f"b{self.number}"

    def successors(self) -> list[Block]:
        """Where control can go from here."""
        match self.end:
            case Goto(target):
                return [target]
            case If(_, then, other):
                return [then, other]
            case Suspend(_, resume):
                return [resume]
        return []


@dataclass(eq=False)
class Body:
    """An atomic function, for one class of ``self``, and what it does with all that it calls."""

    function: Function
    name: str
    parameters: list[Var]
    results: list[ScalarType]
    blocks: list[Block] = field(default_factory=list)
    calls: list[Body] = field(default_factory=list)
    writes: set[Field] = field(default_factory=set)
    reads: bool = False
    waits: bool = False

    def __repr__(self) -> str:
        return self.name


@dataclass(eq=False)
class ThreadBody:
    """A thread: its graph, the boundaries in it (``boundaries[pc]``), the loops in which it could go on for ever.

    Those are the ``while`` loops that contain a boundary and can be left, inner ones first.
    """

    name: str
    blocks: list[Block]
    boundaries: list[Boundary]
    writes: set[Field]
    calls: list[Body]
    loops: list[Loop]


def used_bodies(calls: Sequence[Body]) -> list[Body]:
    """The bodies reached from some calls, callees first."""
    order: dict[Body, None] = {}

    def visit(body: Body) -> None:
        if body not in order:
            for callee in body.calls:
                visit(callee)
            order[body] = None

    for body in calls:
        visit(body)
    return list(order)


def without_boundary(start: Block) -> set[Block]:
    """The blocks that can be reached from a block, itself included, before the next boundary."""
    seen: set[Block] = set()
    work = [start]
    while work:
        block = work.pop()
        if block not in seen:
            seen.add(block)
            if not isinstance(block.end, Suspend):
                work.extend(block.successors())
    return seen


def around(loop: Loop | None) -> list[Loop]:
    """A loop and those it lies in, innermost first."""
    return [] if loop is None else [loop, *around(loop.outer)]


def children(expr: Expr) -> list[Expr]:
    """The direct operands of an expression."""
    match expr:
        case Op(args=args):
            return args
        case Load(ref=ref, index=index) | Part(ref=ref, index=index):
            return [ref] if index is None else [ref, index]
        case ArrayOf(ref=ref):
            return [ref]
    return []


def locals_in(expr: Expr) -> set[Var]:
    """The local variables an expression reads."""
    if isinstance(expr, Local):
        return {expr.var}
    return {var for child in children(expr) for var in locals_in(child)}


def fields_in(expr: Expr) -> set[Field]:
    """The fields that can change which an expression reads."""
    own = {expr.field} if isinstance(expr, Load) and expr.changes else set()
    return own.union(*map(fields_in, children(expr)))


def reads_state(expr: Expr) -> bool:
    """Whether the expression reads a field that can change."""
    return bool(fields_in(expr))


def expressions(instr: Instr) -> list[Expr]:
    """The expressions an instruction evaluates."""
    match instr:
        case Set(_, value):
            return [value]
        case Store(_, ref, index, value, _):
            return [ref, value] if index is None else [ref, index, value]
        case Call(_, args, _, _):
            return args
        case Choose(_, n, _):
            return [n]
        case When(condition, _) | Require(condition, _, _, _):
            return [condition]
        case Mark(taken=taken) if taken is not None:
            return [taken]
    return []


def begins(instr: Instr) -> bool:
    """Whether an instruction only notes that a statement begins."""
    return isinstance(instr, Mark) and instr.taken is None


def assigned(instr: Instr) -> list[Var]:
    """The locals an instruction assigns."""
    match instr:
        case Set(var, _) | Choose(var, _, _):
            return [var]
        case Call(_, _, results, _):
            return results
    return []
