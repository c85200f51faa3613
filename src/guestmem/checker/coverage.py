# SPDX-License-Identifier: Apache-2.0
"""What a check did not look at: statements and alternatives that were never executed, methods that nothing calls."""

from __future__ import annotations

import ast
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guestmem.checker.emit import Translation
from guestmem.checker.frontend.classes import definition_of, is_own, unused
from guestmem.checker.ir import Decision, Statement
from guestmem.checker.lower import says_nothing
from guestmem.checker.source import Place, tree_of
from guestmem.model.errors import Refused
from guestmem.model.record import Record
from guestmem.model.world import World, records_of, snapshot

if TYPE_CHECKING:
    from guestmem.checker.explore import Model

PACKAGE = Path(__file__).parent.parent


def users_file(file: str) -> bool:
    """Whether a file is a user's: not one of this package."""
    return not Path(file).is_relative_to(PACKAGE)


def any_file(file: str) -> bool:
    """Whether a file is watched when all are."""
    return True


@dataclass
class Executed:
    """What was executed, of one world or of several.

    Attributes:
        functions: where the functions begin that are part of the model or ran while it was built.
        statements, decisions: the statements that a step executed; of each decision which alternatives were taken.
        lines: what ran while a world was built.
    """

    functions: set[Place] = field(default_factory=set)
    statements: set[Statement] = field(default_factory=set)
    decisions: dict[Decision, list[bool]] = field(default_factory=dict)
    lines: set[Place] = field(default_factory=set)

    def explored(self, model: Model) -> None:
        """Add what the last exploration of a model executed."""
        program, marks = model.translation.program, model.translation.marks
        self.functions |= {Place(f.file, f.python.__code__.co_firstlineno) for f in program.functions}
        statements, decisions = marks.read(model.marks())
        self.statements |= statements
        for decision, taken in decisions.items():
            before = self.decisions.get(decision, [])
            most = max(len(before), len(taken))
            pairs = zip(padded(before, most), padded(taken, most), strict=True)
            self.decisions[decision] = [one or other for one, other in pairs]

    def built(self, build: Callable[[], World], watches: Callable[[str], bool]) -> World:
        """Build a world, and add what of the watched files ran for that."""

        def trace(frame: types.FrameType, event: str, argument: Any) -> Any:
            file = frame.f_code.co_filename
            if not watches(file):
                return None
            self.functions.add(Place(file, frame.f_code.co_firstlineno))
            self.lines.add(Place(file, frame.f_lineno))
            return trace

        outer = sys.gettrace()
        sys.settrace(trace)
        try:
            return build()
        finally:
            sys.settrace(outer)


def padded(taken: list[bool], length: int) -> list[bool]:
    """The same, with alternatives that were not there."""
    return taken + [False] * (length - len(taken))


@dataclass(frozen=True)
class Never:
    """Lines of a function of which no statement was executed."""

    file: str
    first: int
    last: int
    function: str

    def __str__(self) -> str:
        lines = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{shown(self.file)}:{lines} ({self.function})"


@dataclass(frozen=True)
class Untaken:
    """Alternatives of a decision that were never taken; all of them where it was never made."""

    file: str
    line: int
    word: str
    label: str
    never: str

    def __str__(self) -> str:
        label = f" {self.label!r}" if self.label else ""
        return f"{shown(self.file)}:{self.line} {self.word}{label}: {self.never}"


@dataclass
class Silence:
    """What a check says nothing about.

    Attributes:
        never, alternatives: what was never executed of the functions that are part of the model.
        uncalled: functions that nothing calls.
        unused: classes of which the world has no object.
        same_as: the world of this package to which the user's file changes nothing.
    """

    never: list[Never] = field(default_factory=list)
    alternatives: list[Untaken] = field(default_factory=list)
    uncalled: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    same_as: str = ""


def shown(file: str) -> str:
    """A file's name as it is printed: from here, or from the package, if it stands below."""
    for above in (PACKAGE.parent, Path.cwd()):
        if Path(file).is_relative_to(above):
            return str(Path(file).relative_to(above))
    return file


def silence(model: Model, executed: Executed, watches: Callable[[str], bool], options: dict[str, Any]) -> Silence:
    """What was not looked at of the watched files that a world's classes and functions stand in.

    ``options`` are those that the world was built with.
    """
    world = model.world
    classes = {base for r in records_of(world) for base in type(r).__mro__ if issubclass(base, Record)}
    files = {definition_of(cls)[0] for cls in classes} | {function.file for function in model.translation.program.functions}
    found = unexecuted(sorted(filter(watches, files)), classes, executed)
    found.unused = [cls.__name__ for cls in unused(world)]
    found.same_as = same_as(world, model.translation, options)
    return found


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
            if Place(file, min([node.lineno, *(d.lineno for d in node.decorator_list)])) in executed.functions:
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


def head(node: ast.stmt) -> list[ast.AST]:
    """What a statement evaluates itself, without the statements inside it."""
    own = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)]
    return [inside for child in own for inside in ast.walk(child)]


def _look(found: Silence, file: str, function: str, statements: list[ast.stmt], executed: Executed) -> None:
    """Add what of one function was not executed."""
    decided = {(d.place, d.column): d for d in executed.decisions}
    words = words_of(file)
    run: list[int] = []

    def end_run() -> None:
        if run:
            found.never.append(Never(file, run[0], run[-1], function))
            run.clear()

    for node in statements:
        last = max(getattr(n, "end_lineno", node.lineno) for n in [*head(node), ast.Pass(end_lineno=node.lineno)])
        lines = range(node.lineno, last + 1)
        place = Place(file, node.lineno)
        if Statement(place, node.col_offset) not in executed.statements and not any(Place(file, n) in executed.lines for n in lines):
            run += lines
            continue
        end_run()
        for call in head(node):
            if not isinstance(call, ast.Call):
                continue
            decision = decided.get((Place(file, call.lineno), call.col_offset))
            if decision is not None:
                never = untaken(decision, executed.decisions[decision])
                if never:
                    found.alternatives.append(Untaken(file, call.lineno, decision.word, decision.label, never))
            elif isinstance(call.func, ast.Name) and call.func.id in words and place not in executed.lines:
                found.alternatives.append(Untaken(file, call.lineno, call.func.id, "", "never decided"))
    end_run()


def words_of(file: str) -> set[str]:
    """What a file calls ``choose`` and ``may``."""
    imports = [node for node in tree_of(file).body if isinstance(node, ast.ImportFrom) and is_own(node.module or "")]
    return {alias.asname or alias.name for node in imports for alias in node.names if alias.name in ("choose", "may")}


def untaken(decision: Decision, taken: list[bool]) -> str:
    """The alternatives that were not taken, by their names if the label has them."""
    if not any(taken):
        return "never decided"
    names = decision.label.split(", ")
    if decision.word == "may":
        names = ["no", "yes"]
    elif len(names) != len(taken) or len(names) == 1:
        names = [str(i) for i in range(len(taken))]
    return ", ".join(name for name, once in zip(names, taken, strict=True) if not once)


def same_as(world: World, translation: Translation, options: dict[str, Any]) -> str:
    """The world of this package that a user's world derives from, if it is translated to the same; empty otherwise.

    Where a statement of the user's own is part of the model, it is not.
    """
    base = next((cls for cls in type(world).__mro__ if is_own(cls.__module__) and issubclass(cls, World)), World)
    if base is type(world) or base is World or any(users_file(s.place.file) for s in translation.marks.statements):
        return ""
    try:
        theirs = base(**options)
    except Refused:  # an option of the user's own
        return ""
    if snapshot(theirs) != snapshot(world):
        return ""
    other = Translation(theirs)
    return base.__name__ if plain(other) == plain(translation) and other.initial == translation.initial else ""


def plain(translation: Translation) -> str:
    """The C text without the names that classes and functions have in Python."""
    return re.sub(r"\b(f|get_|set_)(\d+)_\w+", r"\1\2", translation.source)
