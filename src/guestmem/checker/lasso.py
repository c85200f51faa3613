# SPDX-License-Identifier: Apache-2.0
"""What never ends, as people read it: the way in, what happens again and again, who waits for whom, the line that spins."""

from __future__ import annotations

import ast
import inspect
import textwrap
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from guestmem.checker.frontend.source import Place, function_of, source_line, tree_of
from guestmem.checker.ir import Boundary, Call, Const, Expr, Local, Loop, Suspend, Var, begins
from guestmem.checker.trace import INDENT, WIDTH, Row, Unreplayed, shown, table
from guestmem.checker.translate import Translation
from guestmem.model import alone
from guestmem.model.errors import Blocked, Verdict
from guestmem.model.lock import Mutex, RwSem
from guestmem.model.record import Array, Record, show
from guestmem.model.world import World

__all__ = ["Still", "Waiting", "closed", "lines"]

#: Values that a line of a lasso shows at most.
MOST_VALUES = 6


class Waiting(NamedTuple):
    """A thread that does not get on.

    ``place`` is where it stands; ``what`` is the step that it waits to do, empty if it goes round a loop that stands there;
    ``values`` are the fields that this depends on, as (name, value); ``held_by`` the threads that hold the lock it wants.
    """

    thread: str
    place: Place
    what: str
    values: tuple[tuple[str, str], ...]
    held_by: tuple[str, ...]

    def __str__(self) -> str:
        does = f"waits in {self.what}" if self.what else "goes round"
        seen = ", ".join(f"{name}: {value}" for name, value in self.values)
        values = f"   [{seen}]" if seen else ""
        holders = f", held by {', '.join(self.held_by)}" if self.held_by else ""
        return f"{self.thread} {does} at {shown(self.place)}: {source_line(self.place)}{values}{holders}"

    def as_json(self) -> dict[str, Any]:
        """As one object."""
        return {**self._asdict(), "values": dict(self.values)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """Of what :meth:`as_json` gave."""
        file, line = given["place"]
        return cls(
            given["thread"], Place(file, line), given["what"], tuple(dict(given["values"]).items()), tuple(given["held_by"])
        )


class Still:
    """A world as it stands in one state of its translation, while nobody acts.  Use as a context manager."""

    def __init__(self, translation: Translation, state: Sequence[int]) -> None:
        self.translation = translation
        self.world: World = translation.world
        self.state = state

    def __enter__(self) -> Self:
        self.translation.layout.unpack(self.state, self.world)
        return self

    def __exit__(self, *exception: object) -> None:
        self.translation.layout.unpack(self.translation.initial, self.world)

    def waiting(self, number: int) -> Waiting | None:
        """What a thread waits for; None if it can go on, or has returned."""
        boundary, values, call = self._stands(number)
        if call is None:
            return None
        function = call.body.function
        with alone(thread=number) as runner:
            runner.in_step = True
            try:
                function.python(*(self._value(argument, values) for argument in call.args))
            except Blocked as blocked:
                *_, (frame, line), _when = traceback.walk_tb(blocked.__traceback__)
            except (Verdict, AttributeError, ZeroDivisionError):
                return None
            else:
                return None
        found: dict[str, str] = {}
        for node in ast.walk(tree_of(frame.f_code.co_filename)):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) == "when"
                and node.lineno <= line <= (node.end_lineno or line)
            ):
                found |= _values(node.args[0], frame.f_locals, frame.f_globals)
        lock = frame.f_locals.get("self")
        place = boundary.stack[-1][1]
        return Waiting(self.world.threads[number].name, place, function.name, _some(found), self._holders(lock))

    def round(self, number: int, loop: Loop) -> Waiting:
        """The loop that a thread goes round, and what it looks at there."""
        boundary, values, _ = self._stands(number)
        found: dict[str, str] = {}
        for (function, _, _), scope in zip(boundary.stack, boundary.scopes, strict=True):
            known = {name: self._value(e, values) for name, e in scope.items() if not isinstance(e, Local) or e.var in values}
            for node in ast.walk(function.node):
                if isinstance(node, ast.While) and function.place(node.test) == loop.place:
                    found |= _values(node.test, known, function.globals)
                    for step in _steps(node, known, function.globals):
                        inner = function_of(step.__func__)
                        found |= _values(inner.node, {inner.parameters[0]: step.__self__}, inner.globals)
        return Waiting(self.world.threads[number].name, loop.place, "", _some(found), ())

    def _stands(self, number: int) -> tuple[Boundary, dict[Var, int], Call | None]:
        """The boundary of a thread, the locals it keeps, and the step it stands at, if it is one."""
        body = self.translation.bodies.threads[number]
        boundary, values = self.translation.layout.thread(self.state, number, body)
        ends = [b.end for b in body.blocks if isinstance(b.end, Suspend) and b.end.boundary is boundary]
        call = next((instr for instr in ends[0].resume.instrs if not begins(instr)), None)
        return boundary, values, call if boundary.kind == "step" and isinstance(call, Call) else None

    def _value(self, expr: Expr, values: Mapping[Var, int]) -> Any:
        if isinstance(expr, Const):
            return self.translation.pools.decode(expr.value, expr.type)
        assert isinstance(expr, Local)
        return self.translation.pools.decode(values.get(expr.var, 0), expr.type)

    def _holders(self, lock: object) -> tuple[str, ...]:
        """The threads that hold a lock."""
        numbers: list[int] = []
        if isinstance(lock, Mutex):
            numbers = [lock.holder - 1]
        elif isinstance(lock, RwSem):
            numbers = [lock.writer - 1, *(i for i, reads in enumerate(lock.readers) if reads)]
        return tuple(self.world.threads[i].name for i in numbers if i >= 0)


def _some(found: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(found.items())[:MOST_VALUES]


def _steps(loop: ast.While, known: Mapping[str, Any], names: Mapping[str, Any]) -> Iterator[Any]:
    """The steps that a loop calls as methods."""
    for node in ast.walk(loop):
        if isinstance(node, ast.Call):
            called = _evaluate(node.func, known, names)
            if hasattr(called, "_step") and inspect.ismethod(called):
                yield called


def _evaluate(node: ast.expr, known: Mapping[str, Any], names: Mapping[str, Any]) -> Any:
    """What names, fields and elements stand for; None if that is not known here."""
    if any(isinstance(child, ast.Call) for child in ast.walk(node)):
        return None
    try:
        return eval(compile(ast.Expression(node), "state", "eval"), {**names, **known})
    except (Exception, Verdict):
        return None


def _values(node: ast.AST, known: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, str]:
    """The fields, elements and locals that a piece of source reads, by name, as text."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        value = known.get(node.id)
        return {} if value is None or isinstance(value, (Record, Array)) else {node.id: show(value)}
    if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Load):
        owner, value = _evaluate(node.value, known, names), _evaluate(node, known, names)
        if isinstance(owner, Record) and isinstance(node, ast.Attribute) and node.attr in owner.fields():
            name = node.attr if isinstance(owner, World) else f"{owner}.{node.attr}"
            if isinstance(value, Array) and not owner.fields()[node.attr].parts:
                return {name: f"[{', '.join(map(show, value))}]"}
            if not isinstance(value, Record | Array):
                return {name: show(value)}
            return {}
    if isinstance(node, ast.Call):
        return _join(node.args, known, names)
    return _join(list(ast.iter_child_nodes(node)), known, names)


def _join(nodes: Sequence[ast.AST], known: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in nodes:
        found |= _values(node, known, names)
    return found


def closed(rows: Sequence[Row], cycle: int) -> list[Row]:
    """The rows, if the last ``cycle`` of them end where they begin; else raises :class:`Unreplayed`."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for row in rows[len(rows) - cycle :]:
        for name, old, new in row.changes:
            before.setdefault(name, old)
            after[name] = new
    if before != after:
        raise Unreplayed("the cycle does not come back to where it began")
    return list(rows)


def lines(rows: Sequence[Row], cycle: int, waits: Sequence[Waiting], *, mine: str = "", full: bool = True) -> Iterator[str]:
    """The lines of a lasso: a trace, its last ``cycle`` rows again and again, and who does not get on."""
    yield from table(rows[: len(rows) - cycle], mine=mine, full=full)
    yield "      then for ever:" if cycle else "      then nothing lets it go on:"
    yield from table(rows[len(rows) - cycle :], mine=mine)
    for wait in waits:
        yield from textwrap.wrap(f"      {wait}", WIDTH, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)
