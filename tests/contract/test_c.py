# SPDX-License-Identifier: Apache-2.0
"""Programs as C files: they compile, and print on this kernel what the host in Python gives."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_conform import NoPunchPastEnd

from guestmem.cli import main as cli
from guestmem.contract.c.parts import assembled, defined
from guestmem.contract.c.reports import of_deviation, of_divergence
from guestmem.contract.c.write import NoForm, Report, call, function, names_of, shown, source
from guestmem.contract.conform import kernel_host
from guestmem.contract.deviations import DEVIATIONS
from guestmem.contract.fuzz import Fuzzer
from guestmem.contract.generate import generate
from guestmem.contract.minimise import Divergence
from guestmem.contract.operations import FILE_OPERATIONS, OPERATIONS
from guestmem.contract.program import Op, Program, Ref, Step, look_around, parsed, perform
from guestmem.contract.results import EINVAL
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.linux.process import Worker
from requires import require

PROGRAMS = 60


def compiled(text: str, place: Path) -> Path:
    """A C file, compiled."""
    (place / "report.c").write_text(text)
    argv = ["gcc", "-Wall", "-Werror", "-o", str(place / "report"), str(place / "report.c")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return place / "report"


def run(binary: Path) -> tuple[int, str]:
    """The exit code of a program and what it prints."""
    done = subprocess.run([binary], capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def differing(program: Program, steps: Sequence[Step], printed: str) -> list[tuple[str, str]]:
    """Where the printed results are others: what should be printed, and what is; up to what the machine lacks."""
    names = names_of(program)
    lines = printed.splitlines()
    found = []
    for number, (op, step) in enumerate(zip(program, steps, strict=True)):
        line = lines[number] if number < len(lines) else "nothing"
        said = re.sub(r"\bdo_", "", call(op, names))
        if line.startswith(f"{said}: cannot be tried here: needs "):
            break
        came = f"{said}: {shown(step.result)}, "
        if not line.startswith((came + "as expected", came + "expected ", came + "as is known")):
            found.append((came, line))
    return found


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: deviation.rows[0])
def test_a_known_deviation_is_a_c_file_that_says_what_the_kernel_does(deviation: Any, tmp_path: Path) -> None:
    require("kvm", "gcc")
    report = of_deviation(deviation)
    code, printed = run(compiled(source(report, "report.c"), tmp_path))
    with Worker(kernel_host, perform) as worker:
        steps = worker.do(report.program)
    *lines, verdict = printed.splitlines()
    if code == 4:
        pytest.skip(verdict)
    assert differing(report.program, steps, printed) == []
    same = all(ours.result == theirs.result for ours, theirs in zip(report.expected, steps, strict=True))
    assert (code, verdict) == ((0, "the kernel does as expected") if same else (1, "the kernel does not do as expected"))
    assert report.rule in lines[report.reported]


def test_random_programs_print_what_the_host_in_python_gives(tmp_path: Path) -> None:
    require("kvm", "gcc")
    model = SimulatedHost()
    with Worker(kernel_host, perform) as worker:
        around = look_around(kernel_host)
        model.resemble(around.facts)
        if around.unusable:
            pytest.skip(around.unusable)
        made = [generate(model, f"c.{number}", around.missing) for number in range(PROGRAMS)]
        functions = "\n\n".join(function(f"program_{n}", *one) for n, one in enumerate(made))
        calls = "".join(f'\tprintf("program {n}\\n");\n\trun_apart(program_{n}, 60);\n' for n in range(PROGRAMS))
        text = assembled(f"{functions}\n\nint main(void)\n{{\n{calls}\treturn 0;\n}}\n")
        _, printed = run(compiled(text, tmp_path))
        each = re.split(r"^program \d+\n", printed, flags=re.M)[1:]
        for (program, _), lines in zip(made, each, strict=True):
            assert differing(program, worker.do(program), lines) == []
    assert sum(len(program) for program, _ in made) > 50 * PROGRAMS


def test_the_rest_prints_what_the_host_in_python_gives(tmp_path: Path) -> None:
    """Operations that no random program has, and bytes that change often."""
    require("kvm", "gcc")
    data = bytes(range(40)) + b'\\"?'
    program = parsed(
        f"""
vm = host.create_vm()
file = host.create_guest_memfd(vm, 0x1000, 3)
mapping = host.mmap(file, 0x1000, 3, 1, 0)
host.process_vm_writev(mapping, 8, {data!r})
host.process_vm_readv(mapping, 0, 0x1000)
host.in_child("close", mapping)
host.munmap(mapping)
host.load(mapping, 0)
host.set_memory_attributes(file, 0, 0x1000, 0, 0)
host.file_operation(file, "execveat")
host.file_operation(file, "linkat")
host.memfd_secret(0)
host.memfd_secret(4)
"""
    )
    with Worker(kernel_host, perform) as worker:
        steps = worker.do(program)
    text = assembled(f"{function('program', program, steps)}\n\nint main(void)\n{{\n\treturn run_apart(program, 60);\n}}\n")
    code, printed = run(compiled(text, tmp_path))
    assert (code in (0, 4), differing(program, steps, printed)) == (True, [])
    assert " ... hash " in printed or not isinstance(steps[1].result, int)


def test_every_operation_of_random_programs_has_a_c_form() -> None:
    missing = [name for name, operation in OPERATIONS.items() if operation.weight and f"do_{name}" not in defined()]
    missing += [name for name in FILE_OPERATIONS if f"file_{name.replace(' ', '_')}" not in defined()]
    assert missing == []


def test_what_has_no_c_form_is_said() -> None:
    with pytest.raises(NoForm, match=r"^allocate_limited has no C form: leave it out of the program$"):
        call(Op(0, "allocate_limited", (1, 2)), {})
    with pytest.raises(NoForm, match=r"^file_operation file_sing has no C form"):
        call(Op(1, "file_operation", (Ref(0), "sing")), {})


def closed_file(expected: Sequence[Step]) -> Report:
    """A report on a hole in a file that is not open, after a VM, with these results expected."""
    program = [Op(0, "create_vm", ()), Op(1, "fallocate", (Ref(9), 3, 0, 4096))]
    return of_deviation(DEVIATIONS[0], ["nowhere"])._replace(program=program, expected=expected, reported=1)


def test_the_exit_code_says_whether_the_kernel_does_as_expected(tmp_path: Path) -> None:
    require("kvm", "gcc")
    steps = perform(SimulatedHost(), closed_file([]).program)
    assert run(compiled(source(closed_file(steps), "x.c"), tmp_path))[0] == 0
    wrong = [steps[0], Step(EINVAL, "a rule of the test's")]
    code, printed = run(compiled(source(closed_file(wrong), "x.c"), tmp_path))
    assert (code, "EBADF, expected EINVAL: a rule of the test's\n" in printed) == (1, True)
    elsewhere = [Step(EINVAL, ""), steps[1]]
    code, printed = run(compiled(source(closed_file(elsewhere), "x.c"), tmp_path))
    assert (code, printed.splitlines()[-1].startswith("cannot be tried here: ")) == (4, True)
    text = source(closed_file(steps), "x.c").replace('"/dev/kvm", O_RDWR', '"/dev/no-kvm", O_RDWR')
    assert run(compiled(text, tmp_path)) == (4, "create_vm(0): cannot be tried here: needs /dev/kvm\n")


def test_an_operation_that_ends_the_process_is_told(tmp_path: Path) -> None:
    require("kvm", "gcc")
    text = source(closed_file(perform(SimulatedHost(), closed_file([]).program)), "x.c")
    binary = compiled(text.replace("return zero(fallocate(", "raise(SIGKILL);\n\treturn zero(fallocate("), tmp_path)
    said = ["the process was ended by signal 9", "the kernel does not do as expected"]
    code, printed = run(binary)
    assert (code, printed.splitlines()[-2:]) == (1, ["fallocate(-1, 3, 0, 0x1000): " + said[0], said[1]])


def test_a_divergence_is_written_as_c(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("guestmem.contract.conform.no_kernel", lambda: "")
    monkeypatch.setattr(Fuzzer.__init__, "__defaults__", (SimulatedHost, NoPunchPastEnd, 0))
    file = tmp_path / "report.c"
    assert cli.main(["fuzz", "--programs", "120", "--seed", "1", "-o", str(tmp_path), "--c", str(file)]) == 1
    assert f"divergence 0 as C: {file}\n" in capsys.readouterr().out
    text = file.read_text()
    head = text.partition("*/")[0]
    assert "fallocate: the model says 0" in head
    assert "came      EINVAL" in head
    assert "VM type 0" in head
    assert "gcc -Wall -o report report.c && ./report" in head
    assert re.search(r'STEP\(do_fallocate\(r1, 3, 0x\w+, 0x\w+\), "0", ""\);\n}', text)
    assert "file_read" not in text
    assert cli.main(["fuzz", "--c", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_deviations_that_are_met_are_written_as_c(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["conform", "--backend", "model", "concurrency", "--c", str(tmp_path)]) == 0
    assert "no known deviation was met" in capsys.readouterr().err
    require("kvm")
    cli.main(["conform", "--backend", "kernel", "mapping", "--json", "--c", str(tmp_path)])
    said = capsys.readouterr().err
    for file in tmp_path.iterdir():
        assert f"guestmem: {file}: " in said


def test_a_head_says_where_it_was_seen_and_has_one_end() -> None:
    program = [Op(0, "create_vm", (99,))]
    text = source(of_divergence(Divergence(program, 0, EINVAL, "a rule with */ in it"), SimulatedHost()), "x.c")
    head = text.partition("*/")[0]
    assert "a rule with * / in it" in head
    assert " * Linux " in head
    assert " * VM type 99\n" in head
    assert head.endswith("it cannot be tried here.\n ")
