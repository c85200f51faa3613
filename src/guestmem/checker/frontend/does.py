# SPDX-License-Identifier: Apache-2.0
"""What routines do that matters to who calls them: they change the state, wait, choose, or can be interrupted."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from guestmem.checker.frontend.tree import (
    Callee,
    Chosen,
    Expr,
    For,
    If,
    Iteration,
    Jump,
    Name,
    Number,
    Range,
    Return,
    Routine,
    SetElement,
    SetField,
    Stmt,
    Update,
    When,
    While,
    With,
)

#: Parts of the tree, besides the lists they may stand in.
Node = Expr | Stmt | Iteration | Range | Callee


def children(node: Node) -> Iterator[Node]:
    """The parts of a statement or expression, in the order of their evaluation."""
    for value in vars(node).values():
        if isinstance(value, list):
            yield from (each for each in value if isinstance(each, Node))
        elif isinstance(value, Node):
            yield value


def walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """Some parts of the tree, each before those inside it; not what is called."""
    for node in nodes:
        yield node
        yield from walk(children(node))


@dataclass(frozen=True)
class Done:
    """What may be done: ``stops`` if there is a step or a choice, so that a thread can be interrupted."""

    writes: bool = False
    waits: bool = False
    chooses: bool = False
    stops: bool = False

    def __or__(self, other: Done) -> Done:
        return Done(
            self.writes or other.writes, self.waits or other.waits, self.chooses or other.chooses, self.stops or other.stops
        )


def changes(node: Node) -> bool:
    """Whether a node itself changes the state."""
    return isinstance(node, (SetField, SetElement)) or (isinstance(node, Update) and not isinstance(node.target, Name))


class Does:
    """What routines do, with all that they call."""

    def __init__(self) -> None:
        self._known: dict[Routine, Done] = {}

    def all(self, routine: Routine) -> Done:
        """What a routine does."""
        if routine not in self._known:
            done = Done()
            for node in walk(routine.body):
                done |= self.node(node)
            self._known[routine] = done
        return self._known[routine]

    def node(self, node: Node) -> Done:
        """What a node itself does, if it is a call with what is called."""
        if isinstance(node, Callee):
            done = Done()
            for target in node.targets:
                done |= self.all(target.routine) | Done(stops=target.routine.function.is_step)
            return done
        chooses = isinstance(node, Chosen)
        return Done(changes(node), isinstance(node, When), chooses, chooses)

    def refuse_waits_outside_steps(self, routine: Routine, seen: set[Routine] | None = None) -> None:
        """Refuse a ``when`` of a thread that no step is around."""
        seen = set() if seen is None else seen
        if routine in seen:
            return
        seen.add(routine)
        for node in walk(routine.body):
            if isinstance(node, When):
                routine.function.refuse(node.node, "when() outside a step", "put it into a function with @step")
            if isinstance(node, Callee):
                for target in node.targets:
                    if self.all(target.routine).stops and not target.routine.function.is_step:
                        self.refuse_waits_outside_steps(target.routine, seen)

    def refuse_late_waits(self, routine: Routine) -> None:
        """Refuse a step that may wait after it has changed something: it could not be taken back."""
        if routine.function.is_step and self.all(routine).waits and self.all(routine).writes:
            _Order(self, routine).statements(routine.body, False)


class _Order:
    """Follows the paths through a step: whether it has changed something; None where control does not come."""

    def __init__(self, does: Does, routine: Routine) -> None:
        self.does = does
        self.function = routine.function
        self.jumps: list[list[bool]] = []

    def statements(self, nodes: list[Stmt], changed: bool | None) -> bool | None:
        for node in nodes:
            if changed is None:
                break
            changed = self.statement(node, changed)
        return changed

    def statement(self, node: Stmt, changed: bool) -> bool | None:
        match node:
            case If(test=test, then=then, other=other):
                changed = self.evaluated(node.node, [test], changed)
                ways = [self.statements(then, changed), self.statements(other, changed)]
                if isinstance(test, Number):
                    return ways[not test.value]
                return None if ways == [None, None] else any(ways)
            case While(test=test, body=body):
                return self.loop(node.node, [test], body, changed)
            case For(iteration=iteration, body=body):
                return self.loop(node.node, [iteration], body, changed)
            case With(lock=lock, enter=enter, leave=leave, body=body):
                after = self.statements(body, self.evaluated(node.node, [lock, enter], changed))
                return None if after is None else self.evaluated(node.node, [leave], after)
            case Jump():
                self.jumps[-1].append(changed)
                return None
        changed = self.evaluated(node.node, children(node), changed) or changes(node)
        return None if isinstance(node, Return) else changed

    def loop(self, at: ast.AST, head: list[Node], body: list[Stmt], changed: bool) -> bool:
        """A second time round, what the first has changed is changed."""
        for _ in range(2):
            self.jumps.append([])
            changed = self.evaluated(at, head, changed)
            ends = [changed, self.statements(body, changed), *self.jumps.pop()]
            changed = any(ends)
        return changed

    def evaluated(self, at: ast.AST, nodes: Iterable[Node], changed: bool) -> bool:
        """Whether something is changed after what stands at a place."""
        for node in walk(nodes):
            at = node.node if isinstance(node, Expr) else at
            done = self.does.node(node)
            if done.waits and changed:
                what = "a step that waits after it has changed something"
                self.function.refuse(at, what, "move when() to its start")
            changed = changed or done.writes
        return changed
