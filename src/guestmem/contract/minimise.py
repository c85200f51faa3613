# SPDX-License-Identifier: Apache-2.0
"""Where two hosts differ on a program, and the program reduced to what that needs."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from guestmem.contract.deviations import Deviation, known
from guestmem.contract.interface import PAGE_SIZE
from guestmem.contract.program import MISSING, Op, Ref, Step
from guestmem.contract.results import Failure, Result, brief

__all__ = ["Divergence", "comparable", "deviation", "first_divergence", "minimise"]


class Divergence(NamedTuple):
    """A program whose last operation gives ``expected`` on the model, by ``rule``, and ``got`` on the kernel.

    ``recurs``: it did so again.
    """

    program: Sequence[Op]
    expected: Result
    got: Result
    rule: str
    recurs: bool = True

    @property
    def kind(self) -> tuple[Any, ...]:
        """What makes two divergences the same: operation, rule, and results as far as they are names."""
        names = [r.kind if isinstance(r, Failure) else type(r).__name__ for r in (self.expected, self.got)]
        return self.program[-1].name, self.rule, *names

    def title(self) -> str:
        """A sentence."""
        rule = f" ({self.rule})" if self.rule else ""
        kernel = f"Linux {platform.release()}"
        once = "" if self.recurs else "seen once and not again: "
        return f"{once}{self.program[-1].name}: the model says {brief(self.expected)}{rule}, {kernel} says {brief(self.got)}"


def deviation(op: Op, ours: Step, theirs: Step, among: Sequence[Deviation]) -> Deviation | None:
    """The deviation, of those that the kernel has, that a difference is."""
    name = op.arguments[0] if op.name == "in_child" else op.name
    return known(theirs.result, ours.result, among, operation=name, rule=ours.rule)


def comparable(
    program: Sequence[Op], model: Sequence[Step], kernel: Sequence[Step], among: Sequence[Deviation]
) -> Iterator[tuple[Op, Step, Step]]:
    """The operations that mean the same on both hosts: up to what the machine lacks, or what leaves another state."""
    for op, ours, theirs in zip(program, model, kernel, strict=False):
        if theirs.result == MISSING:
            return
        yield op, ours, theirs
        if ours.result != theirs.result:
            why = deviation(op, ours, theirs, among)
            if why is None or why.state_differs:
                return


def first_divergence(
    program: Sequence[Op], model: Sequence[Step], kernel: Sequence[Step], among: Sequence[Deviation]
) -> Divergence | None:
    """The first operation whose results differ, and not as is known."""
    for number, (op, ours, theirs) in enumerate(comparable(program, model, kernel, among)):
        if ours.result != theirs.result and deviation(op, ours, theirs, among) is None:
            return Divergence(program[: number + 1], ours.result, theirs.result, ours.rule)
    return None


def minimise(divergence: Divergence, diverges: Callable[[Sequence[Op]], Divergence | None]) -> Divergence:
    """Leave out what is not needed for a divergence of the same kind, and make arguments plain."""
    best = without_some(divergence, diverges)
    plainer = with_plain_arguments(best, diverges)
    return best if plainer is best else without_some(plainer, diverges)


def without_some(best: Divergence, diverges: Callable[[Sequence[Op]], Divergence | None]) -> Divergence:
    """Leave out operations, half of them at a time, in the end one by one."""
    size = len(best.program) // 2
    while size:
        start = 0
        while start < len(best.program) - 1:
            found = diverges([*best.program[:start], *best.program[start + size :]])
            if found is not None and found.kind == best.kind and len(found.program) < len(best.program):
                best = found
            else:
                start += size
        size //= 2
    return best


def with_plain_arguments(best: Divergence, diverges: Callable[[Sequence[Op]], Divergence | None]) -> Divergence:
    """Refer to the first thing that will do, and use small numbers."""
    for number, op in enumerate(best.program):
        for position, argument in enumerate(op.arguments):
            for plain in plainer_than(argument, best.program[:number]):
                arguments = (*op.arguments[:position], plain, *op.arguments[position + 1 :])
                found = diverges([*best.program[:number], op._replace(arguments=arguments), *best.program[number + 1 :]])
                if found is not None and found.kind == best.kind and len(found.program) == len(best.program):
                    best, op = found, found.program[number]
                    break
    return best


def plainer_than(argument: Any, before: Sequence[Op]) -> Iterator[Any]:
    """What to try in the place of an argument."""
    if isinstance(argument, Ref):
        yield from (Ref(op.number) for op in before if op.number < argument.number)
    elif isinstance(argument, int):
        plain = (0, 1, PAGE_SIZE, argument % PAGE_SIZE, argument & -PAGE_SIZE)
        yield from (number for number in sorted(set(plain)) if number < argument)
    elif isinstance(argument, bytes) and len(argument) > 1:
        yield from (argument[:1], bytes([1]))
    elif isinstance(argument, str) and argument.startswith("0x"):
        yield None
