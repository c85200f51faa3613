# SPDX-License-Identifier: Apache-2.0
"""A program as a script: both hosts run it, and each of its operations is printed with both results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from guestmem.contract.conform import kernel_host, no_kernel
from guestmem.contract.deviations import Deviation, known
from guestmem.contract.program import Line, Skipped, look_around, present, recorded, recorded_apart
from guestmem.contract.syscalls.simulated_host import SimulatedHost

__all__ = ["compare"]


def compared(ours: Line, theirs: Line, among: Iterable[Deviation]) -> tuple[str, bool]:
    """A line about an operation on both hosts, and whether something is left to explain."""
    expected, got = ours.result, theirs.result
    if expected == got:
        return f"{ours.operation}: {expected!r}", False
    both = f"{ours.operation}: model {expected!r}, kernel {got!r}"
    why = known(got, expected, among, operation=ours.name, rule=ours.rule)
    if why is not None:
        return f"{both} (known: {why.explanation})", False
    return both, not isinstance(expected, Skipped) and not isinstance(got, Skipped)


def compare(program: Callable[[Any], None]) -> int:
    """Run a program on both hosts and print its results.

    0 if they are equal or differ as is known, 1 if not, 4 without a kernel to compare with.
    """
    host, why = SimulatedHost(), no_kernel()
    if not why:
        around = look_around(kernel_host)
        why = around.unusable
        host.resemble(around.facts)
    model = recorded(host, program)
    if why:
        for line in model:
            print(f"{line.operation}: model {line.result!r}")
        print(why, file=sys.stderr)
        return 4
    left, among = False, present(kernel_host)
    for ours, theirs in zip(model, recorded_apart(kernel_host, program), strict=False):
        text, unexplained = compared(ours, theirs, among)
        print(text)
        left = left or unexplained
    return int(left)
