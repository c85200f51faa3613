# SPDX-License-Identifier: Apache-2.0
"""Differential fuzzing: equal hosts agree, a wrong one is found out and the program reduced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guestmem import cli
from guestmem.contract.fuzz import Fuzzer
from guestmem.contract.generate import generate
from guestmem.contract.host import Result
from guestmem.contract.kernel.access import Access, Fault
from guestmem.contract.kernel.worker import Worker
from guestmem.contract.program import Op, Ref, script, text
from guestmem.contract.simulated.host import SimulatedHost
from requires import require
from test_contract_conform import NoPunchPastEnd

PROGRAMS = 120


def fuzzed(model: type[SimulatedHost], kernel: type[SimulatedHost], seed: int = 1) -> Fuzzer:
    """Some programs on two simulated hosts, of which the second stands for the kernel."""
    fuzzer = Fuzzer(seed, model, kernel)
    assert list(fuzzer.run(600, PROGRAMS, lambda _: None)) == fuzzer.divergences
    return fuzzer


def test_a_host_agrees_with_itself() -> None:
    fuzzer = fuzzed(SimulatedHost, SimulatedHost)
    assert fuzzer.divergences == []
    assert fuzzer.programs == PROGRAMS
    assert fuzzer.operations > 50 * PROGRAMS
    succeeded = {name for name in fuzzer.performed if fuzzer.performed[name] > 5}
    assert {"fallocate", "load", "guest_store", "vmsplice", "in_child", "set_user_memory_region2"} <= succeeded
    assert {"EINVAL", "EEXIST", "EFAULT", "SIGBUS", "SIGSEGV", "ENODEV"} <= set(fuzzer.failures)


def test_a_seed_gives_the_same_programs() -> None:
    host = SimulatedHost()
    assert generate(host, "7.3") == generate(host, "7.3") == generate(SimulatedHost(), "7.3")
    assert generate(host, "7.3") != generate(host, "7.4")


def test_a_wrong_rule_is_found_and_reduced() -> None:
    fuzzer = fuzzed(SimulatedHost, NoPunchPastEnd)
    divergence = next(d for d in fuzzer.divergences if d.program[-1].name == "fallocate")
    assert len(divergence.program) <= 4
    assert (divergence.expected, divergence.got) == (0, "EINVAL")
    names = [f"{n}.py" for n in range(len(fuzzer.divergences))]
    report = "\n".join(fuzzer.report(names))
    assert "divergence: fallocate: the model says 0, Linux " in report
    assert "    r0 = host.create_vm()" in report
    assert "    saved as 0.py" in report


def test_a_rule_that_a_state_hides_is_reduced() -> None:
    class Forgets(SimulatedHost):
        """Wrong: a slot that is deleted stays bound."""

        def delete_slot(self, vm: object, number: int) -> int:
            slot = vm.slots.get(number)  # type: ignore[attr-defined]
            if slot is not None and slot.file is not None:
                del vm.slots[number]  # type: ignore[attr-defined]
                return 0
            return super().delete_slot(vm, number)  # type: ignore[arg-type]

    fuzzer = fuzzed(SimulatedHost, Forgets, seed=3)
    bound = next(d for d in fuzzer.divergences if (d.program[-1].name, d.got) == ("set_user_memory_region2", "EEXIST"))
    assert len(bound.program) <= 6


def test_this_kernel_agrees_but_for_known_deviations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("kvm")
    assert cli.main(["fuzz", "--programs", "150", "--seed", "3", "-o", str(tmp_path), "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["divergences"] == []
    assert outcome["programs"] == 150
    assert list(tmp_path.iterdir()) == []


def test_a_saved_divergence_runs(tmp_path: Path) -> None:
    program = [
        Op(0, "create_vm", ()),
        Op(1, "create_guest_memfd", (Ref(0), 0x1000, 3)),
        Op(4, "fallocate", (Ref(1), 3, 0x1000, 0x1000)),
        Op(5, "read_pipe", (Ref(9), 0, b"ab")),
    ]
    assert text(program) == [
        "r0 = host.create_vm()",
        "r1 = host.create_guest_memfd(r0, 0x1000, 3)",
        "host.fallocate(r1, 3, 0x1000, 0x1000)",
        "host.read_pipe('no such operation', 0, b'ab')",
    ]
    file = tmp_path / "divergence.py"
    file.write_text(script(program, 'the model says "0"', file.name))
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 4), done.stderr
    assert done.stdout.splitlines()[2].startswith("fallocate(1, 3, 0x1000, 0x1000): ")


def test_divergences_are_saved_as_they_are_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("guestmem.contract.conform.no_kernel", lambda: "")
    monkeypatch.setattr(Fuzzer.__init__, "__defaults__", (SimulatedHost, NoPunchPastEnd))
    assert cli.main(["fuzz", "--programs", str(PROGRAMS), "--seed", "1", "-o", str(tmp_path), "--json"]) == 1
    divergences = json.loads(capsys.readouterr().out)["divergences"]
    assert sorted(str(file) for file in tmp_path.iterdir()) == sorted(one["saved"] for one in divergences)


def test_a_program_that_ends_the_process_is_a_divergence() -> None:
    class Dies(SimulatedHost):
        def create_vcpu(self, vm: Result) -> Result:
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

    fuzzer = Fuzzer(1, SimulatedHost, Dies)
    assert list(fuzzer.run(600, 5, lambda _: None)) == fuzzer.divergences
    assert fuzzer.divergences[0].program[0].name == "create_vm"
    assert len(fuzzer.divergences[0].program) == 2
    assert {(d.program[-1].name, d.got) for d in fuzzer.divergences} == {("create_vcpu", "the process was ended by SIGKILL")}


@pytest.mark.parametrize("in_children", [False, True])
def test_an_access_is_answered_by_a_signal_and_the_process_goes_on(in_children: bool) -> None:
    def work(access: Access, _: None) -> list[int | Fault]:
        from guestmem.linux import calls

        there = calls.mmap(0, 8192, 3, 0x21)
        calls.mprotect(there + 4096, 4096, 0)
        return [
            access.load(there),
            access.store(there, 200),
            access.load(there),
            access.load(0x1234),
            access.store(there + 4096 + 77, 1),
        ]

    with Worker(lambda: Access(in_children), work) as worker:
        zero, stored, loaded, nowhere, forbidden = worker.do(None)
    assert (zero, stored, loaded) == (0, 0, 200)
    assert (nowhere.signal, nowhere.address) == (signal.SIGSEGV, 0x1234)
    assert forbidden.signal == signal.SIGSEGV
    assert forbidden.address % 4096 == 77
