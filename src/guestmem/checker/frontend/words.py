# SPDX-License-Identifier: Apache-2.0
"""The words of the language: what each takes, and what it becomes in the tree."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from guestmem.checker.frontend.tree import Charge, Chosen, Current, Expr, Number, Reached, Require, Truth, When
from guestmem.checker.values import BOOL, INT
from guestmem.model.errors import NO_PANIC


@dataclass(frozen=True)
class Word:
    """``takes`` is what the arguments are: "integer", "condition", "text" or "value"; the last ``optional`` may be missing.

    ``make`` is called with the call in the source, and with the arguments: texts as they are, others as expressions.
    """

    takes: tuple[str, ...]
    make: Callable[..., Expr]
    optional: int = 0


def is_text(node: ast.expr) -> bool:
    """Whether an expression is a text as it stands."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _label(node: ast.Call) -> str:
    """The text that is the last argument of a decision; empty if it is no plain text."""
    last = node.args[-1]
    return str(last.value) if isinstance(last, ast.Constant) and is_text(last) else ""


def _may(node: ast.Call, _label_: str) -> Expr:
    return Truth(node, BOOL, Chosen(node, INT, Number(node, INT, 2), "may", _label(node)))


WORDS = {
    "choose": Word(("integer", "text"), lambda node, n, label="": Chosen(node, INT, n, "choose", _label(node)), 1),
    "may": Word(("text",), _may),
    "when": Word(("condition",), lambda node, condition: When(node, BOOL, [], condition)),
    "require": Word(("condition", "text"), lambda node, condition, rule: Require(node, BOOL, [], condition, rule, "")),
    "panic": Word(("text",), lambda node, why: Require(node, BOOL, [], Number(node, BOOL, 0), NO_PANIC, why)),
    "reached": Word(("text",), lambda node, situation: Reached(node, BOOL, [], situation)),
    "charge": Word(("value", "value"), lambda node, *arguments: Charge(node, BOOL, [], list(arguments)), 1),
    "current": Word((), lambda node: Current(node, INT)),
}
