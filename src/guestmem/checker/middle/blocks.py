# SPDX-License-Identifier: Apache-2.0
"""From the typed tree to basic blocks; calls are inlined here, and only here."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from guestmem.checker.frontend import tree
from guestmem.checker.frontend.program import Thread
from guestmem.checker.frontend.tree import Callee, Routine, Target
from guestmem.checker.ir import (
    ArrayOf,
    Block,
    Body,
    Call,
    Choose,
    Const,
    Decision,
    Expr,
    Goto,
    Local,
    Loop,
    Mark,
    Op,
    Reached,
    Require,
    Return,
    Set,
    Statement,
    Store,
    Var,
    Watches,
    When,
    around,
    without_boundary,
)
from guestmem.checker.middle.builder import Operands
from guestmem.checker.middle.effects import Effects, chosen
from guestmem.checker.middle.frames import Frames
from guestmem.checker.values import BOOL, INT, widened
from guestmem.model.errors import ALWAYS_A_STEP, GUARDED, IN_ARRAY, IN_RANGE, NO_NONE, NOT_REACHED
from guestmem.model.record import Field, IntType, RefType, ScalarType


class Lowering(Frames):
    """Lowers one body: a routine that runs without interruption, or with a ``number`` that thread."""

    def __init__(self, effects: Effects, body_of: Callable[[Routine], Body], watches: Watches, number: int | None = None) -> None:
        super().__init__(effects.known, number)
        self.effects = effects
        self.body_of = body_of
        self.watches = watches
        self.calls: dict[Body, None] = {}

    # ---- bodies

    def atomic(self, routine: Routine) -> tuple[list[Var], list[Block]]:
        """Lower a routine that runs without interruption: its parameters and blocks."""
        env: dict[str, Expr] = {}
        parameters: list[Var] = []
        for name, declared in routine.parameters.items():
            var = self.new_var(name, declared if name in routine.function.assigned_once else widened(declared))
            if isinstance(declared, RefType) and not declared.optional:
                self.not_none.add(var)
            env[name] = self.known.only(var.type) or Local(var)
            parameters.append(var)
        self.enter(routine, env)
        frame = self.frame
        self.statements(routine.body)
        self.goto(frame.exit)
        self.block = frame.exit
        self.block.end = Return([Local(var) for var in frame.results])
        return parameters, self.reachable()

    def thread(self, thread: Thread) -> Block:
        """Lower a thread, everything that can be interrupted inlined; the block in which it starts."""
        routine, node = thread.routine, thread.routine.function.node
        assert routine.receiver is not None
        values: list[Expr] = [Const(self.pools.number(self.pools.world), RefType(routine.receiver, False))]
        values += [Const(argument, INT) for argument in thread.arguments]
        self.enter(routine, dict(zip(routine.parameters, values, strict=True)))
        self.suspend("start", node)
        start = self.block
        self.statements(routine.body)
        self.goto(self.frame.exit)
        self.block = self.frame.exit
        self.suspend("end", node)
        self.block.end = Goto(self.block)
        return start

    # ---- statements

    def statements(self, nodes: Sequence[tree.Stmt]) -> None:
        for node in nodes:
            if self.block.end is not None:
                return
            if self.watches(self.frame.routine.function.file):
                self.emit(Mark(Statement(self.place(node.node), node.node.col_offset)))
            self.statement(node)

    def statement(self, node: tree.Stmt) -> None:
        match node:
            case tree.Assign(name=name, value=value, type=type_):
                self.assign_name(node, name, self.value(value), type_)
            case tree.Unpack(names=names, call=call):
                for one, result in zip(names, self.results(call), strict=True):
                    if one is not None:
                        self.assign_name(node, one, result)
            case tree.SetField(field=declared, owner=owner, value=value, guard=guard):
                operands = Operands(self)
                operands.add(self.value(value))
                operands.add(self.record(owner))
                result, ref = operands.take()
                self.store(node, declared, ref, None, result, guard)
            case tree.SetElement(array=array, index=index, value=value, guard=guard):
                operands = Operands(self)
                operands.add(self.value(value))
                whole = operands.add(self.array(array))
                operands.add(self.index(whole, index))
                result, kept, position = operands.take()
                assert isinstance(kept, ArrayOf)
                self.store(node, kept.field, kept.ref, position, result, guard)
            case tree.Update():
                self.update(node)
            case tree.Do(call=call):
                self.results(call)
            case tree.If(test=test, then=then, other=other):
                self.if_statement(test, then, other)
            case tree.While(test=test, body=body):
                self.while_statement(test, body)
            case tree.For():
                self.for_statement(node)
            case tree.With():
                self.with_statement(node)
            case tree.Return():
                self.return_statement(node)
            case tree.Jump(again=again):
                head, done, held = self.frame.loops[-1]
                self.release(held)
                self.goto(head if again else done)

    def assign_name(self, node: tree.Stmt, name: str, value: Expr, type_: ScalarType | None = None) -> None:
        frame = self.frame
        if type_ is not None:
            self.expect(node.node, type_, value, name)
        if isinstance(value, Const) and name in frame.assigned_once:
            frame.env[name] = value if type_ is None else Const(value.value, type_)
            return
        known = frame.env.get(name)
        if not isinstance(known, Local):
            known = frame.env[name] = Local(self.new_var(name, type_ or widened(value.type)))
        self.expect(node.node, known.type, value, name)
        self.assign(known.var, value)

    def update(self, node: tree.Update) -> None:
        """``target op= value``: what the target names is looked up once, and loaded before the value is evaluated."""
        operands = Operands(self)
        match node.target:
            case tree.Name(name=name):
                operands.add(self.frame.env[name])
                operands.add(self.value(node.value))
                self.assign_name(node, name, self.arithmetic(node.node, node.op, *operands.take()))
            case tree.FieldOf(field=declared, owner=owner):
                ref = operands.add(self.record(owner))
                operands.add(self.known.field(declared, ref))
                operands.add(self.value(node.value))
                ref, *numbers = operands.take()
                self.store(node, declared, ref, None, self.arithmetic(node.node, node.op, *numbers), node.guard)
            case tree.Element(array=array, index=index):
                whole = operands.add(self.array(array))
                position = operands.add(self.index(whole, index))
                operands.add(self.known.field(whole.field, whole.ref, position))
                operands.add(self.value(node.value))
                kept, position, *numbers = operands.take()
                assert isinstance(kept, ArrayOf)
                self.store(node, kept.field, kept.ref, position, self.arithmetic(node.node, node.op, *numbers), node.guard)

    def store(self, node: tree.Stmt, declared: Field, ref: Expr, index: Expr | None, value: Expr, guard: Callee | None) -> None:
        self.expect(node.node, declared.type, value, declared, IN_RANGE)
        if guard is not None:
            (may_change,) = self.invoke(node.node, guard, ref, [])
            self.require(may_change, GUARDED, f"{declared!r}, not {declared.guard}()", node.node)
        if self.known.changes(declared):
            self.emit(Store(declared, ref, index, value, self.place(node.node)))
        else:  # what is known of the world's effects keeps control from here
            self.require(Const(0, BOOL), NOT_REACHED, f"an assignment to {declared!r}", node.node)

    def if_statement(self, test: tree.Expr, body: list[tree.Stmt], orelse: list[tree.Stmt]) -> None:
        condition = self.value(test)
        then, other, join = self.new_block(), self.new_block(), self.new_block()
        self.branch(condition, then, other)
        before = set(self.not_none)
        after: list[set[Var]] = []
        for block, nodes, truth in ((then, body, True), (other, orelse, False)):
            if isinstance(condition, Const) and bool(condition.value) != truth:
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

    def while_statement(self, test: tree.Expr, body: list[tree.Stmt]) -> None:
        head, inside, done = self.new_block(), self.new_block(), self.new_block()
        self.goto(head)
        self.block = head
        loop = self.within = Loop(self.place(test.node), self.within)
        with self.loop(head, done, [node.node for node in body]):
            condition = self.value(test)
            self.branch(condition, inside, done)
            self.block = inside
            self.not_none |= self.facts(test, True)
            self.statements(body)
            self.goto(head)
        if head in without_boundary(inside):
            inside.instrs.insert(0, Require(Op("turn", [], BOOL), ALWAYS_A_STEP, "a loop does not end", loop.place))
        self.block = done
        if isinstance(condition, Const) and condition.value and not any(done in b.successors() for b in self.blocks):
            done.end = Goto(done)
        self.within = loop.outer
        self.leave(loop)

    def for_statement(self, node: tree.For) -> None:
        def run(again: Block, done: Block) -> None:
            with self.loop(again, done, [inside.node for inside in node.body]):
                self.statements(node.body)

        self.iterate(node.iteration, run)
        for name in (node.iteration.counter, node.iteration.element):
            self.frame.env.pop(name, None)

    def iterate(self, what: tree.Iteration, run: Callable[[Block, Block], None]) -> None:
        """Go through a range or an array; ``run`` lowers what is done for each element."""
        again, done = self.new_block(), self.new_block()
        whole: ArrayOf | None = None
        match what.over:
            case tree.Range(start=tree.Number() as first, end=last, type=kind):
                start, end = self.value(first), self.value(last)
            case tree.Range(start=first, end=last, type=kind):
                start, end = self.values([first, last])
            case tree.Array() as array:
                whole = self.array(array)
                start, end, kind = Const(0, INT), Const(self.pools.length(array.field), INT), INT
                whole = ArrayOf(whole.field, self.settled(whole.ref if isinstance(whole.ref, Local) else self.temp(whole.ref)))
        if whole is None:
            end = self.settled(end if isinstance(end, Local) else self.temp(end))
        counter = self.new_var(what.counter, kind)
        counter.bounds = (start, end)
        if what.counter:
            self.frame.env[what.counter] = Local(counter)
        self.emit(Set(counter, start))
        head, inside = self.new_block(), self.new_block()
        self.goto(head)
        self.block = head
        self.branch(Op("<", [Local(counter), end], BOOL), inside, done)
        self.block = inside
        if whole is None and isinstance(kind, IntType) and kind.index is not None:
            self.check_index(what.over.node, kind, Local(counter))
        if whole is not None:
            element = self.known.field(whole.field, whole.ref, Local(counter))
            var = self.new_var(what.element, widened(element.type))
            self.frame.env[what.element] = Local(var)
            self.assign(var, element)
        run(again, done)
        self.goto(again)
        self.block = again
        self.emit(Set(counter, Op("+", [Local(counter), Const(1, INT)], kind, self.place(what.over.node))))
        self.goto(head)
        self.block = done

    def with_statement(self, node: tree.With) -> None:
        lock = self.settled(self.record(node.lock))
        at = node.lock.node
        self.invoke(at, node.enter, lock, [])
        self.frame.guards.append(lambda: self.invoke(at, node.leave, lock, []))
        self.statements(node.body)
        self.frame.guards.pop()
        if self.block.end is None:
            self.invoke(at, node.leave, lock, [])

    def return_statement(self, node: tree.Return) -> None:
        frame = self.frame
        values = self.results(node.call) if node.call else self.values(node.values)
        for var, result in zip(frame.results, values, strict=True):
            self.expect(node.node, var.type, result, "the result")
            self.emit(Set(var, result))
        self.leave(*around(self.within)[: len(around(self.within)) - len(around(frame.around))])
        self.release(0)
        frame.returns.append(set(self.not_none))
        self.goto(frame.exit)

    # ---- expressions

    def values(self, nodes: Iterable[tree.Expr]) -> list[Expr]:
        """Some values, evaluated from left to right."""
        operands = Operands(self)
        for node in nodes:
            operands.add(self.value(node))
        return operands.take()

    def record(self, node: tree.Expr) -> Expr:
        """A reference that is going to be followed: it must not be None."""
        value = self.value(node)
        if self.can_be_none(value):
            value = self.simple(value)
            self.require(self.known.not_zero(value), NO_NONE, f"{ast.unparse(node.node)} is None", node.node)
            if isinstance(value, Local):
                self.not_none.add(value.var)
        return value

    def array(self, node: tree.Array) -> ArrayOf:
        return ArrayOf(node.field, self.record(node.owner))

    def index(self, whole: ArrayOf, node: tree.Expr) -> Expr:
        value = self.value(node)
        length = self.pools.length(whole.field)
        low, high = self.known.interval(value)
        if low < 0 or high >= length:
            value = self.simple(value)
            detail = f"{ast.unparse(node.node)} in {whole.field!r}, which has {length}"
            self.require(self.known.inside(value, 0, length - 1), IN_ARRAY, detail, node.node)
        return value

    def value(self, node: tree.Expr) -> Expr:
        known = self.known
        match node:
            case tree.Number(value=number, type=type_):
                return Const(number, type_)
            case tree.Name(name=name):
                return self.frame.env[name]
            case tree.FieldOf(field=declared, owner=owner):
                return known.field(declared, self.record(owner))
            case tree.Element(array=array, index=index):
                operands = Operands(self)
                operands.add(self.index(operands.add(self.array(array)), index))
                whole, position = operands.take()
                assert isinstance(whole, ArrayOf)
                return known.field(whole.field, whole.ref, position)
            case tree.Arithmetic(op=op, left=left, right=right):
                return self.arithmetic(node.node, op, *self.values([left, right]))
            case tree.Extreme(op=op, left=left, right=right):
                return known.fold(op, self.values([left, right]), INT)
            case tree.Unary():
                return known.unary(node, self.value(node.operand), self.place(node.node))
            case tree.Comparison(ops=ops, operands=operands_):
                return self.comparison(ops, operands_)
            case tree.Logic(every=every, parts=parts):
                return self.logic(every, parts)
            case tree.Either():
                return self.either(node)
            case tree.Length(array=array):
                return Const(self.pools.length(self.array(array).field), INT)
            case tree.Reduction(word=word, loops=loops, value=value):
                return self.reduction(word, loops, value)
            case tree.AsIndex(value=value, type=IntType() as kind):
                checked = self.check_index(node.node, kind, self.value(value))
                return Const(checked.value, kind) if isinstance(checked, Const) else Op("+", [checked, Const(0, INT)], kind)
            case tree.Current():
                return Op("current", [], INT) if self.number is None else Const(self.number, INT)
            case tree.Chosen():
                return self.choose(node)
            case tree.Call():
                (result,) = self.results(node)
                return result
        raise AssertionError(node)

    def comparison(self, ops: list[str], nodes: list[tree.Expr]) -> Expr:
        a, b = self.values(nodes[:2])

        def next_two(op: str, right: tree.Expr) -> Expr:
            nonlocal a, b
            operands = Operands(self)
            operands.add(b)
            operands.add(self.value(right))
            a, b = operands.take()
            return self.known.compared(op, a, b, self.can_be_none)

        rest = [functools.partial(next_two, op, right) for op, right in zip(ops[1:], nodes[2:], strict=True)]
        return self.lazily(True, [lambda: self.known.compared(ops[0], a, b, self.can_be_none), *rest])

    def logic(self, every: bool, parts: list[tree.Expr]) -> Expr:
        def one(i: int) -> Expr:
            for earlier in parts[:i]:
                self.not_none |= self.facts(earlier, every)
            return self.value(parts[i])

        return self.lazily(every, [functools.partial(one, i) for i in range(len(parts))])

    def either(self, node: tree.Either) -> Expr:
        condition = self.value(node.test)
        if isinstance(condition, Const):
            return self.value(node.then if condition.value else node.other)
        then, other, join = self.new_block(), self.new_block(), self.new_block()
        self.branch(condition, then, other)
        results: list[tuple[Block, Expr]] = []
        before, known = set(self.not_none), True
        for block, value, truth in ((then, node.then, True), (other, node.other, False)):
            self.block = block
            self.not_none = before | self.facts(node.test, truth)
            result = self.value(value)
            known = known and not self.can_be_none(result)
            results.append((self.block, result))
        self.not_none = before
        var = self.new_var("", node.type)
        for block, result in results:
            self.block = block
            self.emit(Set(var, result))
            self.goto(join)
        self.block = join
        if known:
            self.not_none.add(var)
        return Local(var)

    def reduction(self, word: str, loops: list[tree.Iteration], value: tree.Expr) -> Expr:
        """``all``, ``any`` and ``sum``."""
        kind: ScalarType = INT if word == "sum" else BOOL
        result = self.new_var("", kind)
        self.emit(Set(result, Const(int(word == "all"), kind)))
        finished = self.new_block()

        def each(again: Block) -> None:
            if word == "sum":
                self.emit(Set(result, Op("+", [Local(result), self.value(value)], INT, self.place(value.node))))
                return
            condition = self.value(value)
            found = self.new_block()
            self.branch(condition, again if word == "all" else found, found if word == "all" else again)
            self.block = found
            self.emit(Set(result, Const(int(word == "any"), BOOL)))
            self.goto(finished)

        def nest(depth: int, outer: Block) -> None:
            if depth == len(loops):
                each(outer)
                return

            def run(again: Block, done: Block) -> None:
                for test in loops[depth].tests:
                    inside = self.new_block()
                    self.branch(self.value(test), inside, again)
                    self.block = inside
                    self.not_none |= self.facts(test, True)
                nest(depth + 1, again)

            self.iterate(loops[depth], run)

        env, known = dict(self.frame.env), set(self.not_none)
        nest(0, finished)
        self.goto(finished)
        self.block = finished
        self.not_none = known
        self.frame.env.clear()
        self.frame.env.update(env)
        return Local(result)

    def choose(self, node: tree.Chosen) -> Expr:
        n = self.simple(self.value(node.n))
        if self.known.interval(n)[0] < 1:
            some = self.known.fold(">", [n, Const(0, INT)], BOOL)
            self.require(some, IN_RANGE, f"{ast.unparse(node.node)}: nothing to choose from", node.node)
        if self.is_thread:
            self.suspend("choose", node.node)
        var = self.new_var("", INT)
        var.bounds = (Const(0, INT), n)
        self.emit(Choose(var, n, self.place(node.node)))
        if self.watches(self.frame.routine.function.file):
            what = Decision(self.place(node.node), node.node.col_offset, node.word, node.label)
            self.emit(Mark(what, Local(var), n))
        return Local(var)

    # ---- calls

    def results(self, node: tree.Expr) -> list[Expr]:
        """What may stand as a statement; its results."""
        match node:
            case tree.Call(callee=callee, owner=owner, arguments=arguments):
                operands = Operands(self)
                if owner is not None:
                    operands.add(self.record(owner))
                for argument in arguments:
                    operands.add(self.value(argument))
                values = operands.take()
                ref = values.pop(0) if owner is not None else None
                return self.invoke(node.node, callee, ref, values)
            case tree.When(condition=condition):
                self.emit(When(self.value(condition), self.place(node.node)))
            case tree.Require(condition=condition, rule=rule, detail=detail):
                self.require(self.value(condition), rule, detail, node.node)
            case tree.Reached(situation=situation):
                self.emit(Reached(situation))
            case tree.Charge(arguments=arguments):
                self.values(arguments)
            case _:
                return [self.value(node)]
        return []

    def invoke(self, node: ast.AST, callee: Callee, ref: Expr | None, values: Sequence[Expr]) -> list[Expr]:
        """Call what belongs to the class of the record."""
        targets = chosen(self.known, callee, ref)
        if ref is None:
            return self.call(node, targets[0], values)
        if len(targets) == 1:
            return self.call(node, targets[0], [self.as_class(ref, targets[0].routine.receiver), *values])
        ref = ref if isinstance(ref, Local) else self.temp(ref)
        given = [self.temp(value) for value in values]
        join = self.new_block()
        results: dict[Var, bool] = {}  # and whether each is known not to be None
        known = set(self.not_none)
        other = self.block
        for count, target in enumerate(targets, 1):
            self.block = other
            if count < len(targets):  # the last function is that of all other classes
                inside, other = self.new_block(), self.new_block()
                self.branch(self.known.is_one_of(ref, target.classes), inside, other)
                self.block = inside
            self.not_none = set(known)
            found = self.call(node, target, [self.as_class(ref, target.routine.receiver), *given])
            results = results or {self.new_var("", widened(type_)): True for type_ in target.routine.results}
            for var, value in zip(results, found, strict=True):
                results[var] = results[var] and not self.can_be_none(value)
                self.emit(Set(var, value))
            self.goto(join)
        self.block = join
        self.not_none = known | {var for var, never in results.items() if never}
        return [Local(var) for var in results]

    def call(self, node: ast.AST, target: Target, values: Sequence[Expr]) -> list[Expr]:
        """Call a routine: inlined where it can be interrupted, or in a body where it chooses."""
        routine = target.routine
        given = [values[which] if isinstance(which, int) else self.value(which) for which in target.bound]
        for (name, type_), value in zip(routine.parameters.items(), given, strict=True):
            self.expect(node, type_, value, f"{name!r} of {routine.function.name}")
        effect, is_step = self.effects.of(routine), routine.function.is_step
        if effect.stops and not is_step if self.is_thread else effect.chooses:
            return self.inline(node, routine, given)
        if self.is_thread and is_step:
            given = [self.simple(value) for value in given]
            self.suspend("step", node)
        body = self.body_of(routine)
        self.calls[body] = None
        results = [self.new_var("", type_) for type_ in body.results]
        self.emit(Call(body, given, results, self.place(node)))
        return [Local(var) for var in results]

    def inline(self, node: ast.AST, routine: Routine, values: list[Expr]) -> list[Expr]:
        place = self.place(node)
        env: dict[str, Expr] = {}
        self.enter(routine, env)
        frame = self.frame
        frame.at = place
        for (name, declared), value in zip(routine.parameters.items(), values, strict=True):
            if name in frame.assigned_once and isinstance(value, Const):
                env[name] = Const(value.value, declared if value.value or not isinstance(declared, RefType) else value.type)
                continue
            if name in frame.assigned_once and isinstance(value, Local):
                env[name] = value
                continue
            var = self.new_var(name, widened(declared))
            env[name] = Local(var)
            self.assign(var, value)
        self.statements(routine.body)
        if self.block.end is None:
            frame.returns.append(self.not_none)
            self.goto(frame.exit)
        self.block = frame.exit
        self.frames.pop()
        if frame.returns:
            self.not_none = set.intersection(*frame.returns)
        return [Local(var) for var in frame.results]
