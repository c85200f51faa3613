# SPDX-License-Identifier: Apache-2.0
"""From Python functions to basic blocks.

Two kinds of bodies come out: *atomic* ones (steps, and functions that contain none), which become C functions, and
*threads*, into which every call that can be interrupted is inlined, so that a thread is one graph with boundaries.
What the world as built already decides is decided here: fields that nothing assigns are constants, and a branch on
one disappears.
"""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from guestmem.checker.frontend.classes import is_own, refuse_lost_overrides
from guestmem.checker.frontend.flow import check_flow
from guestmem.checker.frontend.order import Operands
from guestmem.checker.ir import (
    BOOL,
    INT,
    INT_HI,
    INT_LO,
    ArrayOf,
    Block,
    Boundary,
    Call,
    Choose,
    Const,
    Decision,
    Expr,
    Goto,
    If,
    Instr,
    Interval,
    Left,
    Load,
    Local,
    Loop,
    Mark,
    Op,
    Part,
    Reached,
    Require,
    Return,
    Set,
    Statement,
    Store,
    Suspend,
    Var,
    When,
    around,
    begins,
    expressions,
    locals_in,
    reads_state,
    same_kind,
)
from guestmem.checker.pools import Pools
from guestmem.checker.source import Function, Place, function_of
from guestmem.model import control
from guestmem.model.errors import ALWAYS_A_STEP, GUARDED, IN_ARRAY, IN_RANGE, NO_NONE, NO_PANIC, Refused
from guestmem.model.record import BoolType, EnumType, Field, Index, IntType, Record, RefType, ScalarType
from guestmem.model.world import World, records_of

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
COMPARISON = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
FOLD: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "floormod": lambda a, b: a % b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
    ">": lambda a, b: int(a > b),
    ">=": lambda a, b: int(a >= b),
    "&&": lambda a, b: a & b,
    "||": lambda a, b: a | b,
    "min": min,
    "max": max,
}

#: Who can go on in a state is a word of bits.
MOST_THREADS = 64


#: Of which files the statements and decisions are marked.
Watches = Callable[[str], bool]


@dataclass(eq=False)
class Body:
    """A lowered atomic function, and what it does to those who call it."""

    function: Function
    name: str
    parameters: list[Var]
    results: list[ScalarType]
    blocks: list[Block]
    calls: list[Body] = field(default_factory=list)
    writes: set[Field] = field(default_factory=set)  # by itself and by what it calls
    reads: bool = False
    chooses: bool = False
    interruptible: bool = False


@dataclass(eq=False)
class ThreadBody:
    """A lowered thread: its graph, the boundaries in it (``boundaries[pc]``), the loops in which it could go on for ever.

    Those are the ``while`` loops that contain a boundary and can be left, inner ones first.
    """

    name: str
    blocks: list[Block]
    boundaries: list[Boundary]
    writes: set[Field]
    calls: list[Body]
    loops: list[Loop]


@dataclass
class Frame:
    """A function being lowered into a body: the outermost, or one inlined."""

    function: Function
    receiver: type[Record] | None
    env: dict[str, Expr]
    assigned_once: set[str]
    results: list[Var]
    exit: Block
    returns: list[set[Var]] = field(default_factory=list)  # for each way to the exit, what is known not to be None
    guards: list[Callable[[], None]] = field(default_factory=list)
    loops: list[tuple[Block, Block, int]] = field(default_factory=list)  # continue, break, guards held outside
    at: Place | None = None
    around: Loop | None = None  # the loop that its caller is in


class Program:
    """All bodies of a world, lowered with the knowledge which fields can change.

    The first time that is not known, and what this world never runs is lowered too, for what is wrong with it.
    ``watches`` says of a file whether its statements and decisions are marked.

    Attributes:
        notes: what is wrong in methods of the user's that nothing calls.
    """

    def __init__(self, pools: Pools, changing: set[Field] | None, watches: Watches) -> None:
        self.pools = pools
        self.watches = watches
        self.changing = changing  # None: not known yet, every field may change
        self._bodies: dict[tuple[Function, type[Record] | None], Body] = {}
        self._pending: list[Function] = []
        self._constants: dict[Field, list[int]] = {}
        world = pools.world
        cls = type(world)
        if not world.threads:
            raise Refused(cls.__qualname__, "a world without threads", "mark a method with @thread")
        if len(world.threads) > MOST_THREADS:
            raise Refused(cls.__qualname__, f"a world of {len(world.threads)} threads", f"use at most {MOST_THREADS}")
        self.threads = [self._thread(t.name, function_of(t.function), t.arguments) for t in world.threads]
        self.always = [(f._always, self.predicate(function_of(f), cls)) for f in world.marked("_always")]
        self.sometimes = [(f._sometimes, self.predicate(function_of(f), cls)) for f in world.marked("_sometimes")]
        self.notes = self._uncalled() if changing is None else []

    def body(self, function: Function, receiver: type[Record] | None) -> Body:
        """The atomic form of a function, for a receiver of this class."""
        key = (function, receiver)
        if key not in self._bodies:
            if function in self._pending:
                function.refuse(function.node, f"{function.name} calls itself", "write a loop")
            check_flow(function)
            self._pending.append(function)
            try:
                self._bodies[key] = Lowering(self).atomic(function, receiver, f"f{len(self._bodies)}_{function.node.name}")
            finally:
                self._pending.pop()
        return self._bodies[key]

    def predicate(self, function: Function, cls: type[Record]) -> Body:
        """A function of the state alone."""
        body = self.body(function, cls)
        if body.writes or waits(body) or any(used.chooses for used in used_bodies([body])):
            function.refuse(function.node, "a property that changes the world, waits or chooses", "return a condition")
        if [type(result) for result in body.results] != [BoolType]:
            function.refuse(function.node, "a property that gives no boolean", "annotate it -> bool, and return a condition")
        return body

    def _uncalled(self) -> list[str]:
        """What is wrong in methods that nothing calls, of classes that are not this package's own."""
        called = {function for function, _ in self._bodies} | {function_of(t.function) for t in self.pools.world.threads}
        notes: dict[str, None] = {}
        for cls in dict.fromkeys(type(record) for record in records_of(self.pools.world)):
            plain = cls.setup.__code__.co_names if issubclass(cls, World) else ()  # setup() and what it calls is plain Python
            for base in cls.__mro__:
                if is_own(base.__module__):
                    continue
                for name, value in vars(base).items():
                    method = value.fget if isinstance(value, property) else value
                    if not isinstance(method, types.FunctionType) or name in ("setup", *plain) or name.startswith("__"):
                        continue
                    if getattr(cls, name) is not value:  # overridden
                        continue
                    try:
                        function = function_of(method)
                        if function not in called:
                            self.body(function, cls)
                    except Refused as error:
                        notes[f"{error.where}: {error.what}, in {name}, which nothing calls: {error.instead}"] = None
        return list(notes)

    def _thread(self, name: str, function: Function, arguments: tuple[int, ...]) -> ThreadBody:
        check_flow(function)
        return Lowering(self).thread(name, function, type(self.pools.world), arguments)

    def written(self) -> set[Field]:
        """The fields that a thread can change."""
        found: set[Field] = set()
        for thread in self.threads:
            found.update(thread.writes, *(body.writes for body in thread.calls))
        return found

    def constant(self, field: Field) -> list[int] | None:
        """The values of a field nothing assigns; None if it can change."""
        if self.changing is None or field in self.changing:
            return None
        if field not in self._constants:
            self._constants[field] = self.pools.values(field)
        return self._constants[field]


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


def can_stop(instr: Instr) -> bool:
    """Whether a body can end at an instruction: where it waits, chooses, or finds a rule broken."""
    if isinstance(instr, Store):  # a number may lie outside the range of the field
        return isinstance(instr.field.type, (IntType, RefType)) and not isinstance(instr.value, Const)
    return isinstance(instr, (When, Require, Choose))


def touches(instr: Instr) -> bool:
    """Whether an instruction of a thread reads or changes what others see."""
    if isinstance(instr, Store) or (isinstance(instr, Call) and instr.body.reads):
        return True
    return any(map(reads_state, expressions(instr)))


def is_same_whenever(start: Block) -> bool:
    """Whether what a thread does from a block to its next boundary is the same whenever it does it, and cannot stop."""
    blocks = without_boundary(start)
    instrs = [instr for block in blocks for instr in block.instrs]
    called = used_bodies([instr.body for instr in instrs if isinstance(instr, Call)])
    inside = [instr for body in called for block in body.blocks for instr in block.instrs]
    ends = [block.end.condition for block in blocks if isinstance(block.end, If)]
    return not (any(map(touches, instrs)) or any(map(can_stop, instrs + inside)) or any(map(reads_state, ends)))


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


def common_base(classes: Sequence[type[Record]], owner: type[Record]) -> type[Record]:
    """The most derived class that all of these are or come from, at least ``owner``."""
    common = (base for base in classes[0].__mro__ if all(issubclass(cls, base) for cls in classes))
    return next(base for base in common if issubclass(base, owner))


def owner_of(function: Function, cls: type[Record]) -> type[Record]:
    """The class in which a method of ``cls`` is defined."""
    return next(base for base in cls.__mro__ if any(is_definition(value, function) for value in vars(base).values()))


def lower(world: World, watches: Watches) -> Program:
    """Lower the threads and properties of a world, until what changes is known for good."""
    refuse_lost_overrides(world)
    pools = Pools(world)
    program = Program(pools, None, watches)
    notes = program.notes
    while True:
        changing = program.written()
        if changing == program.changing:
            program.notes = notes
            return program
        program = Program(pools, changing, watches)


class Lowering:
    """Lowers one body."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.pools = program.pools
        self.blocks: list[Block] = []
        self.block = self.new_block()
        self.frames: list[Frame] = []
        self.vars = 0
        self.is_thread = False
        self.number: int | None = None
        self.not_none: set[Var] = set()
        self.calls: dict[Body, None] = {}
        self.within: Loop | None = None  # the innermost `while` of a thread that is being lowered
        self.is_dead = False

    # ---- bodies

    def atomic(self, function: Function, receiver: type[Record] | None, name: str) -> Body:
        """Lower a function that runs without interruption."""
        env: dict[str, Expr] = {}
        parameters: list[Var] = []
        for parameter in function.parameters:
            declared = self.parameter_type(function, receiver, parameter)
            var = self.new_var(parameter, declared if parameter in function.assigned_once else self.widened(declared))
            if isinstance(declared, RefType) and not declared.optional:
                self.not_none.add(var)
            low, high = self.pools.interval(var.type)
            only = isinstance(var.type, RefType) and low == high
            env[parameter] = Const(low, var.type) if only else Local(var)
            parameters.append(var)
        types_ = self.result_types(function)
        self.enter(function, receiver, env, types_)
        frame = self.frames[-1]
        self.statements(function.node.body)
        self.goto(frame.exit)
        self.block = frame.exit
        self.block.end = Return([Local(var) for var in frame.results])
        blocks = self.reachable()
        instrs = [instr for block in blocks for instr in block.instrs]
        used = {i.body for i in instrs if isinstance(i, Call)}
        body = Body(function, name, parameters, types_, blocks, [callee for callee in self.calls if callee in used])
        body.writes = {i.field for i in instrs if isinstance(i, Store)}.union(*(callee.writes for callee in body.calls))
        ends = [block.end.condition for block in body.blocks if isinstance(block.end, If)]
        body.reads = any(reads_state(e) for i in instrs for e in expressions(i)) or any(map(reads_state, ends))
        body.reads = body.reads or bool(body.writes) or any(callee.reads for callee in body.calls)
        body.chooses = any(isinstance(i, Choose) for i in instrs)
        body.interruptible = not function.is_step and (
            body.chooses or any(c.function.is_step or c.interruptible for c in body.calls)
        )
        if function.is_step:
            self.check_guards_first(body)
        return body

    def thread(self, name: str, function: Function, receiver: type[Record], arguments: tuple[int, ...]) -> ThreadBody:
        """Lower a thread, everything that can be interrupted inlined."""
        self.is_thread = True
        self.number = next(i for i, t in enumerate(self.pools.world.threads) if t.name == name)
        values: list[Expr] = [Const(self.pools.number(self.pools.world), RefType(receiver, False))]
        values += [Const(argument, INT) for argument in arguments]
        if len(values) != len(function.parameters):
            function.refuse(function.node, f"a thread with {len(function.parameters)} parameters", "use (self) or (self, i)")
        self.enter(function, receiver, dict(zip(function.parameters, values, strict=True)), [])
        entry = self.block
        self.suspend("start", function.node)
        start = self.block
        self.statements(function.node.body)
        self.goto(self.frames[-1].exit)
        self.block = self.frames[-1].exit
        self.suspend("end", function.node)
        self.block.end = Goto(self.block)
        if is_same_whenever(start):
            entry.instrs, entry.end = start.instrs, start.end
        blocks = self.reachable()
        boundaries = [block.end.boundary for block in blocks if isinstance(block.end, Suspend)]
        for pc, boundary in enumerate(boundaries):
            boundary.pc = pc
        writes = {i.field for block in blocks for i in block.instrs if isinstance(i, Store)}
        used = {i.body for block in blocks for i in block.instrs if isinstance(i, Call)}
        calls = [body for body in self.calls if body in used]
        return ThreadBody(name, blocks, boundaries, writes, calls, self.loops(blocks, boundaries))

    @staticmethod
    def loops(blocks: list[Block], boundaries: list[Boundary]) -> list[Loop]:
        """The loops in which a thread could go on for ever; that others are over is not noted."""
        left = {instr.loop for block in blocks for instr in block.instrs if isinstance(instr, Left)}
        nested = [loop for boundary in boundaries for loop in around(boundary.loop) if loop in left]
        found = sorted(dict.fromkeys(nested), key=lambda loop: -len(around(loop)))
        for block in blocks:
            block.instrs = [i for i in block.instrs if not (isinstance(i, Left) and i.loop not in found)]
        return found

    def check_guards_first(self, body: Body) -> None:
        """Refuse a step that may wait after it has changed something: it could not be taken back."""
        changed: dict[Block, bool] = {body.blocks[0]: False}
        work = [body.blocks[0]]
        while work:
            block = work.pop()
            dirty = changed[block]
            for instr in block.instrs:
                if isinstance(instr, When) or (isinstance(instr, Call) and waits(instr.body)):
                    if dirty:
                        what = "a step that waits after it has changed something"
                        raise Refused(str(instr.place), what, "move when() to its start")
                dirty = dirty or isinstance(instr, Store) or (isinstance(instr, Call) and bool(instr.body.writes))
            for successor in block.successors():
                if successor not in changed or (dirty and not changed[successor]):
                    changed[successor] = dirty
                    work.append(successor)

    def reachable(self) -> list[Block]:
        """The blocks that can be reached, in order of creation, empty jumps skipped."""
        for block in self.blocks:
            match block.end:
                case Goto(target):
                    block.end = Goto(skip(target))
                case If(condition, then, other):
                    block.end = If(condition, skip(then), skip(other))
                case Suspend(boundary, resume):
                    block.end = Suspend(boundary, skip(resume))
        seen: set[Block] = set()
        work = [self.blocks[0]]
        while work:
            block = work.pop()
            if block not in seen:
                seen.add(block)
                work.extend(block.successors())
        return [block for block in self.blocks if block in seen]

    # ---- frames, blocks, variables

    def enter(self, function: Function, receiver: type[Record] | None, env: dict[str, Expr], results: list[ScalarType]) -> None:
        variables = [self.new_var("", type_) for type_ in results]
        frame = Frame(function, receiver, env, function.assigned_once, variables, self.new_block(), around=self.within)
        self.frames.append(frame)

    def new_block(self) -> Block:
        block = Block(len(self.blocks))
        self.blocks.append(block)
        return block

    def new_var(self, name: str, type_: ScalarType) -> Var:
        self.vars += 1
        return Var(name or "t", type_, self.vars, name)

    def emit(self, instr: Instr) -> None:
        if self.block.end is None:
            self.block.instrs.append(instr)

    def goto(self, target: Block) -> None:
        if self.block.end is None:
            self.block.end = Goto(target)

    def branch(self, condition: Expr, then: Block, other: Block) -> None:
        if self.block.end is None:
            if isinstance(condition, Const):
                self.block.end = Goto(then if condition.value else other)
            else:
                self.block.end = If(condition, then, other)

    def temp(self, value: Expr) -> Expr:
        """The value of an expression now, whatever happens later."""
        if isinstance(value, Const):
            return value
        var = self.new_var("", value.type)
        self.assign_var(var, value)
        return Local(var)

    def assign_var(self, var: Var, value: Expr) -> None:
        """Assign a local; what is known of the value is known of it."""
        self.not_none.discard(var)
        if isinstance(var.type, RefType) and not self.can_be_none(value):
            self.not_none.add(var)
        self.emit(Set(var, value))

    def settled(self, value: Expr) -> Expr:
        """A value that stays what it is while the statements run that follow in this function."""
        frame = self.frame
        moving = {e.var for name, e in frame.env.items() if isinstance(e, Local) and name not in frame.assigned_once}
        return value if moving.isdisjoint(locals_in(value)) and not reads_state(value) else self.temp(value)

    def dead(self, lower: Callable[[], object]) -> None:
        """Lower what this world never runs, the first time: it may be wrong in any world."""
        if self.program.changing is not None:
            return
        frame, before = self.frame, (self.block, self.not_none, self.is_dead)
        env, returns = dict(frame.env), list(frame.returns)
        self.block, self.not_none, self.is_dead = self.new_block(), set(self.not_none), True
        lower()
        self.block, self.not_none, self.is_dead = before
        frame.env, frame.returns = env, returns

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def place(self, node: ast.AST) -> Place:
        return self.frame.function.place(node)

    def refuse(self, node: ast.AST, what: str, instead: str) -> NoReturn:
        self.frame.function.refuse(node, what, instead)

    def suspend(self, kind: str, node: ast.AST) -> None:
        """Put a boundary here, before what the next block does."""
        if self.block.end is not None:
            return
        places = [frame.at for frame in self.frames[1:]] + [self.place(node)]
        stack = []
        for frame, place in zip(self.frames, places, strict=True):
            assert place is not None
            stack.append((frame.function, place, {n: e.var for n, e in frame.env.items() if isinstance(e, Local)}))
        resume = self.new_block()
        while self.block.instrs and begins(self.block.instrs[-1]):  # a statement that begins with the step
            resume.instrs.insert(0, self.block.instrs.pop())
        self.block.end = Suspend(Boundary(kind, stack, self.within, [dict(frame.env) for frame in self.frames]), resume)
        self.block = resume

    # ---- types

    def parameter_type(self, function: Function, receiver: type[Record] | None, name: str) -> ScalarType:
        if name not in function.hints:
            if receiver is not None and name == function.parameters[0]:
                return RefType(receiver, False)
            function.refuse(function.node, f"the parameter {name!r} without a type", "annotate it")
        return self.type_of_hint(function, function.node, function.hints[name])

    def result_types(self, function: Function) -> list[ScalarType]:
        if "return" not in function.hints:
            function.refuse(function.node, f"{function.name} without a result type", "annotate it, with -> None if there is none")
        hint = function.hints["return"]
        if hint is type(None):
            return []
        if getattr(hint, "__origin__", None) is tuple:
            return [self.type_of_hint(function, function.node, h) for h in hint.__args__]
        return [self.type_of_hint(function, function.node, hint)]

    def type_of_hint(self, function: Function, node: ast.AST, hint: Any) -> ScalarType:
        if hint is bool:
            return BOOL
        if hint is int:
            return INT
        if isinstance(hint, type):
            if issubclass(hint, Index):
                return IntType(0, f"{hint.below} - 1", hint)
            if issubclass(hint, enum.Enum):
                return EnumType(hint)
            if issubclass(hint, Record):
                return RefType(hint, False)
        if isinstance(hint, types.UnionType):
            options = [h for h in hint.__args__ if h is not type(None)]
            if len(options) == 1 and isinstance(options[0], type) and issubclass(options[0], Record):
                return RefType(options[0], True)
        function.refuse(node, f"the type {hint!r}", "use bool, int, an Enum, an Index, a Record or Record | None")

    # ---- statements

    def statements(self, nodes: Sequence[ast.stmt]) -> None:
        for i, node in enumerate(nodes):
            if self.block.end is not None:
                self.dead(lambda rest=nodes[i:]: self.statements(rest))  # type: ignore[misc]
                return
            if self.program.watches(self.frame.function.file) and not says_nothing(node):
                self.emit(Mark(Statement(self.place(node), node.col_offset)))
            self.statement(node)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case _ if says_nothing(node):
                pass
            case ast.Expr(value=ast.Call() as call):
                self.call(call)
            case ast.Assign(targets=[target], value=value):
                self.assign(node, target, value)
            case ast.AnnAssign(target=ast.Name(id=name) as target, value=value) if value is not None:
                hint = self.resolve_annotation(node.annotation)
                self.assign_name(node, name, self.expr(value), self.type_of_hint(self.frame.function, node, hint))
            case ast.AugAssign():
                self.augmented(node)
            case ast.If(test=test, body=body, orelse=orelse):
                self.if_statement(test, body, orelse)
            case ast.While(test=test, body=body, orelse=[]):
                self.while_statement(test, body)
            case ast.For(target=target, iter=iterable, body=body, orelse=[]):
                self.for_statement(target, iterable, body)
            case ast.With(items=items, body=body):
                self.with_statement(items, body)
            case ast.Return(value=value):
                self.return_statement(node, value)
            case ast.Break() | ast.Continue():
                again, done, held = self.frame.loops[-1]
                self.release(held)
                self.goto(again if isinstance(node, ast.Continue) else done)
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
            case _:
                self.refuse(node, f"{type(node).__name__} as a statement", "use assignments, calls, if, while, for, with, return")

    def resolve_annotation(self, node: ast.expr) -> Any:
        scope = self.frame.function.globals
        try:
            return eval(compile(ast.Expression(node), "annotation", "eval"), scope)
        except Exception as error:
            self.refuse(node, f"the annotation {ast.unparse(node)}: {error}", "use a type known in the module")

    def assign(self, node: ast.stmt, target: ast.expr, value: ast.expr) -> None:
        match target:
            case ast.Name(id=name):
                self.assign_name(node, name, self.expr(value))
            case ast.Tuple(elts=elements):
                self.assign_tuple(node, elements, value)
            case ast.Attribute(value=owner):
                operands = Operands(self)
                operands.add(self.value(value))
                declared = self.assigned_field(target, operands.add(self.record(owner)))
                result, ref = operands.take()
                self.store(node, declared, ref, None, result)
            case ast.Subscript(value=container, slice=index):
                operands = Operands(self)
                operands.add(self.value(value))
                whole = operands.add(self.assigned_array(target, container))
                operands.add(self.index(whole, index))
                result, array, position = operands.take()
                assert isinstance(array, ArrayOf)
                self.store(node, array.field, array.ref, position, result)
            case _:
                self.refuse(target, f"assignment to {ast.unparse(target)}", "assign a name, a field or an element")

    def augmented(self, node: ast.AugAssign) -> None:
        """``target op= value``: what the target names is looked up once, and loaded before the value is evaluated."""
        target = node.target
        operands = Operands(self)
        match target:
            case ast.Name(id=name):
                operands.add(self.as_integer(target, self.name(target, name)))
                operands.add(self.integer(node.value))
                self.assign_name(node, name, self.arithmetic(node, node.op, *operands.take()))
            case ast.Attribute(value=owner):
                ref = operands.add(self.record(owner))
                declared = self.assigned_field(target, ref)
                operands.add(self.as_integer(target, self.load(declared, ref, None)))
                operands.add(self.integer(node.value))
                ref, *numbers = operands.take()
                self.store(node, declared, ref, None, self.arithmetic(node, node.op, *numbers))
            case ast.Subscript(value=container, slice=index):
                whole = operands.add(self.assigned_array(target, container))
                position = operands.add(self.index(whole, index))
                operands.add(self.as_integer(target, self.element(whole, position)))
                operands.add(self.integer(node.value))
                array, position, *numbers = operands.take()
                assert isinstance(array, ArrayOf)
                self.store(node, array.field, array.ref, position, self.arithmetic(node, node.op, *numbers))

    def assigned_field(self, target: ast.Attribute, ref: Expr) -> Field:
        """The field that an assignment sets."""
        declared = self.field_of(target, ref, target.attr)
        if declared.kind != "scalar":
            self.refuse(target, f"assignment to the {declared.kind} {target.attr!r}", "assign its fields or elements")
        return declared

    def assigned_array(self, target: ast.Subscript, container: ast.expr) -> ArrayOf:
        """The array of which an assignment sets an element."""
        whole = self.array(container)
        if whole.field.parts:
            self.refuse(target, f"assignment to an element of {whole.field!r}", "assign the fields of the record")
        return whole

    def store(self, node: ast.stmt, declared: Field, ref: Expr, index: Expr | None, value: Expr) -> None:
        self.expect(node, declared.type, value, f"{declared!r}", IN_RANGE)
        exists = bool(self.pools.records(declared.owner))
        if isinstance(value, Const) and isinstance(declared.type, IntType) and exists and not self.is_dead:
            low, high = self.pools.interval(declared.type)
            if not low <= value.value <= high:
                self.refuse(node, f"{value.value} for {declared!r}, which is {low}..{high}", "widen the field, or store less")
        self.check_guard(node, declared, ref)
        self.emit(Store(declared, ref, index, value, self.place(node)))

    def check_guard(self, node: ast.stmt, declared: Field, ref: Expr) -> None:
        """Have the guard of a field, if it has one, say whether the running thread may change it."""
        if declared.guard:
            for cls in self.classes(ref):
                self.program.predicate(function_of(getattr(cls, declared.guard)), cls)
            may_change = self.one(self.invoke_on(cast(ast.expr, node), ref, declared.guard, []))
            self.emit(Require(may_change, GUARDED, f"{declared!r}, not {declared.guard}()", self.place(node)))

    def assign_name(self, node: ast.stmt, name: str, value: Expr, type_: ScalarType | None = None) -> None:
        if isinstance(value, ArrayOf):
            self.refuse(node, f"the array {value.field!r} in a variable", "name the array where it is used")
        frame = self.frame
        if type_ is not None:
            self.expect(node, type_, value, name)
        if isinstance(value, Const) and name in frame.assigned_once:
            frame.env[name] = value if type_ is None else Const(value.value, type_)
            return
        known = frame.env.get(name)
        if not isinstance(known, Local):
            if type_ is None and is_none(value):
                self.refuse(node, f"None in {name!r}, which has no type yet", f"write {name}: Record | None = None")
            known = Local(self.new_var(name, type_ or self.widened(value.type)))
            frame.env[name] = known
        self.expect(node, known.type, value, name)
        self.assign_var(known.var, value)

    @staticmethod
    def widened(type_: ScalarType) -> ScalarType:
        """The type of a variable that once has a value of this type: plain integers lose their bounds, records may be None."""
        match type_:
            case IntType(index=None):
                return INT
            case RefType(cls=cls):
                return RefType(cls, True)
        return type_

    def assign_tuple(self, node: ast.stmt, elements: list[ast.expr], value: ast.expr) -> None:
        if not isinstance(value, ast.Call):
            self.refuse(node, "several values assigned at once", "assign one after the other")
        results = self.call(value)
        if len(results) != len(elements):
            self.refuse(node, f"{len(results)} results for {len(elements)} names", "name each result")
        for element, result in zip(elements, results, strict=True):
            if not isinstance(element, ast.Name):
                self.refuse(element, "a result assigned to something that is no name", "assign it in a second statement")
            if element.id != "_":
                self.assign_name(node, element.id, result)

    def if_statement(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        condition = self.condition(test)
        then, other, join = self.new_block(), self.new_block(), self.new_block()
        self.branch(condition, then, other)
        before = set(self.not_none)
        after: list[set[Var]] = []
        for block, nodes, truth in ((then, body, True), (other, orelse, False)):
            if isinstance(condition, Const) and bool(condition.value) != truth:
                self.dead(lambda nodes=nodes: self.statements(nodes))  # type: ignore[misc]
                continue
            self.block = block
            self.not_none = before | self.facts(test, truth)
            self.statements(nodes)
            if self.block.end is None:
                after.append(self.not_none)
                self.goto(join)
        self.block = join
        self.not_none = set.intersection(*after) if after else before
        if not after:
            join.end = Goto(join)

    def facts(self, test: ast.expr, truth: bool) -> set[Var]:
        """The locals known not to be None when a condition turned out ``truth``."""
        match test:
            case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[ast.Constant(value=None)]):
                if isinstance(op, ast.IsNot if truth else ast.Is):
                    known = self.frame.env.get(name)
                    return {known.var} if isinstance(known, Local) else set()
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.facts(operand, not truth)
            case ast.BoolOp(op=op, values=values) if isinstance(op, ast.And if truth else ast.Or):
                return set().union(*(self.facts(value, truth) for value in values))
        return set()

    @contextmanager
    def loop(self, again: Block, done: Block, nodes: Sequence[ast.AST]) -> Iterator[None]:
        """What is lowered inside is the body of a loop; what its statements assign is not known to be a record."""
        stored = {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for name in stored:
            known = self.frame.env.get(name)
            if isinstance(known, Local):
                self.not_none.discard(known.var)
        outside = set(self.not_none)
        self.frame.loops.append((again, done, len(self.frame.guards)))
        yield
        self.frame.loops.pop()
        self.not_none = outside

    def while_statement(self, test: ast.expr, body: list[ast.stmt]) -> None:
        head, inside, done = self.new_block(), self.new_block(), self.new_block()
        self.goto(head)
        self.block = head
        loop = self.within = Loop(self.place(test), self.within)
        with self.loop(head, done, body):
            condition = self.condition(test)
            self.branch(condition, inside, done)
            self.block = inside
            self.not_none |= self.facts(test, True)
            self.statements(body)
            self.goto(head)
        if head in without_boundary(inside):
            at = self.frame.function.place(test)
            inside.instrs.insert(0, Require(Op("turn", [], BOOL), ALWAYS_A_STEP, "a loop does not end", at))
        self.block = done
        if isinstance(condition, Const) and condition.value and not any(done in b.successors() for b in self.blocks):
            done.end = Goto(done)
        self.within = loop.outer
        self.leave(loop)

    def leave(self, *loops: Loop) -> None:
        """Note that loops are over, where they can be interrupted."""
        if self.is_thread:
            for loop in loops:
                self.emit(Left(loop))

    def for_statement(self, target: ast.expr, iterable: ast.expr, body: list[ast.stmt]) -> None:
        names = [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]
        for node in body:
            for child in ast.walk(node):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store) and child.id in names:
                    self.refuse(child, f"assignment to the loop variable {child.id!r}", "use another name")

        def run(again: Block, done: Block) -> None:
            with self.loop(again, done, body):
                self.statements(body)

        self.iterate(target, iterable, run)
        for name in names:
            self.frame.env.pop(name, None)

    def iterate(self, target: ast.expr, iterable: ast.expr, run: Callable[[Block, Block], None]) -> None:
        """Go through a range or an array; ``run`` lowers what is done for each element."""
        again, done = self.new_block(), self.new_block()
        position: ast.expr | None = None
        match iterable:
            case ast.Call(func=ast.Name(id="enumerate"), args=[inner], keywords=[]) if isinstance(target, ast.Tuple):
                position, target = target.elts[0], target.elts[1]
                iterable = inner
        bounds = self.range_of(iterable)
        whole: ArrayOf | None = None
        if bounds is None:
            whole = self.array(iterable)
            start: Expr = Const(0, INT)
            end: Expr = Const(self.pools.length(whole.field), INT)
            whole = ArrayOf(whole.field, self.settled(whole.ref if isinstance(whole.ref, Local) else self.temp(whole.ref)))
            kind: ScalarType = INT
        else:
            start, end, kind = bounds
            end = self.settled(end if isinstance(end, Local) else self.temp(end))
        counted = target if whole is None else position
        if counted is not None and not isinstance(counted, ast.Name):
            self.refuse(counted, "a loop variable that is no name", "use a name")
        counter = self.new_var(counted.id if isinstance(counted, ast.Name) else "", kind)
        counter.bounds = (start, end)
        if isinstance(counted, ast.Name):
            self.frame.env[counted.id] = Local(counter)
        self.emit(Set(counter, start))
        head, inside = self.new_block(), self.new_block()
        self.goto(head)
        self.block = head
        self.branch(Op("<", [Local(counter), end], BOOL), inside, done)
        self.block = inside
        if bounds is not None and isinstance(kind, IntType) and kind.index is not None:
            self.check_index(iterable, kind, Local(counter))
        if whole is not None:
            if not isinstance(target, ast.Name):
                self.refuse(target, "a loop variable that is no name", "use a name")
            element = self.element(whole, Local(counter))
            var = self.new_var(target.id, self.widened(element.type))
            self.frame.env[target.id] = Local(var)
            self.assign_var(var, element)
        run(again, done)
        self.goto(again)
        self.block = again
        self.emit(Set(counter, Op("+", [Local(counter), Const(1, INT)], kind, self.place(iterable))))
        self.goto(head)
        self.block = done

    def interval(self, value: Expr) -> Interval:
        """What the type of a value, or the loop that counts it, says of its bounds."""
        if isinstance(value, Const):
            return value.value, value.value
        if isinstance(value, Local) and value.var.bounds is not None:
            start, end = value.var.bounds
            return self.interval(start)[0], self.interval(end)[1] - 1
        return self.pools.interval(value.type)

    def range_of(self, iterable: ast.expr) -> tuple[Expr, Expr, ScalarType] | None:
        """Start, end and type of ``range(...)`` or ``Pgoff.span(...)``; None for anything else."""
        match iterable:
            case ast.Call(func=ast.Name(id=name)) if name in self.frame.function.globals:  # not Python's
                return None
            case ast.Call(func=ast.Name(id="range"), args=[end]):
                return Const(0, INT), self.integer(end), INT
            case ast.Call(func=ast.Name(id="range"), args=[start, end]):
                first, last = self.integers(start, end)
                return first, last, INT
            case ast.Call(func=ast.Name(id="range")):
                self.refuse(iterable, "range with a step", "use a while loop")
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="span"), args=[start, end]):
                cls = self.frame.function.globals.get(name)
                if isinstance(cls, type) and issubclass(cls, Index):
                    first, last = self.integers(start, end)
                    return first, last, IntType(0, f"{cls.below} - 1", cls)
        return None

    def with_statement(self, items: list[ast.withitem], body: list[ast.stmt]) -> None:
        if len(items) != 1 or items[0].optional_vars is not None:
            self.refuse(items[0].context_expr, "several guards, or a guard with a name", "write one `with lock:` inside another")
        node = items[0].context_expr
        enter, leave = "acquire", "release"
        lock = self.record(node.value if isinstance(node, ast.Attribute) else node)
        if isinstance(node, ast.Attribute):
            assert isinstance(lock.type, RefType)
            attribute = getattr(lock.type.cls, node.attr, None)
            if isinstance(attribute, control.guard):
                enter, leave = attribute.enter, attribute.leave
            else:
                lock = self.followed(node, self.attribute_of(node, lock, node.attr))
        lock = self.settled(lock)
        self.invoke_on(node, lock, enter, [])
        frame = self.frame
        frame.guards.append(lambda: void(self.invoke_on(node, lock, leave, [])))
        self.statements(body)
        frame.guards.pop()
        if self.block.end is None:
            self.invoke_on(node, lock, leave, [])

    def release(self, held: int) -> None:
        """Leave the guards entered since ``held`` of them were, innermost first."""
        frame = self.frame
        saved = list(frame.guards)
        while len(frame.guards) > held:
            leave = frame.guards.pop()
            leave()
        frame.guards = saved

    def return_statement(self, node: ast.Return, value: ast.expr | None) -> None:
        frame = self.frame
        wanted = frame.results
        nodes: list[ast.expr] = []
        if isinstance(value, ast.Tuple):
            nodes = value.elts
        elif value is not None and not (isinstance(value, ast.Constant) and value.value is None and not wanted):
            nodes = [value]
        if len(wanted) != 1 and len(nodes) == 1 and isinstance(nodes[0], ast.Call):
            values = self.call(nodes[0])
        else:
            values = self.values(nodes)
        if len(values) != len(wanted):
            self.refuse(node, f"{len(values)} results where {len(wanted)} are declared", "return what the annotation says")
        for var, result in zip(wanted, values, strict=True):
            self.expect(node, var.type, result, "the result")
            self.emit(Set(var, result))
        self.leave(*around(self.within)[: len(around(self.within)) - len(around(frame.around))])
        self.release(0)
        frame.returns.append(set(self.not_none))
        self.goto(frame.exit)

    # ---- expressions

    def condition(self, node: ast.expr) -> Expr:
        """A condition; an integer is true when it is not 0."""
        if isinstance(node, ast.BoolOp):
            return self.bool_op(isinstance(node.op, ast.And), node.values, self.condition)
        value = self.expr(node)
        if isinstance(value.type, IntType):
            return self.fold("!=", [value, Const(0, INT)], BOOL)
        if not isinstance(value.type, BoolType):
            self.refuse(node, f"{ast.unparse(node)} as a condition", "compare it, with `is not None` for a record")
        return value

    def value(self, node: ast.expr) -> Expr:
        value = self.expr(node)
        if isinstance(value, ArrayOf):
            self.refuse(node, f"the array {value.field!r} as a value", "name the array where it is used")
        return value

    def values(self, nodes: Iterable[ast.expr]) -> list[Expr]:
        """Some values, evaluated from left to right."""
        operands = Operands(self)
        for node in nodes:
            operands.add(self.value(node))
        return operands.take()

    def integer(self, node: ast.expr) -> Expr:
        return self.as_integer(node, self.value(node))

    def integers(self, *nodes: ast.expr) -> list[Expr]:
        """Some integers, evaluated from left to right."""
        return [self.as_integer(node, value) for node, value in zip(nodes, self.values(nodes), strict=True)]

    def as_integer(self, node: ast.expr, value: Expr) -> Expr:
        if not isinstance(value.type, IntType):
            self.refuse(node, f"{ast.unparse(node)} where an integer is expected", "use an integer")
        return value

    def boolean(self, node: ast.expr) -> Expr:
        value = self.expr(node)
        if not isinstance(value.type, BoolType):
            self.refuse(node, f"{ast.unparse(node)} is no boolean", "compare it with != 0 or `is not None`")
        return value

    def record(self, node: ast.expr) -> Expr:
        """A reference that is going to be followed: it must not be None."""
        return self.followed(node, self.expr(node))

    def followed(self, node: ast.expr, value: Expr) -> Expr:
        if isinstance(value, ArrayOf) or not isinstance(value.type, RefType):
            self.refuse(node, f"{ast.unparse(node)} is no record", "use a record")
        if self.can_be_none(value):
            value = value if isinstance(value, (Const, Local)) else self.temp(value)
            condition = self.fold("!=", [value, Const(0, INT)], BOOL)
            self.emit(Require(condition, NO_NONE, f"{ast.unparse(node)} is None", self.place(node)))
            if isinstance(value, Local):
                self.not_none.add(value.var)
        return value

    def array(self, node: ast.expr) -> ArrayOf:
        value = self.expr(node)
        if not isinstance(value, ArrayOf):
            self.refuse(node, f"{ast.unparse(node)} is no array", "use an array field, range() or Index.span()")
        return value

    def can_be_none(self, value: Expr) -> bool:
        match value:
            case Const(value=number, type=RefType()):
                return number == 0
            case Local(var):
                return isinstance(var.type, RefType) and var.type.optional and var not in self.not_none
            case Load(type=RefType(optional=optional)):
                return optional
            case Op(op="?:", args=[_, then, other]):
                return self.can_be_none(then) or self.can_be_none(other)
        return False

    def expect(self, node: ast.AST, type_: ScalarType, value: Expr, what: str, rule: str = NO_NONE) -> None:
        """Refuse a value of another type than ``type_``; a None that must not be breaks ``rule`` when running."""
        if is_none(value):
            if not isinstance(type_, RefType) or not type_.optional:
                self.refuse(node, f"None for {what}", f"annotate it {type_!r} | None")
            return
        if isinstance(value, ArrayOf) or not same_kind(type_, value.type):
            got = f"{value.field!r}" if isinstance(value, ArrayOf) else repr(value.type)
            self.refuse(node, f"{got} where {what} is {type_!r}", "use a value of that type")
        if isinstance(type_, RefType) and not type_.optional and self.can_be_none(value):
            condition = self.fold("!=", [value, Const(0, INT)], BOOL)
            self.emit(Require(condition, rule, f"None for {what}", self.place(node)))
            if isinstance(value, Local):
                self.not_none.add(value.var)

    def expr(self, node: ast.expr) -> Expr:
        match node:
            case ast.Constant(value=bool(value)):
                return Const(int(value), BOOL)
            case ast.Constant(value=int(value)):
                self.fits(node, value)
                return Const(value, IntType(value, value))
            case ast.Constant(value=None):
                return Const(0, RefType(Record, True))
            case ast.Name(id=name):
                return self.name(node, name)
            case ast.Attribute(value=owner, attr=name):
                return self.attribute(node, owner, name)
            case ast.Subscript(value=container, slice=index):
                operands = Operands(self)
                operands.add(self.index(operands.add(self.array(container)), index))
                whole, position = operands.take()
                assert isinstance(whole, ArrayOf)
                return self.element(whole, position)
            case ast.BinOp(left=left, op=op, right=right):
                return self.arithmetic(node, op, *self.integers(left, right))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self.fold("==", [self.condition(operand), Const(0, INT)], BOOL)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.fold("-", [Const(0, INT), self.integer(operand)], INT, self.place(node))
            case ast.BoolOp(op=op, values=values):
                return self.bool_op(isinstance(op, ast.And), values, self.boolean)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self.compare(node, left, ops, comparators)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.choice_expr(node, test, body, orelse)
            case ast.Call():
                results = self.call(node)
                if len(results) != 1:
                    self.refuse(node, f"{ast.unparse(node)} has {len(results)} results, one is used", "assign them first")
                return results[0]
        self.refuse(node, f"{type(node).__name__} in {ast.unparse(node)!r}", "use names, fields, arithmetic, comparisons, calls")

    def arithmetic(self, node: ast.expr | ast.AugAssign, operator: ast.operator, a: Expr, b: Expr) -> Expr:
        """An operation on integers; a divisor and a shift count are tested unless they are known."""
        if type(operator) not in ARITHMETIC:
            self.refuse(node, f"the operator in {ast.unparse(node)}", "use + - * // % << >> & | ^")
        op = ARITHMETIC[type(operator)]
        low, high = self.interval(b)
        divides, shifts = op.startswith("floor") and low <= 0 <= high, op in ("<<", ">>") and low < 0
        if divides or shifts:
            b = b if isinstance(b, (Const, Local)) else self.temp(b)
            condition = self.fold("!=" if divides else ">=", [b, Const(0, INT)], BOOL)
            what = "division by zero" if divides else "negative shift count"
            self.emit(Require(condition, IN_RANGE, f"{ast.unparse(node)}: {what}", self.place(node)))
        if isinstance(a, Const) and isinstance(b, Const) and op == "<<" and b.value > 64 and a.value != 0:
            return self.fits(node, 1 << 64)
        result = self.fold(op, [a, b], INT, self.place(node))
        return self.fits(node, result.value) if isinstance(result, Const) else result

    def fits(self, node: ast.AST, value: int) -> Const:
        """A number known now."""
        if not (INT_LO <= value <= INT_HI or self.is_dead):
            self.refuse(node, "a number of more than 64 bits", "use smaller ones")
        return Const(value, INT)

    def name(self, node: ast.expr, name: str) -> Expr:
        frame = self.frame
        if name in frame.env:
            return frame.env[name]
        if name in frame.function.globals:
            return self.constant(node, frame.function.globals[name])
        self.refuse(node, f"the name {name!r}", "assign it first; a loop variable ends with its loop")

    def constant(self, node: ast.expr, value: Any) -> Expr:
        """A value found in a module or a class."""
        match value:
            case bool():
                return Const(int(value), BOOL)
            case Index():
                kind = IntType(0, f"{value.below} - 1", type(value))
                first, last = self.pools.interval(kind)
                if not first <= value <= last and not self.is_dead:
                    self.refuse(node, f"{int(value)} for {kind!r}, which is {first}..{last}", "use one inside, or a larger world")
                return Const(int(value), kind)
            case int():
                self.fits(node, value)
                return Const(value, IntType(value, value))
            case enum.Enum():
                return Const(list(type(value)).index(value), EnumType(type(value)))
        self.refuse(node, f"{ast.unparse(node)}, a {type(value).__name__}", "use numbers, enums, records and functions")

    def attribute(self, node: ast.expr, owner: ast.expr, name: str) -> Expr:
        outer = self.outer_object(owner)
        if outer is not None:
            return self.constant(node, getattr(outer, name, None))
        return self.attribute_of(node, self.record(owner), name)

    def attribute_of(self, node: ast.expr, ref: Expr, name: str) -> Expr:
        """A field of a record, a property, or a constant of its class."""
        assert isinstance(ref.type, RefType)
        if name not in ref.type.cls.fields():
            value = getattr(ref.type.cls, name, None)
            if isinstance(value, property):
                return self.one(self.invoke_on(node, ref, name, []))
            if isinstance(value, (int, enum.Enum)):
                return self.class_constant(node, ref, name)
        declared = self.field_of(node, ref, name)
        if declared.kind == "array":
            return ArrayOf(declared, ref)
        if declared.kind == "part":
            return self.part(declared, ref, None)
        return self.load(declared, ref, None)

    def outer_object(self, node: ast.expr) -> Any:
        """A module, enum or other class named in the module of the function; None for anything else."""
        if isinstance(node, ast.Name) and node.id not in self.frame.env:
            value = self.frame.function.globals.get(node.id)
            if isinstance(value, (types.ModuleType, type)):
                return value
        return None

    def class_constant(self, node: ast.expr, ref: Expr, name: str) -> Expr:
        assert isinstance(ref.type, RefType)
        found = {id(getattr(c, name)): getattr(c, name) for c in self.classes(ref) or [ref.type.cls]}
        if len(found) != 1:
            self.refuse(node, f"{name!r}, which differs between the classes that may stand here", "make it a method or a field")
        return self.constant(node, next(iter(found.values())))

    def field_of(self, node: ast.AST, ref: Expr, name: str) -> Field:
        assert isinstance(ref.type, RefType)
        declared = ref.type.cls.fields().get(name)
        if declared is None:
            known = ", ".join(ref.type.cls.fields())
            self.refuse(node, f"{ref.type.cls.__name__} has no field {name!r}", f"use one of: {known}")
        return declared

    def load(self, declared: Field, ref: Expr, index: Expr | None) -> Expr:
        if not self.pools.records(declared.owner):  # no record has the field: this is never evaluated
            return Const(self.pools.interval(declared.type)[0], declared.type)
        values = self.program.constant(declared)
        if values:
            position = self.position(declared, ref, index)
            if position is not None:
                return Const(values[position], declared.type)
            if len(set(values)) == 1:
                return Const(values[0], declared.type)
        if isinstance(declared.type, IntType):
            low, high = self.pools.interval(declared.type)
            if low == high:
                return Const(low, declared.type)
        return Load(declared, ref, index, declared.type, changes=values is None)

    def part(self, declared: Field, ref: Expr, index: Expr | None) -> Expr:
        position = self.position(declared, ref, index)
        if position is not None:
            return Const(self.pools.values(declared)[position], declared.type)
        if not self.pools.records(declared.owner):
            return Const(0, declared.type)
        return Part(declared, ref, index, declared.type)

    def position(self, declared: Field, ref: Expr, index: Expr | None) -> int | None:
        """Where a field's value stands among all its values, if that is known."""
        if not isinstance(ref, Const) or ref.value == 0 or not (index is None or isinstance(index, Const)):
            return None
        first = self.pools.interval(RefType(declared.owner, False))[0]
        offset = index.value if isinstance(index, Const) else 0
        if not 0 <= offset < self.pools.length(declared):
            return None  # never reached: the index has broken a rule
        return (ref.value - first) * self.pools.length(declared) + offset

    def element(self, whole: ArrayOf, index: Expr) -> Expr:
        return (self.part if whole.field.parts else self.load)(whole.field, whole.ref, index)

    def index(self, whole: ArrayOf, node: ast.expr) -> Expr:
        value = self.integer(node)
        length = self.pools.length(whole.field)
        low, high = self.interval(value)
        if low < 0 or high >= length:
            value = value if isinstance(value, (Const, Local)) else self.temp(value)
            inside = self.inside(value, 0, length - 1)
            detail = f"{ast.unparse(node)} in {whole.field!r}, which has {length}"
            self.emit(Require(inside, IN_ARRAY, detail, self.place(node)))
        return value

    def inside(self, value: Expr, low: int, high: int) -> Expr:
        """Whether low <= value <= high."""
        above = self.fold(">=", [value, Const(low, INT)], BOOL)
        return self.fold("&&", [above, self.fold("<=", [value, Const(high, INT)], BOOL)], BOOL)

    def fold(self, op: str, args: list[Expr], type_: ScalarType, place: Place | None = None) -> Expr:
        """An operation, computed now if it can be."""
        a, b = args
        undefined = isinstance(b, Const) and ((op.startswith("floor") and b.value == 0) or (op in ("<<", ">>") and b.value < 0))
        if isinstance(a, Const) and isinstance(b, Const) and not undefined:
            return Const(FOLD[op](a.value, b.value), type_)
        if op in ("&&", "||"):
            for one, two in ((a, b), (b, a)):
                if isinstance(one, Const):
                    absorbs = bool(one.value) == (op == "||")
                    return Const(int(op == "||"), BOOL) if absorbs else two
        return Op(op, args, type_, place)

    def compare(self, node: ast.expr, left: ast.expr, ops: list[ast.cmpop], comparators: list[ast.expr]) -> Expr:
        a, b = self.operands_of_comparison(self.expr(left), comparators[0])

        def next_two(op: ast.cmpop, right: ast.expr) -> Expr:
            nonlocal a, b
            a, b = self.operands_of_comparison(b, right)
            return self.compare_two(node, op, a, b)

        rest = [functools.partial(next_two, op, right) for op, right in zip(ops[1:], comparators[1:], strict=True)]
        return self.lazily(True, [lambda: self.compare_two(node, ops[0], a, b), *rest])

    def operands_of_comparison(self, a: Expr, right: ast.expr) -> list[Expr]:
        operands = Operands(self)
        operands.add(a)
        operands.add(self.expr(right))
        return operands.take()

    def compare_two(self, node: ast.expr, op: ast.cmpop, a: Expr, b: Expr) -> Expr:
        if isinstance(op, (ast.Is, ast.IsNot)):
            name = "==" if isinstance(op, ast.Is) else "!="
        elif type(op) in COMPARISON:
            name = COMPARISON[type(op)]
        else:
            self.refuse(node, f"the comparison in {ast.unparse(node)}", "use == != < <= > >= is, or a loop")
        if isinstance(a, ArrayOf) or isinstance(b, ArrayOf):
            self.refuse(node, "an array in a comparison", "compare its elements")
        none = [v for v in (a, b) if isinstance(v, Const) and v.value == 0 and isinstance(v.type, RefType)]
        if none:
            fits = isinstance(a.type, RefType) and isinstance(b.type, RefType)
            other = b if none[0] is a else a
            if fits and not isinstance(other, Const) and not self.can_be_none(other) and name in ("==", "!="):
                return Const(int(name == "!="), BOOL)
        else:
            fits = same_kind(a.type, b.type) or same_kind(b.type, a.type)
        if isinstance(op, (ast.Is, ast.IsNot)) and isinstance(a.type, IntType):
            self.refuse(node, f"`is` between numbers in {ast.unparse(node)}", "compare them with == or !=")
        ordered = name not in ("==", "!=")
        if not fits or (ordered and not isinstance(a.type, IntType)):
            self.refuse(node, f"{a.type!r} compared with {b.type!r}", "compare values of one kind")
        return self.fold(name, [a, b], BOOL)

    def bool_op(self, is_and: bool, values: list[ast.expr], lower_one: Callable[[ast.expr], Expr]) -> Expr:
        def one(i: int) -> Expr:
            for earlier in values[:i]:
                self.not_none |= self.facts(earlier, is_and)
            return lower_one(values[i])

        return self.lazily(is_and, [functools.partial(one, i) for i in range(len(values))])

    def lazily(self, is_and: bool, parts: Sequence[Callable[[], Expr]]) -> Expr:
        """All of some conditions, or any of them, none evaluated after one that decides."""
        op = "&&" if is_and else "||"
        result = parts[0]()
        for i, part in enumerate(parts[1:], 1):
            if isinstance(result, Const) and bool(result.value) != is_and:
                self.dead(lambda rest=parts[i:]: [one() for one in rest])  # type: ignore[misc]
                return result
            saved = set(self.not_none)
            before = self.block
            inside = self.new_block()
            self.block = inside
            right = part()
            self.not_none = saved
            if self.block is inside and not inside.instrs:
                self.block = before
                result = self.fold(op, [result, right], BOOL)
                continue
            var = self.new_var("", BOOL)
            self.emit(Set(var, right))
            join = self.new_block()
            self.goto(join)
            self.block = before
            self.emit(Set(var, result))
            self.branch(Local(var), inside if is_and else join, join if is_and else inside)
            self.block = join
            result = Local(var)
        return result

    def choice_expr(self, node: ast.expr, test: ast.expr, body: ast.expr, orelse: ast.expr) -> Expr:
        condition = self.condition(test)
        if isinstance(condition, Const):
            taken, never = (body, orelse) if condition.value else (orelse, body)
            chosen = self.value(taken)
            fits = self.widened(chosen.type)
            self.dead(lambda: self.expect(node, fits, self.value(never), "the other value") if not is_none(chosen) else None)
            return chosen
        then, other, join = self.new_block(), self.new_block(), self.new_block()
        self.branch(condition, then, other)
        results: list[tuple[Block, Expr]] = []
        before, known = set(self.not_none), True
        for block, value, truth in ((then, body, True), (other, orelse, False)):
            self.block = block
            self.not_none = before | self.facts(test, truth)
            result = self.value(value)
            known = known and not self.can_be_none(result)
            results.append((self.block, result))
        self.not_none = before
        (_, a), (_, b) = results
        kind = self.widened(b.type if is_none(a) else a.type)
        var = self.new_var("", kind)
        for block, result in results:
            self.block = block
            self.expect(node, kind, result, "the other value")
            self.emit(Set(var, result))
            self.goto(join)
        self.block = join
        if known:
            self.not_none.add(var)
        return Local(var)

    # ---- calls

    def one(self, results: list[Expr]) -> Expr:
        assert len(results) == 1
        return results[0]

    def call(self, node: ast.Call) -> list[Expr]:
        """Lower a call; its results."""
        match node.func:
            case ast.Name(id=name) if name not in self.frame.env:
                if name in ("len", "min", "max", "all", "any", "sum", "bool", "int") and name not in self.frame.function.globals:
                    return [self.builtin(node, name)]
                if name not in self.frame.function.globals:
                    self.refuse(node, f"the function {name!r}", "define or import it")
                return self.call_object(node, self.frame.function.globals[name])
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"), args=[]), attr=name):
                return self.call_super(node, name)
            case ast.Attribute(value=owner, attr=name):
                outer = self.outer_object(owner)
                if outer is not None:
                    return self.call_object(node, getattr(outer, name, None))
                operands = Operands(self)
                operands.add(self.record(owner))
                for argument in self.arguments(node):
                    operands.add(self.value(argument))
                ref, *values = operands.take()
                return self.invoke_on(node, ref, name, values, [k.arg for k in node.keywords])
        self.refuse(node, f"the call {ast.unparse(node)}", "call a function, or a method of a record")

    def call_object(self, node: ast.Call, target: Any) -> list[Expr]:
        if isinstance(target, type) and issubclass(target, Index):
            if len(node.args) != 1:
                self.refuse(node, f"{target.__name__} of {len(node.args)} values", "give one integer")
            value = self.integer(node.args[0])
            kind = IntType(0, f"{target.below} - 1", target)
            value = self.check_index(node, kind, value)
            if isinstance(value, Const):
                return [Const(value.value, kind)]
            return [Op("+", [value, Const(0, INT)], kind)]
        if not isinstance(target, types.FunctionType):
            self.refuse(node, f"the call of {ast.unparse(node.func)}", "call model functions and methods of records")
        if target.__module__ == control.__name__:
            return self.word(node, target.__name__)
        packages = getattr(target, "_exported_to", None)
        here = self.frame.function.python.__module__
        if packages and not any(here == package or here.startswith(package + ".") for package in packages):
            self.refuse(node, f"a call of {target.__name__} in {here}", f"it is exported to {' and '.join(packages)}; ask these")
        values = self.values(self.arguments(node))
        return self.invoke(node, function_of(target), None, values, [k.arg for k in node.keywords])

    @staticmethod
    def arguments(node: ast.Call) -> list[ast.expr]:
        """The arguments in the order in which they are evaluated; those with a keyword are the last."""
        return [*node.args, *(k.value for k in node.keywords)]

    def check_index(self, node: ast.expr, kind: IntType, value: Expr) -> Expr:
        """Break a rule where a value becomes an index that is out of its range, unless its type says that it is not."""
        low, high = self.interval(value)
        first, last = self.pools.interval(kind)
        if low < first or high > last:
            value = value if isinstance(value, (Const, Local)) else self.temp(value)
            detail = f"{ast.unparse(node)} outside {first}..{last}"
            self.emit(Require(self.inside(value, first, last), IN_RANGE, detail, self.place(node)))
        return value

    def call_super(self, node: ast.Call, name: str) -> list[Expr]:
        """Call what the class of the record itself has after the class that says ``super()``."""
        frame = self.frame
        if frame.receiver is None:
            self.refuse(node, f"super().{name}", "name a method that a base class has")
        owner = owner_of(frame.function, frame.receiver)
        this = frame.env[frame.function.parameters[0]]
        assert isinstance(this.type, RefType)
        targets: dict[Function, list[type[Record]]] = {}
        for cls in self.classes(this) or [this.type.cls]:
            attribute = getattr(super(owner, cls), name, None)
            if not isinstance(attribute, types.FunctionType):
                self.refuse(node, f"super().{name}", "name a method that a base class has")
            targets.setdefault(function_of(attribute), []).append(cls)
        return self.dispatch(node, this, targets, self.values(self.arguments(node)), [k.arg for k in node.keywords])

    def invoke_on(
        self, node: ast.expr, ref: Expr, name: str, values: Sequence[Expr], names: Sequence[str | None] = ()
    ) -> list[Expr]:
        """Call a method, on whichever of the classes present the record may be; the last values are those with names."""
        assert isinstance(ref.type, RefType)
        targets: dict[Function, list[type[Record]]] = {}
        for cls in self.classes(ref) or [ref.type.cls]:
            attribute = getattr(cls, name, None)
            if isinstance(attribute, property):
                attribute = attribute.fget
            if not isinstance(attribute, types.FunctionType):
                self.refuse(node, f"{cls.__name__} has no method {name!r}", "define it")
            targets.setdefault(function_of(attribute), []).append(cls)
        return self.dispatch(node, ref, targets, values, names)

    def dispatch(
        self,
        node: ast.expr,
        ref: Expr,
        targets: dict[Function, list[type[Record]]],
        values: Sequence[Expr],
        names: Sequence[str | None],
    ) -> list[Expr]:
        """Call the function that belongs to the class of the record: ``targets`` has the classes for each."""
        if len(targets) == 1:
            (function, classes), *_ = targets.items()
            receiver = common_base(classes, owner_of(function, classes[0]))
            return self.invoke(node, function, receiver, [self.as_class(ref, receiver), *values], names)
        ref = ref if isinstance(ref, Local) else self.temp(ref)
        given = [self.temp(value) for value in values]
        join = self.new_block()
        results: dict[Var, bool] = {}  # and whether each is known not to be None
        known = set(self.not_none)
        other = self.block
        for count, (function, classes) in enumerate(targets.items(), 1):
            self.block = other
            if count < len(targets):  # the last function is that of all other classes
                inside, other = self.new_block(), self.new_block()
                self.branch(self.is_one_of(ref, classes), inside, other)
                self.block = inside
            self.not_none = set(known)
            receiver = common_base(classes, owner_of(function, classes[0]))
            found = self.invoke(node, function, receiver, [self.as_class(ref, receiver), *given], names)
            results = results or {self.new_var("", self.widened(type_)): True for type_ in self.result_types(function)}
            for var, value in zip(results, found, strict=True):
                self.expect(node, var.type, value, "the result")
                results[var] = results[var] and not self.can_be_none(value)
                self.emit(Set(var, value))
            self.goto(join)
        self.block = join
        self.not_none = known | {var for var, never in results.items() if never}
        return [Local(var) for var in results]

    def as_class(self, ref: Expr, cls: type[Record]) -> Expr:
        """A reference known to point to a record of ``cls``."""
        assert isinstance(ref.type, RefType)
        if isinstance(ref, Const):
            return Const(ref.value, RefType(cls, False))
        if ref.type.cls is cls:
            return ref
        var = self.new_var("", RefType(cls, False))
        self.emit(Set(var, ref))
        return Local(var)

    def is_one_of(self, ref: Expr, classes: list[type[Record]]) -> Expr:
        result: Expr = Const(0, BOOL)
        for cls in classes:
            numbers = [self.pools.number(r) for r in self.pools.records(cls) if type(r) is cls]
            result = self.fold("||", [result, self.inside(ref, numbers[0], numbers[-1])], BOOL)
        return result

    def classes(self, ref: Expr) -> list[type[Record]]:
        """The classes a reference may point to, among the records there are."""
        assert isinstance(ref.type, RefType)
        if isinstance(ref, Const):
            record = self.pools.record(ref.type.cls, ref.value)
            return [] if record is None else [type(record)]
        return list(dict.fromkeys(type(r) for r in self.pools.records(ref.type.cls)))

    def invoke(
        self,
        node: ast.expr,
        function: Function,
        receiver: type[Record] | None,
        values: Sequence[Expr],
        names: Sequence[str | None],
    ) -> list[Expr]:
        """Call a function with these values; the last of them are those for the parameters with these names."""
        count = len(values) - len(names)
        named = dict(zip(names, values[count:], strict=True))
        bound = list(values[:count])
        for parameter in function.parameters[count:]:
            if parameter in named:
                bound.append(named.pop(parameter))
            elif parameter in function.defaults:
                default = function.defaults[parameter]
                bound.append(self.default_value(function, default))
            else:
                self.refuse(node, f"{function.name} without its {parameter!r}", "pass it")
        if named or len(bound) > len(function.parameters):
            extra = ", ".join(map(str, named)) or f"{len(bound)} arguments"
            self.refuse(node, f"{extra} passed to {function.name}", f"it takes {', '.join(function.parameters) or 'nothing'}")
        for parameter, value in zip(function.parameters, bound, strict=True):
            self.expect(node, self.parameter_type(function, receiver, parameter), value, f"{parameter!r} of {function.name}")
        body = self.program.body(function, receiver)
        if body.chooses if not self.is_thread else body.interruptible:
            return self.inline(node, function, receiver, bound)
        if self.is_thread and function.is_step:
            bound = [value if isinstance(value, (Const, Local)) else self.temp(value) for value in bound]
            self.suspend("step", node)
        return self.call_body(node, body, bound)

    def default_value(self, function: Function, node: ast.expr) -> Expr:
        """A default argument, evaluated where its function is defined."""
        caller = self.frames
        self.frames = [Frame(function, None, {}, set(), [], self.blocks[0])]
        value = self.expr(node)
        self.frames = caller
        return value

    def call_body(self, node: ast.expr, body: Body, args: list[Expr]) -> list[Expr]:
        self.calls[body] = None
        results = [self.new_var("", type_) for type_ in body.results]
        self.emit(Call(body, args, results, self.place(node)))
        return [Local(var) for var in results]

    def inline(self, node: ast.expr, function: Function, receiver: type[Record] | None, values: list[Expr]) -> list[Expr]:
        if any(frame.function is function for frame in self.frames):
            self.refuse(node, f"{function.name} calls itself", "write a loop")
        place = self.place(node)
        at = len(self.frames)
        env: dict[str, Expr] = {}
        self.enter(function, receiver, env, self.result_types(function))
        frame = self.frames[at]
        frame.at = place
        for parameter, value in zip(function.parameters, values, strict=True):
            declared = self.parameter_type(function, receiver, parameter)
            if parameter in frame.assigned_once and isinstance(value, Const):
                env[parameter] = Const(value.value, declared if value.value or not isinstance(declared, RefType) else value.type)
                continue
            if parameter in frame.assigned_once and isinstance(value, Local):
                env[parameter] = value
                continue
            var = self.new_var(parameter, self.widened(declared))
            env[parameter] = Local(var)
            self.assign_var(var, value)
        self.statements(function.node.body)
        if self.block.end is None:
            frame.returns.append(self.not_none)
            self.goto(frame.exit)
        self.block = frame.exit
        self.frames.pop()
        if frame.returns:
            self.not_none = set.intersection(*frame.returns)
        return [Local(var) for var in frame.results]

    def builtin(self, node: ast.Call, name: str) -> Expr:
        if node.keywords:
            self.refuse(node, f"keywords for {name}", "pass plain arguments")
        if name == "len" and len(node.args) == 1:
            return Const(self.pools.length(self.array(node.args[0]).field), INT)
        if name in ("int", "bool") and len(node.args) == 1:
            value = self.expr(node.args[0])
            if not isinstance(value.type, (IntType, BoolType)):
                self.refuse(node, f"{name} of {value.type!r}", "use integers and booleans")
            return self.fold("+" if name == "int" else "!=", [value, Const(0, INT)], INT if name == "int" else BOOL)
        if name in ("min", "max") and len(node.args) == 2:
            return self.fold(name, self.integers(*node.args), INT)
        if name in ("all", "any", "sum") and len(node.args) == 1:
            return self.reduce(name, node.args[0])
        self.refuse(node, f"{name} of {len(node.args)} arguments", "see the language: len(a), min(a, b), all(... for x in a)")

    def reduce(self, name: str, node: ast.expr) -> Expr:
        """``all``, ``any`` and ``sum`` over an array or a generator."""
        kind: ScalarType = INT if name == "sum" else BOOL
        result = self.new_var("", kind)
        self.emit(Set(result, Const(int(name == "all"), kind)))
        if isinstance(node, ast.GeneratorExp):
            loops, value = node.generators, node.elt
        else:
            target = ast.copy_location(ast.Name(id=" element", ctx=ast.Store()), node)
            value = ast.copy_location(ast.Name(id=" element", ctx=ast.Load()), node)
            loops = [ast.comprehension(target=target, iter=node, ifs=[], is_async=0)]
        finished = self.new_block()

        def each(again: Block) -> None:
            if name == "sum":
                element = self.value(value)
                if not isinstance(element.type, (IntType, BoolType)):
                    self.refuse(value, f"{ast.unparse(value)} where an integer is expected", "use an integer")
                self.emit(Set(result, Op("+", [Local(result), element], INT, self.place(value))))
                return
            condition = self.boolean(value)
            found = self.new_block()
            self.branch(condition, again if name == "all" else found, found if name == "all" else again)
            self.block = found
            self.emit(Set(result, Const(int(name == "any"), BOOL)))
            self.goto(finished)

        def nest(depth: int, outer: Block) -> None:
            if depth == len(loops):
                each(outer)
                return

            def run(again: Block, done: Block) -> None:
                for test in loops[depth].ifs:
                    inside = self.new_block()
                    self.branch(self.condition(test), inside, again)
                    self.block = inside
                    self.not_none |= self.facts(test, True)
                nest(depth + 1, again)

            self.iterate(loops[depth].target, loops[depth].iter, run)

        names = {n.id: self.frame.env.get(n.id) for loop in loops for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
        known = set(self.not_none)
        nest(0, finished)
        self.goto(finished)
        self.block = finished
        self.not_none = known
        for hidden, before in names.items():
            self.frame.env.pop(hidden, None)
            if before is not None:
                self.frame.env[hidden] = before
        return Local(result)

    # ---- the words of the language

    def word(self, node: ast.Call, name: str) -> list[Expr]:
        if node.keywords:
            self.refuse(node, f"keywords for {name}", "pass plain arguments")
        arguments = node.args
        place = self.place(node)
        match name, len(arguments):
            case "choose", 1 | 2:
                void([self.text(label) for label in arguments[1:]])
                return [self.choose(node, name, self.integer(arguments[0]))]
            case "may", 1:
                self.text(arguments[0])
                chosen = self.choose(node, name, Const(2, INT))
                return [self.fold("!=", [chosen, Const(0, INT)], BOOL)]
            case "when", 1:
                if self.is_thread:
                    self.refuse(node, "when() outside a step", "put it into a function with @step")
                self.emit(When(self.condition(arguments[0]), place))
                return []
            case "require", 2:
                self.emit(Require(self.condition(arguments[0]), self.text(arguments[1]), "", place))
                return []
            case "panic", 1:
                self.emit(Require(Const(0, BOOL), NO_PANIC, self.text(arguments[0]), place))
                return []
            case "reached", 1:
                self.emit(Reached(self.text(arguments[0])))
                return []
            case "charge", 1 | 2:
                self.values(arguments)  # what it costs is no part of a state; that it is evaluated may be
                return []
            case "current", 0:
                return [Op("current", [], INT) if self.number is None else Const(self.number, INT)]
        self.refuse(node, f"{name} with {len(arguments)} arguments", "see its documentation")

    def choose(self, node: ast.Call, word: str, n: Expr) -> Expr:
        n = n if isinstance(n, (Const, Local)) else self.temp(n)
        if self.interval(n)[1] < 1:
            self.refuse(node, f"{ast.unparse(node)} has nothing to choose from", "give it 1 or more")
        if self.interval(n)[0] < 1:
            some = self.fold(">", [n, Const(0, INT)], BOOL)
            self.emit(Require(some, IN_RANGE, f"{ast.unparse(node)}: nothing to choose from", self.place(node)))
        if self.is_thread:
            self.suspend("choose", node)
        var = self.new_var("", INT)
        var.bounds = (Const(0, INT), n)
        self.emit(Choose(var, n, self.place(node)))
        if self.program.watches(self.frame.function.file):
            label = ast.literal_eval(node.args[-1]) if is_text(node.args[-1]) else ""
            self.emit(Mark(Decision(self.place(node), node.col_offset, word, label), Local(var), n))
        return Local(var)

    def text(self, node: ast.expr) -> str:
        value: Any = None
        if isinstance(node, ast.Constant):
            value = node.value
        elif isinstance(node, ast.Name):
            value = self.frame.function.globals.get(node.id)
        elif isinstance(node, ast.Attribute) and self.outer_object(node.value) is not None:
            value = getattr(self.outer_object(node.value), node.attr, None)
        if not isinstance(value, str):
            self.refuse(node, f"{ast.unparse(node)} where a text is expected", "write a string, or name a constant")
        return value


def is_text(node: ast.expr) -> bool:
    """Whether an expression is a text as it stands."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def says_nothing(node: ast.stmt) -> bool:
    """Whether a statement is ``pass`` or a text."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and is_text(node.value))


def void(_: object) -> None:
    """Drop a result."""


def is_none(value: Expr) -> bool:
    """Whether a value is the None that is written in the source, which has no type yet."""
    return isinstance(value, Const) and isinstance(value.type, RefType) and value.type.cls is Record


def skip(block: Block) -> Block:
    """The first block from here that does something."""
    seen = set()
    while not block.instrs and isinstance(block.end, Goto) and block not in seen:
        seen.add(block)
        block = block.end.target
    return block


def waits(body: Body) -> bool:
    """Whether a body can say ``when``."""
    own = any(isinstance(i, When) for block in body.blocks for i in block.instrs)
    return own or any(waits(callee) for callee in body.calls)


def is_definition(value: Any, function: Function) -> bool:
    """Whether a class attribute is the definition of a function, as a method or a property."""
    value = value.fget if isinstance(value, property) else value
    return isinstance(value, types.FunctionType) and inspect.unwrap(value) is function.python
