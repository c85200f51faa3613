# SPDX-License-Identifier: Apache-2.0
"""The guest_memfd library, executable: it runs on a simulated host and is explored exhaustively by a checker.

``check``, ``explain`` and ``compare`` are the commands of that name; ``world`` builds a scenario's world, to be run as ordinary
Python; ``scenarios`` has the scenarios.  The other names are the model language.  Each is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guestmem import scenarios
    from guestmem.model import (
        Deadlock,
        Index,
        Mutex,
        Preempt,
        Record,
        Refused,
        RwSem,
        SpinLock,
        Verdict,
        World,
        alone,
        always,
        array,
        bounded,
        charge,
        choose,
        current,
        exported_to,
        guard,
        guards,
        may,
        might_sleep,
        panic,
        part,
        reached,
        require,
        sometimes,
        step,
        thread,
        when,
    )
    from guestmem.report.check import check
    from guestmem.report.compare import compare
    from guestmem.report.explain import explain
    from guestmem.report.names import world

__version__ = "0.1.0"

__all__ = [
    "Deadlock",
    "Index",
    "Mutex",
    "Preempt",
    "Record",
    "Refused",
    "RwSem",
    "SpinLock",
    "Verdict",
    "World",
    "alone",
    "always",
    "array",
    "bounded",
    "charge",
    "check",
    "choose",
    "compare",
    "current",
    "explain",
    "exported_to",
    "guard",
    "guards",
    "may",
    "might_sleep",
    "panic",
    "part",
    "reached",
    "require",
    "scenarios",
    "sometimes",
    "step",
    "thread",
    "when",
    "world",
]

#: Where a name is that is no word of the language.
_HOME = {"check": "report.check", "compare": "report.compare", "explain": "report.explain", "world": "report.names"}


if not TYPE_CHECKING:  # so that a misspelt name is an error to a type checker

    def __getattr__(name: str) -> Any:
        if name == "scenarios":
            return importlib.import_module("guestmem.scenarios")
        if name not in __all__:
            raise AttributeError(f"module 'guestmem' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"guestmem.{_HOME.get(name, 'model')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
