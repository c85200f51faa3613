# SPDX-License-Identifier: Apache-2.0
"""Write a program of the contract as one C file that performs it and says whether the kernel does as expected."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from guestmem.contract.c.parts import assembled, defined
from guestmem.contract.deviations import DEVIATIONS
from guestmem.contract.interface import Host
from guestmem.contract.program import GONE, Op, Program, Ref, Step, text
from guestmem.contract.results import Result, Stat

__all__ = ["NoForm", "Report", "call", "function", "names_of", "shown", "source"]

SECONDS = 60  # for a program; one that blocks is ended then
MOST_CHANGES = 24  # of bytes that a result shows; C has the same number
WIDTH = 100
LABEL = 10  # columns


class NoForm(ValueError):
    """An operation cannot be written as C; the message says which."""


class Report(NamedTuple):
    """What a C file is about.

    Attributes:
        title: in one sentence, what the kernel does.
        program: what shows it.
        expected: its steps on the simulated host.
        reported: the operation that the report is about; those before it prepare.
        came: what the kernel gave there.
        rule, source: which rule expects otherwise, and where it is from.
        where: the kernel, machine and configuration where it was seen, a line each.
    """

    title: str
    program: Program
    expected: Sequence[Step]
    reported: int
    came: Result
    rule: str
    source: str
    where: Sequence[str]


def shown(result: Result) -> str:
    """A result as the C program prints it."""
    if isinstance(result, bytes):
        return f"{len(result)} bytes:{_bytes(result)}"
    if isinstance(result, Stat):
        return f"size {result.size}, mode {result.mode:o}, blksize {result.blksize}, blocks {result.blocks}"
    return repr(result)


def _bytes(data: bytes) -> str:
    """Bytes and how often each is repeated; of many changes, only the first ones and a hash (FNV-1a) of all."""
    runs = [(byte, len(list(same))) for byte, same in groupby(data)]
    text = "".join(f" {byte:02x}" + (f"*{times}" if times > 1 else "") for byte, times in runs[:MOST_CHANGES])
    if len(runs) <= MOST_CHANGES:
        return text
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{text} ... hash {value:08x}"


def quoted(text: str) -> str:
    """A string of C."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def argument(value: Any, position: str, names: dict[int, str]) -> str:
    """An argument of an operation in C."""
    if isinstance(value, Ref):
        value = names.get(value.number, GONE)
    if position == "address":
        if value is None:
            return "NOWHERE"
        return f"ADDRESS({value}UL)" if isinstance(value, str) and value.startswith("0x") else f"MAPPING({value})"
    if position == "operation":
        return f"file_{value.replace(' ', '_')}"
    if isinstance(value, bytes):
        return "BYTES(" + '"' + "".join(f"\\{byte:03o}" for byte in value) + '")'
    if value is None:
        return "ALL"
    if isinstance(value, int):
        return f"{value}" if value < 10 else f"{value:#x}" + ("UL" if value >= 1 << 31 else "")
    return str(value)


def call(op: Op, names: dict[int, str]) -> str:
    """An operation as a call of C.  Raises :class:`NoForm`."""
    name, given = op.name, op.arguments
    if name == "in_child":
        return f"do_in_child({call(Op(op.number, given[0], given[1:]), names)})"
    if f"do_{name}" not in defined():
        raise NoForm(f"{name} has no C form: leave it out of the program")
    bound = inspect.signature(inspect.unwrap(getattr(Host, name))).bind(None, *given)
    bound.apply_defaults()
    arguments = [argument(value, position, names) for position, value in list(bound.arguments.items())[1:]]
    for file_operation in arguments:
        if file_operation.startswith("file_") and file_operation not in defined():
            raise NoForm(f"{name} {file_operation} has no C form: leave it out of the program")
    return f"do_{name}({', '.join(arguments)})"


def names_of(program: Program) -> dict[int, str]:
    """The variables of results that are used."""
    used = {a.number for op in program for a in op.arguments if isinstance(a, Ref)}
    return {op.number: f"r{n}" for n, op in enumerate(op for op in program if op.number in used)}


def function(name: str, program: Program, expected: Sequence[Step], reported: int = -1, rule: str = "") -> str:
    """A program as a function of C, with the results that are expected; ``rule``: of the operation that is reported.

    That one may not come as is known.  Raises :class:`NoForm`.
    """
    names = names_of(program)
    lines = [f"static void {name}(void)", "{"]
    if names:
        declared = textwrap.wrap(f"long {', '.join(names.values())};", WIDTH, subsequent_indent="     ")
        lines += [*(f"\t{line}" for line in declared), ""]
    for number, (op, step) in enumerate(zip(program, expected, strict=True)):
        known = None if number == reported else _otherwise(op, step)
        kind = "STEP" if known is None else "STEP_KNOWN"
        variable = f"{names[op.number]} = " if op.number in names else ""
        why = step.rule or (rule if number == reported else "")
        rest = [quoted(shown(step.result)), quoted(why), *([] if known is None else [quoted(shown(known))])]
        first, last = f"\t{variable}{kind}({call(op, names)},", f"{', '.join(rest)});"
        lines += [f"{first} {last}"] if len(first) + len(last) < WIDTH else [first, f"\t\t{last}"]
    return "\n".join([*lines, "}"])


def _otherwise(op: Op, step: Step) -> Result | None:
    """What may come as well: a known deviation after which everything is as it was."""
    name = op.arguments[0] if op.name == "in_child" else op.name
    for deviation in DEVIATIONS:
        here = (name, step.rule, step.result) == (deviation.operation, deviation.rule, deviation.expected)
        if here and not deviation.state_differs:
            return deviation.observed
    return None


MAIN = """\
int main(void)
{{
	int code;

	reported = {reported};
	code = run_apart(program, {seconds});
	if (code == AS_EXPECTED)
		printf("the kernel does as expected\\n");
	if (code == DIVERGES)
		printf("the kernel does not do as expected\\n");
	return code;
}}
"""


def source(report: Report, name: str) -> str:
    """The C file, which ``name`` names.  Raises :class:`NoForm`."""
    lines = text(report.program)
    expected = report.expected[report.reported]
    about = [
        *report.title.splitlines(),
        "",
        *lines,
        "",
        f"In        {lines[report.reported]}",
        f"expected  {shown(expected.result)}",
        *([f"rule      {report.rule}"] if report.rule else []),
        *([f"source    {report.source}"] if report.source else []),
        f"came      {shown(report.came)}",
        "",
        *report.where,
        "",
        f"gcc -Wall -o report {name} && ./report",
        "Exit code: 0 the kernel does as expected, 1 it does not, 4 it cannot be tried here.",
    ]
    body = function("program", report.program, report.expected, report.reported, report.rule)
    main = MAIN.format(reported=report.reported, seconds=SECONDS)
    return "\n".join(["// SPDX-License-Identifier: Apache-2.0", *comment(about), assembled(f"{body}\n\n{main}")])


def comment(lines: Iterable[str]) -> Iterator[str]:
    """Lines as a comment of C."""
    yield "/*"
    for line in lines:
        indent = " " * (LABEL if line[:LABEL].endswith(" ") else 4)
        wrapped = textwrap.wrap(line.replace("*/", "* /"), WIDTH, subsequent_indent=indent, break_long_words=False)
        yield from (f" * {part}" for part in wrapped)
        if not wrapped:
            yield " *"
    yield " */"
