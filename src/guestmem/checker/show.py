# SPDX-License-Identifier: Apache-2.0
"""What the phases hand on, as text: a line an instruction, blocks by their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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

__all__ = ["ir_of"]


def ir_of(bodies: Bodies) -> str:
    """The bodies and threads of a program."""
    parts = [*map(_body, bodies.atomic), *map(_thread, bodies.threads)]
    return "\n".join(line for part in parts for line in (*part, ""))


def _body(body: Body) -> Iterator[str]:
    parameters = ", ".join(f"{_var(var)}: {kind(var.type)}" for var in body.parameters)
    word = "step" if body.function.is_step else "function"
    yield f"{word} {body!r}({parameters}) -> {', '.join(map(kind, body.results)) or 'nothing'}"
    yield from _blocks(body.blocks)


def kind(type_: ScalarType) -> str:
    """A type, an integer without its bounds."""
    return "int" if isinstance(type_, IntType) and type_.index is None else repr(type_)


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
        case Const(value=number, type=BoolType()):
            return str(bool(number)).lower()
        case Const(value=number, type=EnumType(members=members)):
            return str(members[number])
        case Const(value=number, type=RefType(cls=cls)):
            return f"{cls.__name__}#{number}" if number else "None"
        case Const(value=number):
            return str(number)
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
