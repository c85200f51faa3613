# SPDX-License-Identifier: Apache-2.0
"""Programs: operations on a host as data, their results, and a program as a script that runs on both hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from guestmem.contract.deviations import DEVIATIONS, Deviation
from guestmem.contract.interface import PAGE_SIZE, Host, Missing, Unmodelled
from guestmem.contract.results import Other, Result, failed
from guestmem.linux.facts import Facts
from guestmem.linux.process import Lost, Worker

__all__ = [
    "MISSING",
    "Line",
    "Op",
    "Program",
    "Ref",
    "Skipped",
    "Step",
    "close",
    "look_around",
    "parsed",
    "perform",
    "present",
    "recorded",
    "recorded_apart",
    "script",
    "text",
]

GONE = -1  # the result of an operation that the program does not have: no handle


class Skipped(Other):
    """An operation that was not performed."""


MISSING = Skipped("not possible on this machine")


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
    steps: list[Step] = []
    try:
        for op in program:
            steps.append(step(host, op, results))
    finally:
        close(host, steps)
    return steps


def close(host: Host, steps: list[Step]) -> None:
    """Close everything; when that breaks a rule, the last operation is to blame."""
    ended = host.finish()
    if failed(ended) and steps:
        steps[-1] = Step(ended, "everything can be closed")


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
        return Step(Other(f"{type(error).__name__}: {error}"), "an operation returns")
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


def parsed(statements: str) -> list[Op]:
    """The program that statements such as those of :func:`text` make; they are executed."""
    program: list[Op] = []

    class Writer:
        """Notes operations, and gives for each what stands for its result."""

        def __getattr__(self, name: str) -> Callable[..., Ref]:
            def operation(*arguments: Any) -> Ref:
                program.append(Op(len(program), name, arguments))
                return Ref(len(program) - 1)

            return operation

    exec(statements, {"host": Writer()})
    return program


def _shown(argument: Any, names: dict[int, str]) -> str:
    if isinstance(argument, Ref):
        return names.get(argument.number, str(GONE))
    if isinstance(argument, int) and not 0 <= argument < 10:
        return hex(argument)
    return repr(argument)


class Around(NamedTuple):
    """What the model must know of a machine to be compared with its kernel; ``unusable``: why it cannot be.

    ``missing``: operations that this process may not do there, and why.
    """

    unusable: str
    facts: Facts
    missing: dict[str, str]


def look_around(prepare: Callable[[], Host]) -> Around:
    """Find out what a kernel has, in a process of its own."""
    locking = [
        Op(0, "create_vm", ()),
        Op(1, "create_guest_memfd", (Ref(0), PAGE_SIZE, 3)),
        Op(2, "mmap", (Ref(1), PAGE_SIZE, 3, 1, 0)),
        Op(3, "mlock", (Ref(2), 0, PAGE_SIZE)),
    ]
    try:
        with Worker(prepare, lambda host, _: (host.facts, perform(host, locking)[-1])) as worker:
            facts, locked = worker.do(None)
    except (Lost, OSError) as error:
        return Around(str(error), Facts(), {})
    unusable = "" if facts.files else "needs guest_memfd: KVM makes no file of it"
    return Around(unusable, facts, {"mlock": locked.rule} if locked.result == MISSING else {})


SCRIPT = '''\
#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""{title}

Prints each operation with the model's result and the kernel's: python3 {name}
"""

from guestmem.contract.compare import compare


def program(host):
    {body}


if __name__ == "__main__":
    raise SystemExit(compare(program))
'''


def script(program: Program, title: str, name: str) -> str:
    """A program as a Python script."""
    return SCRIPT.format(title=title.replace("\\", "\\\\").replace('"""', "'''"), name=name, body="\n    ".join(text(program)))


class Line(NamedTuple):
    """An operation as a program made it, its result, and the rule that the host names if it failed."""

    operation: str
    result: Result
    name: str
    rule: str


class Recorder:
    """Passes operations on to a host and keeps what came of them."""

    def __init__(self, perform: Callable[[str, tuple[Any, ...]], Result], rule: Callable[[], str] = lambda: "") -> None:
        self.perform = perform
        self.rule = rule
        self.lines: list[Line] = []

    def __getattr__(self, name: str) -> Callable[..., Result]:
        def operation(*arguments: Any) -> Result:
            shown = ", ".join(_shown(argument, {}) for argument in arguments)
            try:
                result = self.perform(name, arguments)
            except Unmodelled as why:
                result = Skipped(f"not modelled: {why}")
            except Missing as why:
                result = Skipped(f"{MISSING}: {why}")
            except Lost as lost:
                self.lines.append(Line(f"{name}({shown})", Other(str(lost)), name, ""))
                raise
            self.lines.append(Line(f"{name}({shown})", result, name, self.rule()))
            return result

        return operation


def recorded(host: Host, program: Callable[[Any], None]) -> list[Line]:
    """What a program did on a host."""
    recorder = Recorder(lambda name, arguments: getattr(host, name)(*arguments), lambda: host.rule)
    try:
        program(recorder)
    finally:
        host.finish()
    return recorder.lines


def recorded_apart(prepare: Callable[[], Host], program: Callable[[Any], None]) -> list[Line]:
    """What a program did on a host in a process of its own, up to the operation that ended the process."""
    with Worker(prepare, lambda host, job: getattr(host, job[0])(*job[1])) as worker:
        recorder = Recorder(lambda name, arguments: worker.do((name, arguments)))
        with contextlib.suppress(Lost):
            program(recorder)
    return recorder.lines


def present(prepare: Callable[[], Host]) -> tuple[Deviation, ...]:
    """The deviations that a kernel has: by their causes, or by their programs, each in a process of its own."""
    with Worker(prepare, lambda host, _: host.facts) as worker:
        facts = worker.do(None)

    def shown(deviation: Deviation) -> bool:
        def program(host: Any) -> None:
            exec(deviation.program, {"host": host})

        return recorded_apart(prepare, program)[-1].result == deviation.shows

    return tuple(one for one in DEVIATIONS if (one.cause(facts) if one.cause else shown(one)))
