# SPDX-License-Identifier: Apache-2.0
"""A document as a notebook: its cells are run in order, each shows what it prints and the value of its last line."""

from __future__ import annotations

import ast
import contextlib
import io
import linecache
import re
import sys
import types
from collections.abc import Iterator

__all__ = ["cells", "run"]

NAME = "notebook_of_a_test"


def cells(text: str) -> list[tuple[str, str]]:
    """The cells of a document, and what it says that each shows; every block of Python is followed by one of text."""
    return re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S)


def run(text: str) -> Iterator[tuple[str, str]]:
    """Each cell and what it shows."""
    module = sys.modules[NAME] = types.ModuleType(NAME)
    try:
        for number, (source, _) in enumerate(cells(text), 1):
            file = f"<cell {number}>"
            linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # as IPython does
            with contextlib.redirect_stdout(io.StringIO()) as shown:
                _execute(source, file, vars(module))
            yield source, shown.getvalue()
    finally:
        del sys.modules[NAME]


def _execute(source: str, file: str, names: dict[str, object]) -> None:
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, file, "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), file, "eval"), names)
        if value is not None:
            print(repr(value))
