# SPDX-License-Identifier: Apache-2.0
"""What each routine does in this world: which fields it changes, whether it waits, chooses, or can be interrupted.

A field that nothing changes is known, which may show that more is never done; so the routines are gone through until
nothing is new.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from guestmem.checker.frontend import tree
from guestmem.checker.frontend.program import Program
from guestmem.checker.frontend.tree import Callee, Routine, Target
from guestmem.checker.ir import Const, Expr, Local, Var
from guestmem.checker.middle.specialise import Known
from guestmem.checker.pools import Pools
from guestmem.checker.values import BOOL, INT
from guestmem.model.record import Field, RefType, ScalarType


@dataclass(eq=False)
class Effect:
    """What a routine does, with all that it calls; ``stops``: a thread in it can be interrupted, by a step or a choice."""

    writes: set[Field] = field(default_factory=set)
    waits: bool = False
    chooses: bool = False
    stops: bool = False

    def add(self, other: Effect, *, is_step: bool) -> None:
        self.writes |= other.writes
        self.waits |= other.waits
        self.chooses |= other.chooses
        self.stops |= other.stops or is_step


class Effects:
    """The effects of a program's routines, with what is ``known`` of its fields."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._of: dict[Routine, Effect] = {}

    @property
    def changing(self) -> list[Field]:
        """The fields that something changes, in an order of their own."""
        return sorted(self.known.changing or (), key=lambda f: (f.owner.__module__, f.owner.__qualname__, f.name))

    def of(self, routine: Routine, arguments: Sequence[int] = ()) -> Effect:
        """What a routine does; of a thread, called with these numbers."""
        if arguments:
            return _Walk(self, routine, arguments).effect
        if routine not in self._of:
            self._of[routine] = _Walk(self, routine, ()).effect
        return self._of[routine]


def effects(program: Program, pools: Pools) -> Effects:
    """The effects in a world, where all is known that nothing changes."""
    changing: set[Field] | None = None
    while True:
        found = Effects(Known(pools, changing))
        written: set[Field] = set()
        for thread in program.threads:
            written |= found.of(thread.routine, thread.arguments).writes
        if written == changing:
            return found
        changing = written


def chosen(known: Known, callee: Callee, ref: Expr | None) -> list[Target]:
    """The targets that a call may come to, on this record."""
    if ref is None or not callee.exact:
        return callee.targets
    classes = known.classes(ref)
    if isinstance(ref, Const) and classes and classes[0] in callee.exact:
        return [callee.exact[classes[0]]]
    left = [target for target in callee.targets if any(cls in classes for cls in target.classes)]
    return left or callee.targets[:1]


class _Walk:
    """Goes through the statements of a routine that this world may run."""

    def __init__(self, effects: Effects, routine: Routine, arguments: Sequence[int]) -> None:
        self.effects = effects
        self.known = effects.known
        self.routine = routine
        self.effect = Effect()
        self.names: dict[str, Const] = {}
        for name, type_ in routine.parameters.items():
            only = self.known.only(type_)
            if only is not None:
                self.names[name] = only
        for name, argument in zip(list(routine.parameters)[1:], arguments, strict=False):
            self.names[name] = Const(argument, INT)
        self.statements(routine.body)

    def statements(self, nodes: Iterable[tree.Stmt]) -> bool:
        """Whether control never comes to the end."""
        return any(self.statement(node) for node in nodes)

    def statement(self, node: tree.Stmt) -> bool:
        """Whether control never comes to what follows."""
        match node:
            case tree.Assign(name=name, value=value):
                self.assign(name, self.value(value))
            case tree.Unpack(call=call) | tree.Do(call=call):
                self.value(call)
            case tree.SetField(field=field, owner=owner, value=value, guard=guard):
                self.value(value)
                self.store(field, self.value(owner), guard)
            case tree.SetElement(array=array, index=index, value=value, guard=guard):
                self.value(value)
                ref = self.value(array.owner)
                self.value(index)
                self.store(array.field, ref, guard)
            case tree.Update():
                self.update(node)
            case tree.If(test=test, then=then, other=other):
                condition = self.value(test)
                if isinstance(condition, Const):
                    return self.statements(then if condition.value else other)
                ends = [self.statements(then), self.statements(other)]
                return all(ends)
            case tree.While(test=test, body=body):
                condition = self.value(test)
                if not isinstance(condition, Const) or condition.value:
                    self.statements(body)
            case tree.For(iteration=iteration, body=body):
                self.iterate(iteration)
                self.statements(body)
            case tree.With(lock=lock, enter=enter, leave=leave, body=body):
                ref = self.value(lock)
                self.call(enter, ref)
                self.call(leave, ref)
                return self.statements(body)
            case tree.Return(values=values, call=call):
                for value in [*values, *([call] if call else [])]:
                    self.value(value)
                return True
            case tree.Jump():
                return True
        return False

    def assign(self, name: str, value: Expr) -> None:
        if isinstance(value, Const) and name in self.routine.function.assigned_once:
            self.names[name] = value

    def update(self, node: tree.Update) -> None:
        target = node.target
        self.value(node.value)
        if isinstance(target, tree.FieldOf):
            self.store(target.field, self.value(target.owner), node.guard)
        elif isinstance(target, tree.Element):
            ref = self.value(target.array.owner)
            self.value(target.index)
            self.store(target.array.field, ref, node.guard)

    def store(self, field: Field, ref: Expr, guard: Callee | None) -> None:
        self.effect.writes.add(field)
        if guard is not None:
            self.call(guard, ref)

    def iterate(self, iteration: tree.Iteration) -> None:
        match iteration.over:
            case tree.Range(start=start, end=end):
                self.value(start)
                self.value(end)
            case tree.Array(owner=owner):
                self.value(owner)
        self.names.pop(iteration.counter, None)
        self.names.pop(iteration.element, None)
        for test in iteration.tests:
            self.value(test)

    def call(self, callee: Callee, ref: Expr | None) -> None:
        for target in chosen(self.known, callee, ref):
            routine = target.routine
            self.effect.add(self.effects.of(routine), is_step=routine.function.is_step)

    def value(self, node: tree.Expr) -> Expr:
        """What an expression evaluates to, if that is known: a constant; and what its calls do is added."""
        known = self.known
        match node:
            case tree.Number(value=value, type=type_):
                return Const(value, type_)
            case tree.Name(name=name, type=type_):
                return self.names.get(name) or unknown(type_)
            case tree.FieldOf(field=field, owner=owner):
                return known.field(field, self.value(owner))
            case tree.Element(array=array, index=index):
                ref = self.value(array.owner)
                return known.field(array.field, ref, self.value(index))
            case tree.Arithmetic(op=op, left=left, right=right) | tree.Extreme(op=op, left=left, right=right):
                return known.fold(op, [self.value(left), self.value(right)], INT)
            case tree.Unary():
                return known.unary(node, self.value(node.operand))
            case tree.Comparison(ops=ops, operands=operands):
                return self.comparison(ops, operands)
            case tree.Logic(every=every, parts=parts):
                return self.logic(every, parts)
            case tree.Either(test=test, then=then, other=other):
                condition = self.value(test)
                if isinstance(condition, Const):
                    return self.value(then if condition.value else other)
                self.value(then)
                self.value(other)
            case tree.Length(array=array):
                self.value(array.owner)
                return Const(known.pools.length(array.field), INT)
            case tree.Reduction(loops=loops, value=value):
                names = dict(self.names)
                for loop in loops:
                    self.iterate(loop)
                self.value(value)
                self.names = names
            case tree.AsIndex(value=value, type=type_):
                number = self.value(value)
                return Const(number.value, type_) if isinstance(number, Const) else unknown(type_)
            case tree.Chosen(n=n):
                self.value(n)
                self.effect.chooses = self.effect.stops = True
            case tree.Call(callee=callee, owner=owner, arguments=arguments):
                on = self.value(owner) if owner else None
                for argument in arguments:
                    self.value(argument)
                self.call(callee, on)
            case tree.When(condition=condition_):
                self.value(condition_)
                self.effect.waits = True
            case tree.Require(condition=condition_):
                self.value(condition_)
            case tree.Charge(arguments=arguments):
                for argument in arguments:
                    self.value(argument)
        return unknown(node.type)

    def comparison(self, ops: Sequence[str], operands: Sequence[tree.Expr]) -> Expr:
        values = [self.value(operand) for operand in operands]
        result: Expr = Const(1, BOOL)
        for op, a, b in zip(ops, values, values[1:], strict=False):
            result = self.known.fold("&&", [result, self.known.compared(op, a, b, declared_optional)], BOOL)
        return result

    def logic(self, every: bool, parts: Sequence[tree.Expr]) -> Expr:
        result: Expr = Const(int(every), BOOL)
        for part in parts:
            result = self.known.fold("&&" if every else "||", [result, self.value(part)], BOOL)
            if isinstance(result, Const) and bool(result.value) != every:
                break
        return result


def declared_optional(value: Expr) -> bool:
    """Whether a record may be None, as far as its declaration says."""
    return isinstance(value, Const) or (isinstance(value.type, RefType) and value.type.optional)


def unknown(type_: ScalarType) -> Expr:
    """A value of which only the type is known."""
    return Local(Var("", type_, 0))
