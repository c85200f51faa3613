# SPDX-License-Identifier: Apache-2.0
"""Differential fuzzing: equal hosts agree, a wrong one is found out and the program reduced."""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_conform import NoPunchPastEnd, OverlapIsInvalid

from guestmem.cli import main as cli
from guestmem.contract.compare import compare
from guestmem.contract.fuzz import Fuzzer
from guestmem.contract.generate import generate
from guestmem.contract.interface import Missing
from guestmem.contract.kernel.access import Access, Fault
from guestmem.contract.program import Op, Ref, script, text
from guestmem.contract.results import EEXIST, EINVAL, Other, Result
from guestmem.contract.syscalls import vms
from guestmem.contract.syscalls.objects import Vm
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.linux.facts import Facts
from guestmem.linux.process import Worker
from requires import require

PROGRAMS = 120


def fuzzed(model: type[SimulatedHost], kernel: type[SimulatedHost], seed: int = 1) -> Fuzzer:
    """Some programs on two simulated hosts, of which the second stands for the kernel."""
    fuzzer = Fuzzer(seed, model, kernel)
    for number, found in fuzzer.run(600, PROGRAMS, lambda _: None):
        assert fuzzer.divergences[number] == found
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
    later = Fuzzer(7, SimulatedHost, SimulatedHost, first=3)
    assert later.make() == (3, *generate(host, "7.3"))
    assert later.make() == (4, *generate(host, "7.4"))
    later.worker.close()


def test_a_wrong_rule_is_found_and_reduced() -> None:
    fuzzer = fuzzed(SimulatedHost, NoPunchPastEnd)
    divergence = next(d for d in fuzzer.divergences if d.program[-1].name == "fallocate")
    assert len(divergence.program) <= 4
    assert (divergence.expected, divergence.got) == (0, EINVAL)
    report = "\n".join(fuzzer.report({0: "0.py"}))
    assert re.search("divergence, [0-9]+ times: fallocate: the model says 0, Linux ", report)
    assert "    r0 = host.create_vm()" in report
    assert "    saved as 0.py" in report


def test_a_rule_that_a_state_hides_is_reduced() -> None:
    class Forgets(SimulatedHost):
        """Wrong: a slot that is deleted stays bound."""

        class Vms(vms.Vms):
            def delete_slot(self, vm: Vm, number: int) -> int:
                slot = vm.slots.get(number)
                if slot is None or slot.file is None:
                    return super().delete_slot(vm, number)
                del vm.slots[number]
                return 0

    fuzzer = fuzzed(SimulatedHost, Forgets, seed=3)
    bound = next(d for d in fuzzer.divergences if (d.program[-1].name, d.got) == ("set_user_memory_region2", EEXIST))
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
        "host.read_pipe(-1, 0, b'ab')",
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
    monkeypatch.setattr(Fuzzer.__init__, "__defaults__", (SimulatedHost, NoPunchPastEnd, 0))
    assert cli.main(["fuzz", "--programs", str(PROGRAMS), "--seed", "1", "-o", str(tmp_path), "--json"]) == 1
    divergences = json.loads(capsys.readouterr().out)["divergences"]
    assert sorted(str(file) for file in tmp_path.iterdir()) == sorted(one["saved"] for one in divergences)


def test_a_program_that_ends_the_process_is_a_divergence() -> None:
    class Dies(SimulatedHost):
        def create_vcpu(self, vm: Result) -> Result:
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

    fuzzer = Fuzzer(1, SimulatedHost, Dies)
    list(fuzzer.run(600, 5, lambda _: None))
    assert fuzzer.divergences[0].program[0].name == "create_vm"
    assert len(fuzzer.divergences[0].program) == 2
    assert {(d.program[-1].name, d.got) for d in fuzzer.divergences} == {
        ("create_vcpu", Other("the process was ended by SIGKILL"))
    }


def test_a_divergence_that_does_not_recur_is_told_and_not_reduced(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    class Once(SimulatedHost):
        def descriptor_flags(self, fd: Result) -> Result:
            if not mark.exists():
                mark.touch()
                return 77
            return super().descriptor_flags(fd)

    fuzzer = fuzzed(SimulatedHost, Once)
    (divergence,) = fuzzer.divergences
    assert (divergence.got, divergence.recurs) == (77, False)
    assert "times: seen once and not again: descriptor_flags: the model says" in "\n".join(fuzzer.report({}))


def test_a_kernel_that_hangs_takes_no_longer_than_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs(SimulatedHost):
        def vmsplice(self, mapping: Result, offset: int, length: int) -> Result:
            signal.pause()
            return 0

    monkeypatch.setattr("guestmem.contract.fuzz.REDUCING", 1.0)
    monkeypatch.setattr("guestmem.contract.fuzz.AGAIN", 2.0)
    fuzzer = Fuzzer(1, SimulatedHost, Hangs)
    fuzzer.worker.timeout = 2.0
    number, found = next(fuzzer.run(600, None, lambda _: None))
    assert (number, found.program[-1].name, found.got) == (0, "vmsplice", Other("no answer within 2 s"))
    fuzzer.stop()


def test_a_signal_that_only_the_kernels_process_gets_is_no_divergence() -> None:
    class Struck(SimulatedHost):
        def cachestat(self, fd: Result, offset: int, length: int) -> Result:
            if os.getpid().to_bytes(4, "little") == first[:]:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().cachestat(fd, offset, length)

    first = mmap.mmap(-1, 4)
    fuzzer = Fuzzer(1, SimulatedHost, Struck)
    first[:] = fuzzer.worker.child.pid.to_bytes(4, "little")
    list(fuzzer.run(600, 5, lambda _: None))
    assert (fuzzer.divergences, fuzzer.programs) == ([], 5)


def test_a_kernel_that_dies_at_once_cannot_be_fuzzed() -> None:
    class Dies(SimulatedHost):
        def create_vm(self, kind: int = 0) -> Result:
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

    assert Fuzzer(1, SimulatedHost, Dies).unusable == "the process was ended by SIGKILL"


def test_a_script_is_compared_with_a_model_that_has_what_the_kernel_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Older(OverlapIsInvalid):
        facts = Facts(flags=1, files=(0, 1), bindable=(0, 1), gpa_bits=46)

    def program(host: Any) -> None:
        vm = host.create_vm()
        host.check_extension(vm, 244)
        host.set_user_memory_region(vm, 0, 0, 1 << 47, 4096)
        file = host.create_guest_memfd(vm, 4096, 1)
        host.set_user_memory_region2(vm, 0, 4, 0, 4096, None, file, 0)
        host.set_user_memory_region2(vm, 1, 4, 4096, 4096, None, file, 0)

    monkeypatch.setattr("guestmem.contract.compare.no_kernel", lambda: "")
    monkeypatch.setattr("guestmem.contract.compare.kernel_host", Older)
    assert compare(program) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in lines[1:5]] == ["1", "EINVAL", "1", "0"]
    assert "model EEXIST, kernel EINVAL (known: a range of a file" in lines[5]


def test_to_stop_it_ends_with_what_was_found() -> None:
    fuzzer = Fuzzer(1, SimulatedHost, NoPunchPastEnd)
    for _ in fuzzer.run(600, None, lambda _: None):
        fuzzer.stop()
    assert fuzzer.divergences[0].got == EINVAL
    assert fuzzer.divergences[0].recurs


def test_a_signal_ends_it_with_a_report(tmp_path: Path) -> None:
    require("kvm")
    for number in (signal.SIGINT, signal.SIGTERM):
        argv = [sys.executable, "-m", "guestmem", "fuzz", "--seconds", "60", "-o", str(tmp_path)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as fuzz:
            time.sleep(2)
            fuzz.send_signal(number)
            said, complaint = fuzz.communicate(timeout=60)
        assert (fuzz.returncode, complaint) == (3, "")
        assert re.search(r"^stopped: go on with --seed 0 --first [1-9][0-9]*\nno unexplained divergence$", said, re.M)


def heed() -> None:
    """Signals end this process, whatever the tests were started with."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_kernel_without_guest_memfd_is_skipped(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(SimulatedHost):
        facts = Facts(files=(), bindable=())

    monkeypatch.setattr("guestmem.contract.conform.no_kernel", lambda: "")
    monkeypatch.setattr(Fuzzer.__init__, "__defaults__", (SimulatedHost, Without, 0))
    assert cli.main(["fuzz"]) == 4
    assert capsys.readouterr().err == "guestmem: skipped: needs guest_memfd: KVM makes no file of it\n"


def test_who_may_not_lock_memory_fuzzes_the_rest() -> None:
    class MayNot(SimulatedHost):
        def mlock(self, mapping: Result, offset: int, length: int) -> Result:
            raise Missing("locked memory: CAP_IPC_LOCK")

    fuzzer = fuzzed(SimulatedHost, MayNot)
    assert (fuzzer.divergences, fuzzer.missing) == ([], {"mlock": "locked memory: CAP_IPC_LOCK"})
    assert fuzzer.performed["mlock"] == 0
    assert fuzzer.performed["mmap"] > PROGRAMS


def test_a_script_says_which_operation_ended_the_kernels_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dies(SimulatedHost):
        def create_vcpu(self, vm: Result) -> Result:
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

    def program(host: Any) -> None:
        vm = host.create_vm()
        host.fstat(vm)
        host.create_vcpu(vm)
        host.create_vm()

    monkeypatch.setattr("guestmem.contract.compare.no_kernel", lambda: "")
    monkeypatch.setattr("guestmem.contract.compare.kernel_host", Dies)
    assert compare(program) == 1
    assert capsys.readouterr().out.splitlines() == [
        "create_vm(): 0",
        "fstat(0): not modelled: fstat of what is no guest memory",
        "create_vcpu(0): model 1, kernel the process was ended by SIGKILL",
    ]


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
