# SPDX-License-Identifier: Apache-2.0
"""The model language: a strict subset of Python that runs as it stands and is translated by the checker."""

from guestmem.model.control import alone, charge, choose, current, exported_to, guard, may, panic, reached, require, step, when
from guestmem.model.errors import Deadlock, Refused, Verdict
from guestmem.model.lock import Mutex, Preempt, RwSem, SpinLock, might_sleep
from guestmem.model.record import Index, Record, array, bounded, guards, part
from guestmem.model.world import World, always, sometimes, thread

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
    "choose",
    "current",
    "exported_to",
    "guard",
    "guards",
    "may",
    "might_sleep",
    "panic",
    "part",
    "reached",
    "require",
    "sometimes",
    "step",
    "thread",
    "when",
]
