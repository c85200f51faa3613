# SPDX-License-Identifier: Apache-2.0
"""The source of model functions: syntax trees found again from the running function objects."""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from guestmem.model.errors import Refused

#: The directory of this package.
PACKAGE = str(Path(__file__).resolve().parents[2])


class Place(NamedTuple):
    """A line of source."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Function:
    """A Python function of the model: its tree, the names it sees, whether it is one step."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.is_step = hasattr(function, "_step")
        self.python: Any = inspect.unwrap(function)
        code = self.python.__code__
        self.file: str = code.co_filename
        self.name: str = self.python.__qualname__
        self.globals: dict[str, Any] = self.python.__globals__
        definition = _definitions(self.file).get(code.co_firstlineno)
        if definition is None:
            raise Refused(f"{self.file}:{code.co_firstlineno}", f"the source of {self.name} is not found", "use def in a file")
        self.node = definition
        arguments = definition.args
        if arguments.vararg or arguments.kwarg or arguments.posonlyargs or arguments.kwonlyargs:
            self.refuse(definition, "a starred or keyword-only parameter", "name each parameter plainly")
        outer = [name for name in code.co_freevars if name != "__class__"]  # that one is for super()
        if outer:
            self.refuse(definition, f"the name {outer[0]!r} of an enclosing function", "pass it, or make it a field")
        self.parameters = [a.arg for a in arguments.args]
        self.defaults = dict(zip(self.parameters[::-1], arguments.defaults[::-1], strict=False))

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """The annotations of parameters and of the result ("return"), resolved."""
        return typing.get_type_hints(self.python)

    @functools.cached_property
    def assigned_once(self) -> set[str]:
        """The names that have one value for as long as the function runs."""
        counts = dict.fromkeys(self.parameters, 1)
        for node in ast.walk(self.node):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                counts[node.id] = counts.get(node.id, 0) + 1
        return {name for name, count in counts.items() if count == 1}

    def place(self, node: ast.AST) -> Place:
        """Where a node of the tree stands."""
        return Place(self.file, getattr(node, "lineno", self.node.lineno))

    def refuse(self, node: ast.AST, what: str, instead: str) -> NoReturn:
        """Refuse a piece of this function: say what it is and what to write instead."""
        raise Refused(str(self.place(node)), what, instead)

    def __repr__(self) -> str:
        return self.name


#: The functions whose source was read.
READ: dict[Callable[..., Any], Function] = {}


def function_of(function: Callable[..., Any]) -> Function:
    """The source of a function object, read once."""
    found = READ.get(function)
    if found is None:
        found = READ[function] = Function(function)
    return found


@functools.cache
def tree_of(file: str) -> ast.Module:
    """The syntax tree of a file, or of a cell of a notebook."""
    return ast.parse("".join(linecache.getlines(file)), file)


@functools.cache
def _definitions(file: str) -> dict[int, ast.FunctionDef]:
    """The functions defined in a file, by the line where Python says they start (the first decorator's)."""
    found: dict[int, ast.FunctionDef] = {}
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.FunctionDef):
            found[min([node.lineno, *(d.lineno for d in node.decorator_list)])] = node
    return found


def source_line(place: Place) -> str:
    """The text of a line, without its indentation; empty when the file cannot be read."""
    return linecache.getline(place.file, place.line).strip()


def shown_file(file: str) -> str:
    """A file's name as it is printed: from this package, or from where the user is, if it stands below."""
    for above in (PACKAGE, os.getcwd()):
        if file.startswith(above + os.sep):
            return os.path.relpath(file, above)
    return file
