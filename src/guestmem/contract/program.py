# SPDX-License-Identifier: Apache-2.0
"""Programs: operations on a host as data, their results, and a program as a script that runs on both hosts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from guestmem.contract.deviations import known
from guestmem.contract.interface import PAGE_SIZE, Host, Missing, Unmodelled
from guestmem.contract.results import Other, Result, brief, failed
from guestmem.linux import uapi
from guestmem.linux.process import Lost, Worker

__all__ = ["MISSING", "Op", "Program", "Ref", "Step", "close", "compare", "parsed", "perform", "script", "text"]

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
    """What a kernel has that the model must have as well to be compared with it; ``unusable``: why it cannot be."""

    unusable: str
    flags: int
    gpa_bits: int
    missing: dict[str, str]


def look_around(on_kernel: Callable[[Program], list[Step]]) -> Around:
    """Find out what a kernel has."""
    asked = [
        Op(0, "create_vm", ()),
        Op(1, "check_extension", (Ref(0), uapi.KVM_CAP_GUEST_MEMFD)),
        Op(2, "check_extension", (Ref(0), uapi.KVM_CAP_GUEST_MEMFD_FLAGS)),
        Op(3, "guest_physical_bits", (Ref(0),)),
        Op(4, "create_guest_memfd", (Ref(0), PAGE_SIZE, 3)),
        Op(5, "mmap", (Ref(4), PAGE_SIZE, 3, 1, 0)),
        Op(6, "mlock", (Ref(5), 0, PAGE_SIZE)),
    ]
    steps = on_kernel(asked)
    if len(steps) < len(asked):
        return Around(f"{asked[len(steps) - 1].name}: {brief(steps[-1].result)}" if steps else "no answer", 0, 52, {})
    _, there, flags, bits, *_, locked = (step.result for step in steps)
    unusable = "" if there == 1 else "needs guest_memfd: KVM_CAP_GUEST_MEMFD"
    missing = {"mlock": steps[-1].rule} if locked == MISSING else {}
    return Around(unusable, flags if isinstance(flags, int) else 0, bits if isinstance(bits, int) else 52, missing)


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


def compared(ours: Line, theirs: Line) -> tuple[str, bool]:
    """A line about an operation on both hosts, and whether something is left to explain."""
    expected, got = ours.result, theirs.result
    if expected == got:
        return f"{ours.operation}: {expected!r}", False
    both = f"{ours.operation}: model {expected!r}, kernel {got!r}"
    why = known(got, expected, operation=ours.name, rule=ours.rule)
    if why is not None:
        return f"{both} (known: {why.explanation})", False
    return both, not isinstance(expected, Skipped) and not isinstance(got, Skipped)


def compare(program: Callable[[Any], None]) -> int:
    """Run a program on both hosts and print its results.

    0 if they are equal or differ as is known, 1 if not, 4 without a kernel to compare with.
    """
    from guestmem.contract.conform import kernel_host, no_kernel
    from guestmem.contract.syscalls.simulated_host import SimulatedHost
    from guestmem.contract.syscalls.vms import Features

    host, why = SimulatedHost(), no_kernel()
    if not why:
        with Worker(kernel_host, perform) as worker:
            around = look_around(worker.do)
        why = around.unusable
        host.resemble(Features(around.flags, around.gpa_bits))
    model = recorded(host, program)
    if why:
        for line in model:
            print(f"{line.operation}: model {line.result!r}")
        print(why, file=sys.stderr)
        return 4
    left = False
    for ours, theirs in zip(model, recorded_apart(kernel_host, program), strict=False):
        text, unexplained = compared(ours, theirs)
        print(text)
        left = left or unexplained
    return int(left)
