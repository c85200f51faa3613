# SPDX-License-Identifier: Apache-2.0
"""Programs: operations on a host as data, their results, and a program as a script that runs on both hosts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from guestmem.contract.host import Host, Missing, Result, Unmodelled, failed
from guestmem.contract.kernel.worker import Lost, Worker

__all__ = ["MISSING", "Op", "Program", "Ref", "Step", "compare", "perform", "script", "text"]

CLOSES = "everything can be closed"
GONE = "no such operation"
MISSING = "not possible on this machine"
UNMODELLED = "not modelled"


class Ref(NamedTuple):
    """In arguments: the result of the operation of a number."""

    number: int


class Op(NamedTuple):
    """One operation: its number, which it keeps when others are left out, its name and its arguments."""

    number: int
    name: str
    arguments: tuple[Any, ...]


Program = Sequence[Op]


class Step(NamedTuple):
    """The result of an operation, and the rule that the host names if it failed."""

    result: Result
    rule: str


def perform(host: Host, program: Program) -> list[Step]:
    """The steps of a program on a host, which is empty before and after."""
    results: dict[int, Result] = {}
    steps = []
    try:
        for op in program:
            steps.append(step(host, op, results))
    finally:
        ended = host.finish()
    if failed(ended) and steps:
        steps[-1] = Step(ended, CLOSES)
    return steps


def step(host: Host, op: Op, results: dict[int, Result]) -> Step:
    """Perform an operation, with the results of those before."""
    arguments = [results.get(a.number, GONE) if isinstance(a, Ref) else a for a in op.arguments]
    try:
        result: Result = getattr(host, op.name)(*arguments)
    except Missing as missing:
        return Step(MISSING, str(missing))
    except Unmodelled:
        raise
    except Exception as error:
        return Step(f"{type(error).__name__}: {error}", "an operation returns")
    results[op.number] = result
    return Step(result, host.rule)


def text(program: Program) -> list[str]:
    """The statements of a program, its results named r0, r1, ... where they are used."""
    used = {a.number for op in program for a in op.arguments if isinstance(a, Ref)}
    names = {op.number: f"r{n}" for n, op in enumerate(op for op in program if op.number in used)}
    lines = []
    for op in program:
        shown = ", ".join(_shown(argument, names) for argument in op.arguments)
        lines.append((f"{names[op.number]} = " if op.number in names else "") + f"host.{op.name}({shown})")
    return lines


def _shown(argument: Any, names: dict[int, str]) -> str:
    if isinstance(argument, Ref):
        return names.get(argument.number, repr(GONE))
    if isinstance(argument, int) and not 0 <= argument < 10:
        return hex(argument)
    return repr(argument)


SCRIPT = '''\
#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""{title}

Prints each operation with the model's result and the kernel's: python3 {name}
"""

from guestmem.contract.program import compare


def program(host):
    {body}


if __name__ == "__main__":
    raise SystemExit(compare(program))
'''


def script(program: Program, title: str, name: str) -> str:
    """A program as a Python script."""
    return SCRIPT.format(title=title.replace("\\", "\\\\").replace('"""', "'''"), name=name, body="\n    ".join(text(program)))


class Recorder:
    """Passes operations on to a host and keeps (operation, result)."""

    def __init__(self, perform: Callable[[str, tuple[Any, ...]], Result]) -> None:
        self.perform = perform
        self.lines: list[tuple[str, Result]] = []

    def __getattr__(self, name: str) -> Callable[..., Result]:
        def operation(*arguments: Any) -> Result:
            shown = ", ".join(_shown(argument, {}) for argument in arguments)
            try:
                result = self.perform(name, arguments)
            except Unmodelled as why:
                result = f"{UNMODELLED}: {why}"
            except Missing as why:
                result = f"{MISSING}: {why}"
            except Lost as lost:
                self.lines.append((f"{name}({shown})", str(lost)))
                raise
            self.lines.append((f"{name}({shown})", result))
            return result

        return operation


def recorded(host: Host, program: Callable[[Any], None]) -> list[tuple[str, Result]]:
    """What a program did on a host."""
    recorder = Recorder(lambda name, arguments: getattr(host, name)(*arguments))
    try:
        program(recorder)
    finally:
        host.finish()
    return recorder.lines


def recorded_apart(prepare: Callable[[], Host], program: Callable[[Any], None]) -> list[tuple[str, Result]]:
    """What a program did on a host in a process of its own, up to the operation that ended the process."""
    with Worker(prepare, lambda host, job: getattr(host, job[0])(*job[1])) as worker:
        recorder = Recorder(lambda name, arguments: worker.do((name, arguments)))
        with contextlib.suppress(Lost):
            program(recorder)
    return recorder.lines


def equal(expected: Result, got: Result) -> bool:
    """Whether results agree, as far as the model knows and the machine can."""
    unknown = isinstance(expected, str) and expected.startswith(UNMODELLED)
    return expected == got or unknown or (isinstance(got, str) and got.startswith(MISSING))


def lines_of(model: list[tuple[str, Result]], kernel: list[tuple[str, Result]] | None) -> Iterator[str]:
    """A table of both."""
    for number, (operation, expected) in enumerate(model):
        if kernel is None:
            yield f"{operation}: model {expected!r}"
        elif number < len(kernel):
            got = kernel[number][1]
            yield f"{operation}: {expected!r}" if got == expected else f"{operation}: model {expected!r}, kernel {got!r}"


def compare(program: Callable[[Any], None]) -> int:
    """Run a program on both hosts and print its results; 0 if they are equal, 1 if not, 4 without a kernel to compare with."""
    from guestmem.contract.conform import kernel_host, no_kernel
    from guestmem.contract.simulated.host import SimulatedHost

    model = recorded(SimulatedHost(), program)
    why = no_kernel()
    kernel = None if why else recorded_apart(kernel_host, program)
    for line in lines_of(model, kernel):
        print(line)
    if kernel is None:
        print(why, file=sys.stderr)
        return 4
    return int(not all(equal(ours, theirs) for (_, ours), (_, theirs) in zip(model, kernel, strict=False)))
