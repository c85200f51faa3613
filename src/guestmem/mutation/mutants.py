# SPDX-License-Identifier: Apache-2.0
"""Mutants: a Python source with one change in it.  Knows Python, and nothing of what the source is about.

A change keeps the number of lines, so that every place in a mutant is the place in the source.
"""

from __future__ import annotations

import ast
import copy
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

__all__ = ["KINDS", "Key", "Mutant", "mutants"]

KINDS = (
    "statement gone",
    "flush gone",
    "lock gone",
    "reference gone",
    "lines swapped",
    "condition negated",
    "return dropped",
    "errno to 0",
    "another errno",
    "off by one",
    "and/or exchanged",
    "True/False exchanged",
    "comparison exchanged",
)

FLUSH = re.compile(r"(^|_)(flush|tlbi|zap)")
LOCK = re.compile(r"(^|_)(acquire|release|lock|unlock|down|up)(_|$)")
REFERENCE = re.compile(r"(^|_)(get|put|refs?|refcount|users)(_|$)")
ERRNO = re.compile(r"E[A-Z0-9]+")

#: Comparisons at their bound: one more or one less passes.
BOUND: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


class Key(NamedTuple):
    """What a mutant is called, wherever its line is; ``nth``: of those that are alike in all else, from 1."""

    file: str
    function: str
    kind: str
    before: str
    after: str
    nth: int = 1


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        file: the source, by the name that its reader gave it.
        line: where the change is.
        function: the qualified name of the function, and ``first``, the line where Python says that it starts.
        kind: one of ``KINDS``.
        before, after: the changed code in one line each.
        nth: which one it is of those that are alike in all of the above, from 1.
        span, text: the bytes of the source that are replaced, and by what.
    """

    file: str
    line: int
    function: str
    first: int
    kind: str
    before: str
    after: str
    span: tuple[int, int]
    text: str
    nth: int = 1

    @property
    def key(self) -> Key:
        """Its name, which survives changes elsewhere in the file."""
        return Key(self.file, self.function, self.kind, self.before, self.after, self.nth)

    def apply(self, source: str) -> str:
        """The source with the change in it."""
        whole = source.encode()
        return (whole[: self.span[0]] + self.text.encode() + whole[self.span[1] :]).decode()


def mutants(
    source: str, file: str, *, rules: Collection[str] = (), notes: Collection[str] = (), free: Collection[str] = ()
) -> list[Mutant]:
    """All mutants of the functions of a source, in its order.

    What is not there to be right or wrong is left alone: functions with a decorator of a name in ``rules``, and calls of
    the functions named in ``notes`` with their arguments.  Calls of those in ``free`` give either answer: as conditions they
    are not negated.
    """
    made = _Maker(source, file, frozenset(notes), frozenset(free))
    for name, function in _functions(ast.parse(source), ""):
        if not any(_called(d) in rules for d in function.decorator_list):
            made.function(name, function)
    found = sorted(made.found, key=lambda m: (m.line, m.span, KINDS.index(m.kind)))
    seen: Counter[Key] = Counter()
    for i, mutant in enumerate(found):
        seen[mutant.key] += 1
        found[i] = replace(mutant, nth=seen[mutant.key])
    return found


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions of a module and of its classes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _functions(child, prefix)


def _called(node: ast.expr) -> str:
    """The last name of what is called, or named; the empty string for anything else."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


class _Maker:
    """Walks functions and notes each change that can be made."""

    def __init__(self, source: str, file: str, notes: frozenset[str], free: frozenset[str]) -> None:
        self.whole = source.encode()
        self.file = file
        self.notes = notes
        self.free = free
        self.found: list[Mutant] = []
        self.starts = [0]
        for line in self.whole.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.errnos = sorted(
            alias.asname or alias.name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if ERRNO.fullmatch(alias.asname or alias.name)
        )

    def function(self, name: str, node: ast.FunctionDef) -> None:
        """All changes of a function."""
        self.name = name
        self.first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        self.block(body, node.body[-1])

    # ---- statements

    def block(self, body: list[ast.stmt], last: ast.stmt) -> None:
        """The statements of a block; ``last`` is the one after which the function ends."""
        for statement in body:
            if not self.is_note(statement):
                self.statement(statement, last)
        for one, other in itertools.pairwise(body):
            if all(_is_simple(s) and not self.is_note(s) for s in (one, other)) and not _independent(one, other):
                self.swap(one, other)

    def is_note(self, statement: ast.stmt) -> bool:
        return isinstance(statement, ast.Expr) and _called(statement.value) in self.notes

    def statement(self, node: ast.stmt, last: ast.stmt) -> None:
        match node:
            case ast.If(test, body, orelse):
                self.condition(test)
                self.block(body, last)
                self.block(orelse, last)
            case ast.While(test, body):
                self.condition(test)
                self.block(body, last)
            case ast.For(iter=iterated, body=body):
                self.expression(iterated)
                self.block(body, last)
            case ast.With(items, body):
                for item in items:
                    self.expression(item.context_expr)
                self.unlock(node)
                self.block(body, last)
            case ast.Return(value):
                if node is not last:
                    self.gone(node, "return dropped")
                if value is not None:
                    self.expression(value)
            case ast.FunctionDef() | ast.Pass() | ast.Import() | ast.ImportFrom():
                pass
            case _ if _is_simple(node):
                self.gone(node, _kind(node))
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.expression(child)

    def gone(self, node: ast.stmt, kind: str) -> None:
        lines = "\\\n" * ((node.end_lineno or node.lineno) - node.lineno)
        self.note(node, kind, self.span(node), f"{lines}pass", self.text(node), "pass")

    def unlock(self, node: ast.With) -> None:
        """``with lock:`` replaced by its body."""
        header = self.whole[self.starts[node.lineno - 1] : self.starts[node.body[0].lineno - 1]]
        body = self.whole[self.starts[node.body[0].lineno - 1] : self.starts[node.end_lineno or node.lineno]]
        if node.body[0].lineno == node.lineno:  # all in one line
            return
        outer, inner = b" " * node.col_offset, b" " * node.body[0].col_offset
        dedented = b"".join(outer + line[len(inner) :] if line.startswith(inner) else line for line in body.splitlines(True))
        text = outer + b"pass" + b"\n" * header.count(b"\n") + dedented
        before = self.text(node.items[0].context_expr)
        span = (self.starts[node.lineno - 1], self.starts[node.end_lineno or node.lineno])
        self.note(node, "lock gone", span, text.decode(), f"with {before}:", "its body")

    def swap(self, one: ast.stmt, other: ast.stmt) -> None:
        (start, end), (start2, end2) = self.span(one), self.span(other)
        if one.end_lineno == other.lineno:
            return
        whole = self.whole
        text = whole[start2:end2] + whole[end:start2] + whole[start:end]
        first, second = self.text(one), self.text(other)
        if first != second:
            self.note(one, "lines swapped", (start, end2), text.decode(), f"{first}; {second}", f"{second}; {first}")

    # ---- expressions

    def condition(self, test: ast.expr) -> None:
        """What decides about a branch."""
        match test:
            case ast.Constant():
                return
            case ast.Call() if _called(test) in self.free:
                pass
            case ast.UnaryOp(ast.Not(), operand):
                self.put(test, "condition negated", operand)
            case ast.Compare(_, [op], _) if type(op) in OPPOSITE:
                self.put(test, "condition negated", _with_op(test, 0, OPPOSITE[type(op)]))
            case _:
                self.put(test, "condition negated", ast.UnaryOp(ast.Not(), test))
        self.expression(test, decides=True)

    def expression(self, node: ast.expr, decides: bool = False) -> None:
        """The changes in an expression; ``decides``: that it is negated is known."""
        match node:
            case ast.Call() if _called(node) in self.notes:
                return
            case ast.Call(func=function, args=arguments) if _called(function) in ("range", "span"):
                for argument in arguments[:2]:
                    for by in (ast.Add(), ast.Sub()):
                        if not (isinstance(by, ast.Sub) and isinstance(argument, ast.Constant) and argument.value == 0):
                            self.put(argument, "off by one", ast.BinOp(argument, by, ast.Constant(1)))
            case ast.BinOp(left, ast.Add() | ast.Sub(), ast.Constant(1)):
                self.put(node, "off by one", left)
            case ast.Compare(_, ops, _):
                for i, op in enumerate(ops):
                    if type(op) in BOUND:
                        self.put(node, "off by one", _with_op(node, i, BOUND[type(op)]))
                    elif not (decides and len(ops) == 1):
                        self.put(node, "comparison exchanged", _with_op(node, i, OPPOSITE[type(op)]))
            case ast.BoolOp(joined, values):
                other = ast.Or() if isinstance(joined, ast.And) else ast.And()
                self.put(node, "and/or exchanged", ast.BoolOp(other, values))
            case ast.Constant(bool() as value):
                self.put(node, "True/False exchanged", ast.Constant(not value))
            case ast.UnaryOp(ast.USub(), ast.Name(name)) if ERRNO.fullmatch(name):
                self.put(node, "errno to 0", ast.Constant(0))
                others = [e for e in self.errnos if e > name] + [e for e in self.errnos if e < name]
                if others:
                    self.put(node, "another errno", ast.UnaryOp(ast.USub(), ast.Name(others[0])))
            case ast.IfExp(test):
                self.condition(test)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.comprehension):
                self.expression(child.iter)
                for test in child.ifs:
                    self.condition(test)
            elif isinstance(child, ast.keyword):
                self.expression(child.value)
            elif isinstance(child, ast.expr) and not (isinstance(node, ast.IfExp) and child is node.test):
                self.expression(child)

    def put(self, node: ast.expr, kind: str, by: ast.expr) -> None:
        """Replace an expression by another, of as many lines."""
        lines = "\n" * ((node.end_lineno or node.lineno) - node.lineno)
        plain = ast.unparse(ast.fix_missing_locations(copy.deepcopy(by)))
        atomic = isinstance(by, (ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.UnaryOp)) and not lines
        self.note(node, kind, self.span(node), plain if atomic else f"({plain}{lines})", ast.unparse(node), plain)

    # ---- places

    def span(self, node: ast.stmt | ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.stmt | ast.expr) -> str:
        return ast.unparse(node)

    def note(self, node: ast.stmt | ast.expr, kind: str, span: tuple[int, int], text: str, before: str, after: str) -> None:
        self.found.append(Mutant(self.file, node.lineno, self.name, self.first, kind, before, after, span, text))


def _is_simple(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)) and not (
        isinstance(node, ast.AnnAssign) and node.value is None
    )


def _kind(node: ast.stmt) -> str:
    """What it is whose statement is gone: by the name of what is called, or counted."""
    name = ""
    if isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call):
        name = _called(node.value)
    elif isinstance(node, ast.AugAssign):
        name = _called(node.target)
    for pattern, kind in ((FLUSH, "flush gone"), (LOCK, "lock gone"), (REFERENCE, "reference gone")):
        if pattern.search(name):
            return kind
    return "statement gone"


def _with_op(node: ast.Compare, position: int, op: type[ast.cmpop]) -> ast.Compare:
    ops = list(node.ops)
    ops[position] = op()
    return ast.Compare(node.left, ops, node.comparators)


def _names(node: ast.AST) -> set[str]:
    """The variables and fields that occur."""
    return {n.id if isinstance(n, ast.Name) else n.attr for n in ast.walk(node) if isinstance(n, (ast.Name, ast.Attribute))}


def _independent(one: ast.stmt, other: ast.stmt) -> bool:
    """Whether two assignments do the same in either order for sure: without calls, neither uses what the other assigns."""

    def assigned(node: ast.stmt) -> set[str]:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        bases = [t.value if isinstance(t, ast.Subscript) else t for t in targets]
        return {_called(base) for base in bases if isinstance(base, (ast.Name, ast.Attribute))}

    if any(isinstance(n, ast.Call) for s in (one, other) for n in ast.walk(s)) or isinstance(one, ast.Expr):
        return False
    return not assigned(one) & _names(other) and not assigned(other) & _names(one)
