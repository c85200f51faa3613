# SPDX-License-Identifier: Apache-2.0
"""What the compiled engine takes and gives."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from guestmem.checker.engine.compile import load
from guestmem.checker.engine.text import MOST_CHOICES, engine_text

DONE, WAITS, BROKEN, FINISHED = range(4)
RUNNING, COMPLETE, STOPPED, OUT_OF_STATES, OUT_OF_MEMORY, NO_MEMORY = range(6)
IN_STEP, IN_STATE, WAITS_FOR_EVER, SPINS = range(4)
#: No state: the parent of the first one.
NOBODY = 2**32 - 1

#: The files of the engine for looking at one state at a time, and those for exploring all.
REPLAY = ("replay.c",)
SEARCH = (*REPLAY, "set.h", "search.c", "waits.c")


class Turn(ctypes.Structure):
    """A step of a cycle."""

    _fields_ = (("thread", ctypes.c_uint32), ("state", ctypes.c_uint32))


class Violation(ctypes.Structure):
    """What breaks a rule."""

    _fields_ = (
        ("kind", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("site", ctypes.c_int),
        ("state", ctypes.c_uint32),
        ("depth", ctypes.c_uint32),
        ("cycle", ctypes.POINTER(Turn)),
        ("turns", ctypes.c_uint32),
        ("stepped", ctypes.c_int),
        ("choices", ctypes.c_int),
        ("chosen", ctypes.c_int * MOST_CHOICES),
    )


class Summary(ctypes.Structure):
    """How far a search has come."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("count", "head", "transitions", "reached", "bytes", "table_bytes")),
        ("depth", ctypes.c_uint32),
        ("status", ctypes.c_int),
        ("violations", ctypes.c_int),
    )


def edge_type(words: int) -> type[ctypes.Structure]:
    """What can happen in a state of so many words."""

    class Edge(ctypes.Structure):
        _fields_ = (
            *((name, ctypes.c_int) for name in ("thread", "status", "site", "stepped", "choices")),
            ("chosen", ctypes.c_int * MOST_CHOICES),
            ("state", ctypes.c_uint64 * words),
        )

    return Edge


def engine(world: str, words: int, parts: Sequence[str], flags: Sequence[str]) -> ctypes.CDLL:
    """The text of a world compiled with parts of the engine; ``words`` is the size of its states."""
    library = load("\n".join([world, engine_text(*parts)]), flags)
    sizes = [ctypes.sizeof(each) for each in (edge_type(words), Turn, Violation, Summary)]
    ours = [*sizes, FINISHED, NO_MEMORY, SPINS]
    theirs = list((ctypes.c_int * len(ours)).in_dll(library, "engine_sizes"))
    assert ours == theirs, f"engine.h and bindings.py differ: {theirs}, {ours}"
    library.model_broken_rules.restype = ctypes.c_uint64
    if parts == SEARCH:
        _declare_search(library)
    return library


def _declare_search(library: Any) -> None:
    pointer, number = ctypes.c_void_p, ctypes.c_uint64
    library.search_new.restype = pointer
    library.search_new.argtypes = [pointer, number, number, ctypes.c_int]
    library.search_run.argtypes = [pointer, number]
    library.search_waits.argtypes = library.search_free.argtypes = [pointer]
    library.search_summary.argtypes = [pointer, ctypes.POINTER(Summary)]
    library.search_violation.restype = ctypes.POINTER(Violation)
    library.search_violation.argtypes = [pointer, ctypes.c_int]
    library.search_state.restype = ctypes.POINTER(number)
    library.search_state.argtypes = [pointer, number]
    library.search_parent.restype = ctypes.c_uint32
    library.search_parent.argtypes = [pointer, number]
