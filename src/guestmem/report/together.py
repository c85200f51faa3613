# SPDX-License-Identifier: Apache-2.0
"""Explorations that do not need each other, as many at a time as there are CPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from guestmem.checker.explore import default_memory

__all__ = ["explorations", "shares"]

T = TypeVar("T")


def shares(explorations: int) -> tuple[int, int]:
    """How many of so many explorations run at a time, and how much memory each may have, in bytes."""
    workers = max(1, min(os.cpu_count() or 1, explorations))
    return workers, default_memory() // workers


def explorations(explore: Callable[..., T], wanted: Sequence[Sequence[Any]], note: Callable[[str], None]) -> Iterator[T]:
    """What ``explore`` returns for each of ``wanted``, in their order; its last argument is the memory that it may have."""
    workers, memory = shares(len(wanted))
    with ProcessPoolExecutor(workers) as pool:
        running = [pool.submit(explore, *arguments, memory) for arguments in wanted]
        for done, future in enumerate(running, 1):
            yield future.result()
            note(f"{done} of {len(running)} explored")
