# SPDX-License-Identifier: Apache-2.0
"""Values from nowhere: a local is assigned before it is read, on every path, and what declares a result returns one."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence

from guestmem.checker.frontend.source import Function
from guestmem.model import control

#: The locals that have a value; None where control does not come.
Assigned = frozenset[str] | None


@functools.cache
def check_flow(function: Function) -> None:
    """Refuse a function in which a path reads a local that it has not assigned, or ends without the declared result."""
    flow = _Flow(function)
    end = flow.statements(function.node.body, frozenset(function.parameters))
    if end is not None and function.hints.get("return", type(None)) is not type(None):
        function.refuse(function.node, f"{function.node.name}() may end without a return", "return a value on every path")


def _both(one: Assigned, other: Assigned) -> Assigned:
    """What is assigned where two paths meet."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


class _Flow:
    """Follows the paths through one function."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.locals = {name for node in function.node.body for name in _stored(node)}
        self.breaks: list[list[Assigned]] = []  # for each loop around, what is assigned where it is left

    def statements(self, nodes: Sequence[ast.stmt], assigned: Assigned) -> Assigned:
        for node in nodes:
            if assigned is None:
                break
            assigned = self.statement(node, assigned)
        return assigned

    def statement(self, node: ast.stmt, assigned: frozenset[str]) -> Assigned:
        match node:
            case ast.Assign(targets=targets, value=value):
                self.reads(value, assigned)
                for target in targets:
                    self.reads(target, assigned)
                return assigned.union(*map(_stored, targets))
            case ast.AnnAssign(target=target, value=value):
                if value is None:
                    return assigned
                self.reads(value, assigned)
                return assigned | _stored(target)
            case ast.AugAssign(target=target, value=value):
                if isinstance(target, ast.Name):
                    self.read(target, target.id, assigned)
                self.reads(target, assigned)
                self.reads(value, assigned)
                return assigned
            case ast.If(test=test, body=body, orelse=orelse):
                self.reads(test, assigned)
                ways = self.statements(orelse, assigned), self.statements(body, assigned)
                return ways[bool(test.value)] if isinstance(test, ast.Constant) else _both(*ways)
            case ast.While(test=test, body=body):
                self.reads(test, assigned)
                endless = isinstance(test, ast.Constant) and bool(test.value)
                return self.loop(body, assigned, None if endless else assigned)
            case ast.For(target=target, iter=iterable, body=body):
                self.reads(iterable, assigned)
                after = self.loop(body, assigned | _stored(target), assigned)
                return None if after is None else after - _stored(target)
            case ast.With(items=items, body=body):
                for item in items:
                    self.reads(item.context_expr, assigned)
                return self.statements(body, assigned)
            case ast.Return(value=value):
                if value is not None:
                    self.reads(value, assigned)
                return None
            case ast.Break():
                self.breaks[-1].append(assigned)
                return None
            case ast.Continue() | ast.Raise():
                return None
            case ast.Expr(value=value):
                self.reads(value, assigned)
                return None if self.dies(value) else assigned
        return assigned  # the translation refuses the other statements

    def loop(self, body: Sequence[ast.stmt], inside: frozenset[str], otherwise: Assigned) -> Assigned:
        """What is assigned after a loop that ends by itself with ``otherwise``, or by a break."""
        self.breaks.append([])
        self.statements(body, inside)
        return functools.reduce(_both, self.breaks.pop(), otherwise)

    def dies(self, node: ast.expr) -> bool:
        """Whether nothing comes after a statement: panic()."""
        match node:
            case ast.Call(func=ast.Name(id=name)):
                return self.function.globals.get(name) is control.panic
        return False

    def reads(self, node: ast.AST, assigned: frozenset[str]) -> None:
        """Refuse the reading of locals without a value in an expression."""
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                self.read(node, name, assigned)
            case ast.GeneratorExp(elt=element, generators=generators):
                for loop in generators:
                    self.reads(loop.iter, assigned)
                    assigned |= _stored(loop.target)
                    for test in loop.ifs:
                        self.reads(test, assigned)
                self.reads(element, assigned)
            case _:
                for child in ast.iter_child_nodes(node):
                    self.reads(child, assigned)

    def read(self, node: ast.AST, name: str, assigned: frozenset[str]) -> None:
        if name in self.locals and name not in assigned:
            self.function.refuse(node, f"{name!r} may have no value here", f"assign {name} on every path that comes here")


def _stored(node: ast.AST) -> frozenset[str]:
    """The names that a statement or a target assigns in the function itself; those of a generator are its own."""

    def names(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        if not isinstance(node, ast.GeneratorExp):
            for child in ast.iter_child_nodes(node):
                yield from names(child)

    return frozenset(names(node))
