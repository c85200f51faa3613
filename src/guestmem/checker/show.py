# SPDX-License-Identifier: Apache-2.0
"""What the phases hand on, as text: the typed tree a line a statement, the IR a line an instruction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from guestmem.checker.frontend import tree
from guestmem.checker.frontend.program import Program
from guestmem.checker.ir import (
    ArrayOf,
    Block,
    Body,
    Call,
    Choose,
    Const,
    Expr,
    Goto,
    If,
    Instr,
    Left,
    Load,
    Local,
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
    Terminator,
    ThreadBody,
    Var,
    When,
    around,
)
from guestmem.checker.middle.bodies import Bodies
from guestmem.model.record import BoolType, EnumType, IntType, RefType, ScalarType

__all__ = ["ir_of", "tree_of"]


# ---- the tree


def tree_of(program: Program) -> str:
    """The routines of a program, callees first; their calls with all the routines that they may come to."""
    return "\n".join(line for routine in program.routines for line in (*_routine(routine), ""))


def _routine(routine: tree.Routine) -> Iterator[str]:
    parameters = ", ".join(f"{name}: {kind(type_)}" for name, type_ in routine.parameters.items())
    yield _head(routine.function.is_step, f"{routine!r}({parameters})", routine.results)
    yield from _statements(routine.body)


def _head(is_step: bool, what: str, results: Iterable[ScalarType]) -> str:
    return f"{'step' if is_step else 'function'} {what} -> {', '.join(map(kind, results)) or 'nothing'}"


def _statements(nodes: Iterable[tree.Stmt]) -> Iterator[str]:
    for node in nodes:
        yield from (f"  {line}" for line in _statement(node))


def _statement(node: tree.Stmt) -> Iterator[str]:
    match node:
        case tree.Assign(name=name, value=value, type=type_):
            yield f"{name}{f': {kind(type_)}' if type_ else ''} = {tree_expr(value)}"
        case tree.Unpack(names=names, call=call):
            yield f"{', '.join(name or '_' for name in names)} = {tree_expr(call)}"
        case tree.SetField(field=field, owner=owner, value=value, guard=guard):
            yield f"{tree_expr(owner)}.{field.name} := {tree_expr(value)}{_guarded(guard)}"
        case tree.SetElement(array=array, index=index, value=value, guard=guard):
            yield f"{tree_expr(array)}[{tree_expr(index)}] := {tree_expr(value)}{_guarded(guard)}"
        case tree.Update(target=target, op=op, value=value, guard=guard):
            yield f"{tree_expr(target)} {op}= {tree_expr(value)}{_guarded(guard)}"
        case tree.Do(call=call):
            yield tree_expr(call)
        case tree.If(test=test, then=then, other=other):
            yield f"if {tree_expr(test)}"
            yield from _statements(then)
            if other:
                yield "else"
                yield from _statements(other)
        case tree.While(test=test, body=body):
            yield f"while {tree_expr(test)}"
            yield from _statements(body)
        case tree.For(iteration=iteration, body=body):
            yield _iteration(iteration)
            yield from _statements(body)
        case tree.With(lock=lock, enter=enter, leave=leave, body=body):
            yield f"with {tree_expr(lock)} by {_callee(enter)}, {_callee(leave)}"
            yield from _statements(body)
        case tree.Return(values=values, call=call):
            yield f"return {tree_expr(call) if call else ', '.join(map(tree_expr, values))}".rstrip()
        case tree.Jump(again=again):
            yield "continue" if again else "break"


def _guarded(guard: tree.Callee | None) -> str:
    return f" if {_callee(guard)}" if guard else ""


def _callee(callee: tree.Callee) -> str:
    return " | ".join(repr(target.routine) for target in callee.targets)


def _iteration(loop: tree.Iteration) -> str:
    names = ", ".join(filter(None, (loop.counter, loop.element.strip())))
    tests = "".join(f" if {tree_expr(test)}" for test in loop.tests)
    match loop.over:
        case tree.Range(start=start, end=end, type=type_):
            return f"for {names} from {tree_expr(start)} up to {tree_expr(end)} as {kind(type_)}{tests}"
        case array:
            return f"for {names} in {tree_expr(array)}{tests}"


def tree_expr(node: tree.Expr) -> str:
    """An expression of the tree."""
    match node:
        case tree.Number(value=value, type=type_):
            return _number(value, type_)
        case tree.Name(name=name):
            return name.strip()
        case tree.FieldOf(field=field, owner=owner) | tree.Array(field=field, owner=owner):
            return f"{tree_expr(owner)}.{field.name}"
        case tree.Element(array=array, index=index):
            return f"{tree_expr(array)}[{tree_expr(index)}]"
        case tree.Arithmetic(op=op, left=left, right=right):
            return f"({tree_expr(left)} {op} {tree_expr(right)})"
        case tree.Negative(operand=operand):
            return f"-{tree_expr(operand)}"
        case tree.Extreme(op=op, left=left, right=right):
            return f"{op}({tree_expr(left)}, {tree_expr(right)})"
        case tree.Comparison(ops=ops, operands=operands):
            first, *rest = map(tree_expr, operands)
            return f"({first}{''.join(f' {op} {operand}' for op, operand in zip(ops, rest, strict=True))})"
        case tree.Logic(every=every, parts=parts):
            return f"({(' and ' if every else ' or ').join(map(tree_expr, parts))})"
        case tree.Not(operand=operand):
            return f"not {tree_expr(operand)}"
        case tree.Truth(operand=operand):
            return f"({tree_expr(operand)} != 0)"
        case tree.Integer(operand=operand):
            return f"int({tree_expr(operand)})"
        case tree.Either(test=test, then=then, other=other):
            return f"({tree_expr(then)} if {tree_expr(test)} else {tree_expr(other)})"
        case tree.Length(array=array):
            return f"len({tree_expr(array)})"
        case tree.Reduction(word=word, loops=loops, value=value):
            return f"{word}({tree_expr(value)} {' '.join(map(_iteration, loops))})"
        case tree.AsIndex(value=value, type=type_):
            return f"{type_!r}({tree_expr(value)})"
        case tree.Current():
            return "current()"
        case tree.Chosen(n=n):
            return f"choose({tree_expr(n)})"
        case tree.Call(callee=callee, owner=owner, arguments=arguments):
            given = [*([owner] if owner else []), *arguments]
            several = len(callee.targets) > 1
            return f"{f'({_callee(callee)})' if several else _callee(callee)}({', '.join(map(tree_expr, given))})"
        case tree.When(condition=condition):
            return f"when {tree_expr(condition)}"
        case tree.Require(condition=condition, rule=rule, detail=detail):
            return f"require {tree_expr(condition)} else {rule!r}{f': {detail}' if detail else ''}"
        case tree.Reached(situation=situation):
            return f"reached {situation!r}"
        case tree.Charge(arguments=arguments):
            return f"charge {', '.join(map(tree_expr, arguments))}"
    raise AssertionError(node)


# ---- the IR


def ir_of(bodies: Bodies) -> str:
    """The bodies and threads of a program."""
    parts = [*map(_body, bodies.atomic), *map(_thread, bodies.threads)]
    return "\n".join(line for part in parts for line in (*part, ""))


def _body(body: Body) -> Iterator[str]:
    parameters = ", ".join(f"{_var(var)}: {kind(var.type)}" for var in body.parameters)
    yield _head(body.function.is_step, f"{body!r}({parameters})", body.results)
    yield from _blocks(body.blocks)


def _thread(thread: ThreadBody) -> Iterator[str]:
    yield f"thread {thread.name}"
    yield from _blocks(thread.blocks)


def _blocks(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        yield f"  b{block.number}:"
        yield from (f"    {_instr(instr)}" for instr in block.instrs)
        if block.end is not None:
            yield f"    {_end(block.end)}"


def _instr(instr: Instr) -> str:
    match instr:
        case Set(var, value):
            return f"{_var(var)} = {expr(value)}"
        case Store(field, ref, index, value, _):
            return f"{expr(Load(field, ref, index, field.type))} := {expr(value)}"
        case Call(body, args, results, _):
            taken = f"{', '.join(map(_var, results))} = " if results else ""
            return f"{taken}{body!r}({', '.join(map(expr, args))})"
        case Choose(var, n, _):
            return f"{_var(var)} = choose {expr(n)}"
        case When(condition, _):
            return f"when {expr(condition)}"
        case Require(condition, rule, detail, _):
            return f"require {expr(condition)} else {rule!r}{f': {detail}' if detail else ''}"
        case Reached(situation):
            return f"reached {situation!r}"
        case Left(loop):
            return f"left the loop of line {loop.place.line}"
        case Mark(Statement(place, column), _, _):
            return f"mark {place.line}:{column}"
        case Mark(what, taken, _):
            return f"mark {what.place.line}:{what.column} taking {expr(taken) if taken else 'nothing'}"
    raise AssertionError(instr)


def _end(end: Terminator) -> str:
    match end:
        case Goto(target):
            return f"goto b{target.number}"
        case If(condition, then, other):
            return f"if {expr(condition)} goto b{then.number} else b{other.number}"
        case Return(values):
            return f"return {', '.join(map(expr, values))}".rstrip()
        case Suspend(boundary, resume):
            function, place, _ = boundary.stack[-1]
            loops = "".join(f", in the loop of line {loop.place.line}" for loop in around(boundary.loop))
            return f"suspend before {boundary.kind}, {function.name} line {place.line}{loops}, then b{resume.number}"


def expr(value: Expr) -> str:
    """An expression of the IR."""
    match value:
        case Const(value=number, type=type_):
            return _number(number, type_)
        case Local(var):
            return _var(var)
        case Load(field=field, ref=ref, index=index, changes=changes):
            element = "" if index is None else f"[{expr(index)}]"
            return f"{expr(ref)}.{field.name}{element}{'' if changes else ' as built'}"
        case Part(field=field, ref=ref, index=index):
            return f"{expr(ref)}.{field.name}{'' if index is None else f'[{expr(index)}]'}"
        case ArrayOf(field=field, ref=ref):
            return f"{expr(ref)}.{field.name}[]"
        case Op(op=op, args=[]):
            return op
        case Op(op=op, args=args) if op.isalpha():
            return f"{op}({', '.join(map(expr, args))})"
        case Op(op=op, args=[a, b]):
            return f"({expr(a)} {op} {expr(b)})"
    raise AssertionError(type(value))


def _var(var: Var) -> str:
    return f"{var.name}.{var.number}"


# ---- both


def kind(type_: ScalarType) -> str:
    """A type, an integer without its bounds."""
    return "int" if isinstance(type_, IntType) and type_.index is None else repr(type_)


def _number(number: int, type_: ScalarType) -> str:
    """A number as the value that it stands for."""
    match type_:
        case BoolType():
            return str(bool(number)).lower()
        case EnumType(members=members):
            return str(members[number])
        case RefType(cls=cls):
            return f"{cls.__name__}#{number}" if number else "None"
    return str(number)
