# SPDX-License-Identifier: Apache-2.0
"""What a check did not look at: statements and alternatives that were never executed, methods that nothing calls."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guestmem.checker.frontend.classes import definition_of, is_method, is_own, unused
from guestmem.checker.frontend.source import PACKAGE, Place, shown_file, tree_of
from guestmem.checker.frontend.statements import says_nothing
from guestmem.checker.ir import Decision, Statement
from guestmem.checker.translate import Translation
from guestmem.model.errors import Refused
from guestmem.model.record import Record
from guestmem.model.world import World, records_of, snapshot

if TYPE_CHECKING:
    from guestmem.checker.explore import Model

NEVER_DECIDED = "never decided"


def users_file(file: str) -> bool:
    """Whether a file is a user's Python: not of this package."""
    return any_file(file) and not Path(file).is_relative_to(PACKAGE)


def any_file(file: str) -> bool:
    """Whether a file is Python, this package's or a user's."""
    return file.endswith(".py")


@dataclass
class Executed:
    """What was executed, of one world or of several.

    Attributes:
        watched: the statements that are part of a model.
        statements, decisions: those that were executed; of each decision which alternatives were taken.
        lines: what ran while a world was built.
    """

    watched: set[Statement] = field(default_factory=set)
    statements: set[Statement] = field(default_factory=set)
    decisions: dict[Decision, list[bool]] = field(default_factory=dict)
    lines: set[Place] = field(default_factory=set)

    def ran(self, file: str, node: ast.stmt) -> bool:
        """Whether a statement ran while a world was built."""
        return any(Place(file, line) in self.lines for line in lines_of(node))

    def has(self, file: str, node: ast.stmt) -> bool:
        """Whether a statement was executed, or ran while a world was built."""
        return statement(file, node) in self.statements or self.ran(file, node)

    def knows(self, file: str, node: ast.stmt) -> bool:
        """Whether a statement is part of a model, or ran while a world was built."""
        return statement(file, node) in self.watched or self.ran(file, node)

    def explored(self, model: Model) -> None:
        """Add what the last exploration of a model executed."""
        marks = model.translation.marks
        self.watched |= marks.statements.keys()
        statements, decisions = marks.read(model.marks())
        self.statements |= statements
        for decision, taken in decisions.items():
            both = itertools.zip_longest(self.decisions.get(decision, []), taken, fillvalue=False)
            self.decisions[decision] = [before or now for before, now in both]

    def built(self, build: Callable[[], World], watches: Callable[[str], bool]) -> World:
        """Build a world, and add what of the watched files ran for that."""

        def trace(frame: types.FrameType, event: str, argument: Any) -> Any:
            file = frame.f_code.co_filename
            if not watches(file):
                return None
            self.lines.add(Place(file, frame.f_lineno))
            return trace

        outer = sys.gettrace()
        sys.settrace(trace)
        try:
            return build()
        finally:
            sys.settrace(outer)


def explored(builds: Iterable[Callable[[], World]], watches: Callable[[str], bool], **budget: Any) -> Executed:
    """What explorations of some worlds executed together, each going on past what breaks a rule; what is the same only once."""
    from guestmem.checker.engine.compile import QUICK
    from guestmem.checker.explore import Model

    executed = Executed()
    seen: set[tuple[str, frozenset[Statement]]] = set()
    for build in builds:
        world = executed.built(build, watches)
        translation = Translation(world, watches)
        explores = translation.digest, frozenset(translation.marks.statements)
        if explores in seen:
            continue
        seen.add(explores)
        model = Model(world, watches, QUICK, translation)
        model.explore(stop_at_first=False, **budget)
        executed.explored(model)
    return executed


@dataclass(frozen=True)
class Never:
    """Lines of a function, first <= line <= last, of which no statement was executed."""

    file: str
    function: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Untaken:
    """Alternatives of a decision that were never taken; all of them where it was never made."""

    file: str
    function: str
    line: int
    word: str
    label: str
    never: str

    def __str__(self) -> str:
        label = f" {self.label!r}" if self.label else ""
        return f"{shown_file(self.file)}:{self.line} {self.word}{label}: {self.never}"


@dataclass
class Silence:
    """What a check says nothing about.

    Attributes:
        never, alternatives: what was never executed of the functions that are part of the model.
        uncalled: functions that nothing calls.
        unused: classes of which the world has no object.
        same_as: the world of this package to which the user's file changes nothing.
        wrong: what is wrong in functions that nothing calls, a line each.
    """

    never: list[Never] = field(default_factory=list)
    alternatives: list[Untaken] = field(default_factory=list)
    uncalled: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    same_as: str = ""
    wrong: list[str] = field(default_factory=list)


def silence(model: Model, executed: Executed, watches: Callable[[str], bool], options: dict[str, Any]) -> Silence:
    """What was not looked at of the watched files that a world's classes and functions stand in.

    ``options`` are those that the world was built with.
    """
    world = model.world
    present = {type(record) for record in records_of(world)}
    classes = {base for cls in present for base in cls.__mro__ if issubclass(base, Record)} - {Record, World}
    files = {definition_of(cls)[0] for cls in classes} | {watched.place.file for watched in executed.watched}
    found = unexecuted(sorted(filter(watches, files)), classes, executed)
    hidden = replaced(present, classes)
    found.uncalled = [name for name in found.uncalled if name not in hidden]
    found.unused = [cls.__name__ for cls in unused(world)]
    found.wrong = model.translation.program.notes
    found.same_as = same_as(model.translation, watches, options)
    return found


def replaced(present: Collection[type[Record]], classes: Iterable[type[Record]]) -> set[str]:
    """The methods of some classes that no class present has as its own, as each overrides them."""

    def is_had(owner: type[Record], name: str, value: Any) -> bool:
        return any(getattr(cls, name) is value for cls in present if issubclass(cls, owner))

    methods = ((owner, name, value) for owner in classes for name, value in vars(owner).items() if is_method(value))
    return {f"{owner.__name__}.{name}" for owner, name, value in methods if not is_had(owner, name, value)}


def unexecuted(files: Iterable[str], classes: Collection[type[Record]], executed: Executed) -> Silence:
    """What was not executed of the functions of some files, methods of these classes and functions outside any class."""
    found = Silence()
    known = {(definition_of(cls)[0], cls.__name__) for cls in classes}
    for file in files:
        for owner, node in functions_in(file):
            if (owner and (file, owner) not in known) or node.name.startswith("__"):
                continue
            name = f"{owner}.{node.name}" if owner else node.name
            statements = list(statements_in(node.body))
            if any(executed.knows(file, inside) for inside in statements):
                _look(found, file, name, statements, executed)
            elif statements:
                found.uncalled.append(name)
    return found


def functions_in(file: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions of a file, each with the name of its class, or empty."""
    for node in tree_of(file).body:
        inside = [(node.name, n) for n in node.body] if isinstance(node, ast.ClassDef) else [("", node)]
        yield from ((owner, n) for owner, n in inside if isinstance(n, ast.FunctionDef))


def statements_in(nodes: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements and those inside them, in order; without those that say nothing."""
    for node in nodes:
        if not says_nothing(node):
            yield node
        yield from statements_in(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))


def statement(file: str, node: ast.stmt) -> Statement:
    """What stands for a statement among those watched."""
    return Statement(Place(file, node.lineno), node.col_offset)


def head(node: ast.stmt) -> list[ast.expr]:
    """The expressions that a statement evaluates, without those of the statements inside it."""
    own = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)]
    return [inside for child in own for inside in ast.walk(child) if isinstance(inside, ast.expr)]


def lines_of(node: ast.stmt) -> list[int]:
    """The lines of a statement, without those of the statements inside it."""
    return list(range(node.lineno, max([node.lineno, *(expr.end_lineno or 0 for expr in head(node))]) + 1))


def _look(found: Silence, file: str, function: str, statements: list[ast.stmt], executed: Executed) -> None:
    """Add what of one function was not executed."""
    run: list[int] = []  # the lines of statements in a row that were not
    for node in [*statements, None]:
        if node is not None and not executed.has(file, node):
            run += lines_of(node)
        elif run:
            found.never.append(Never(file, function, run[0], run[-1]))
            run = []
    for node in statements:
        if statement(file, node) in executed.statements:
            calls = [expr for expr in head(node) if isinstance(expr, ast.Call)]
            found.alternatives += filter(None, (never_taken(file, function, call, executed) for call in calls))


def never_taken(file: str, function: str, call: ast.Call, executed: Executed) -> Untaken | None:
    """The alternatives that were not taken, if the call is a decision and there are some."""
    word = call.func.id if isinstance(call.func, ast.Name) else ""
    decision = next((d for d in executed.decisions if d.place == (file, call.lineno) and d.column == call.col_offset), None)
    if decision is None:
        return Untaken(file, function, call.lineno, word, "", NEVER_DECIDED) if word in words_of(file) else None
    never = untaken(decision, executed.decisions[decision])
    return Untaken(file, function, call.lineno, decision.word, decision.label, never) if never else None


@functools.cache
def words_of(file: str) -> set[str]:
    """What a file calls ``choose`` and ``may``."""
    imports = [node for node in tree_of(file).body if isinstance(node, ast.ImportFrom) and is_own(node.module or "")]
    return {alias.asname or alias.name for node in imports for alias in node.names if alias.name in ("choose", "may")}


def untaken(decision: Decision, taken: list[bool]) -> str:
    """The alternatives that were not taken, by their names if the label has them."""
    if not any(taken):
        return NEVER_DECIDED
    names = decision.label.split(", ")
    if decision.word == "may":
        names = ["no", "yes"]
    elif len(names) != len(taken) or len(names) == 1:
        names = [str(i) for i in range(len(taken))]
    return ", ".join(name for name, once in zip(names, taken, strict=True) if not once)


def same_as(translation: Translation, watches: Callable[[str], bool], options: dict[str, Any]) -> str:
    """The world of this package that a user's world derives from, if it is translated to the same; empty otherwise.

    Where a statement of the user's own is part of the model, it is not.
    """
    world = translation.world
    base = next((cls for cls in type(world).__mro__ if is_own(cls.__module__) and issubclass(cls, World)), World)
    if base is type(world) or base is World or any(users_file(s.place.file) for s in translation.marks.statements):
        return ""
    try:
        theirs = base(**options)
    except Refused:  # an option of the user's own
        return ""
    if snapshot(theirs) != snapshot(world):
        return ""
    other = Translation(theirs, watches)
    return base.__name__ if plain(other) == plain(translation) and other.initial == translation.initial else ""


def plain(translation: Translation) -> str:
    """The C text without the names that classes and functions have in Python."""
    return re.sub(r"\b(f|get_|set_)(\d+)_\w+", r"\1\2", translation.source)
