# SPDX-License-Identifier: Apache-2.0
"""The contract on both hosts: what holds, what is said when it does not, and what is left behind."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guestmem.cli import main as cli
from guestmem.contract import conform
from guestmem.contract.interface import Host, Missing
from guestmem.contract.kernel import cgroup
from guestmem.contract.kernel.files import PERFORM
from guestmem.contract.operations import FILE_OPERATIONS, IN_CHILD, OPERATIONS
from guestmem.contract.results import EEXIST, EFAULT, EINVAL, Denied, Errno, Failure, Other, Result, Signal, failed
from guestmem.contract.rows import GROUPS, Mismatch, expect, rows
from guestmem.contract.syscalls import files, task, vms
from guestmem.contract.syscalls.files import aligned
from guestmem.contract.syscalls.objects import Gmem, Open, Slot
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.model import World
from guestmem.model import require as require_rule
from requires import require
from twins import Twin


class NoPunchPastEnd(SimulatedHost):
    """Wrong in one rule: a hole has to begin inside the file."""

    class Files(files.Files):
        def vfs_fallocate(self, file: Open, mode: int, offset: int, length: int) -> int:
            inside = not isinstance(file, Gmem) or not file.size <= offset < (1 << 62)
            if mode == 3 and not inside and length > 0 and aligned(offset, length):
                raise Denied(EINVAL, "a hole begins inside the file")
            return super().vfs_fallocate(file, mode, offset, length)


class OverlapIsInvalid(SimulatedHost):
    """As before 7.2: a range of a file that another slot has is refused with EINVAL."""

    class Vms(vms.Vms):
        def may_bind(self, slot: Slot) -> None:
            try:
                super().may_bind(slot)
            except Denied as denied:
                raise Denied(EINVAL if denied.failure == EEXIST else denied.failure, denied.rule) from None


class NoSecretmem(SimulatedHost):
    """A machine without secret memory."""

    def memfd_secret(self, flags: int) -> Result:
        raise Missing("memfd_secret: ENOSYS")


def results(outcomes: list[conform.Outcome]) -> dict[str, int]:
    """How many there are of each result."""
    return {result: sum(o.result == result for o in outcomes) for result in ("pass", "fail", "xfail", "xpass", "skip")}


def outcomes_of(backend: str) -> list[conform.Outcome]:
    planned, coming = conform.run([backend], [])
    outcomes = list(coming)
    assert len(outcomes) == planned == len(rows())
    return outcomes


def test_there_are_enough_rows_in_every_group() -> None:
    names = [row.name for row in rows()]
    assert len(names) == len(set(names)) >= 400
    assert {row.group for row in rows()} == set(GROUPS)
    assert all(row.rule and row.source for row in rows())
    assert not any("#" in name or "\n" in name for name in names)


def test_the_model_keeps_the_contract() -> None:
    outcomes = outcomes_of("model")
    assert [o for o in outcomes if o.result != "pass"] == []
    assert conform.exit_code(outcomes) == 0


def test_this_kernel_keeps_the_contract_but_for_known_deviations() -> None:
    require("kvm")
    outcomes = outcomes_of("kernel")
    assert [o for o in outcomes if o.result in ("fail", "xpass")] == []
    assert conform.exit_code(outcomes) == 0


def test_a_wrong_host_is_caught_and_told_the_rule_and_the_source() -> None:
    outcomes = list(conform.run_model(rows(), NoPunchPastEnd))
    failed = [o for o in outcomes if o.result == "fail"]
    assert {o.name.rpartition(".")[0] for o in failed} == {
        "fallocate.test_punch_hole_past_end",
        "fallocate.test_times_change",
        "huge_pages",
        "preservation.test_frozen",
        "stage2.test_punch_hole",
    }
    reason = next(o.reason for o in failed if o.name == "fallocate.test_punch_hole_past_end.at the end")
    assert reason.startswith("expected 0, got EINVAL; rule: a hole may be anywhere, past the end as well; source: tools/testing/")
    assert conform.exit_code(outcomes) == 1


def test_a_deviation_nobody_knows_fails_on_the_kernel_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conform, "no_kernel", lambda: "")
    outcomes = list(conform.run_kernel(rows("fallocate"), NoPunchPastEnd))
    assert results(outcomes)["fail"] == 3
    line = next(line for line in conform.ktap(len(outcomes), outcomes) if line.startswith("# expected 0"))
    assert "rule: a hole may be anywhere" in line
    assert "source: tools/testing/selftests/kvm/guest_memfd_test.c" in line


def test_a_known_deviation_is_listed_with_its_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conform, "no_kernel", lambda: "")
    outcomes = list(conform.run_kernel(rows("memslot"), OverlapIsInvalid))
    assert results(outcomes) == {"pass": len(outcomes) - 7, "fail": 0, "xfail": 7, "xpass": 0, "skip": 0}
    assert conform.exit_code(outcomes) == 0
    printed = "\n".join(conform.summary(outcomes))
    assert "known deviations:" in printed
    assert "EINVAL instead of EEXIST (before 7.2, seen on 6.18; virt/kvm/guest_memfd.c" in printed
    # The model is held to the contract itself.
    assert results(list(conform.run_model(rows("memslot"), OverlapIsInvalid)))["fail"] == 7


def test_without_kvm_the_kernel_is_skipped_and_the_model_passes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conform, "no_kernel", lambda: "needs /dev/kvm: No such file or directory")
    assert cli.main(["conform", "creation", "--json"]) == 4
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["schema"] == 1
    assert outcome["environment"]["kernel"]
    by = {(r["backend"], r["result"], r["reason"]) for r in outcome["results"]}
    assert by == {("model", "pass", ""), ("kernel", "skip", "needs /dev/kvm: No such file or directory")}
    assert cli.main(["conform", "creation", "--backend", "model"]) == 0
    capsys.readouterr()
    assert cli.main(["fuzz"]) == 4
    assert capsys.readouterr().err == "guestmem: skipped: needs /dev/kvm: No such file or directory\n"


def test_what_a_machine_lacks_is_a_skip_with_a_reason() -> None:
    outcomes = list(conform.run_model(rows("secretmem", "creation"), NoSecretmem))
    assert {(o.result, o.reason) for o in outcomes if o.name.startswith("secretmem.")} == {("skip", "needs memfd_secret: ENOSYS")}
    assert conform.exit_code(outcomes) == 0
    assert any(line.endswith("# SKIP needs memfd_secret: ENOSYS") for line in conform.ktap(len(outcomes), outcomes))


WRONG: dict[str, tuple[Callable[..., Any], str, str, str]] = {
    "fault without the lock": (GuestMemfd.fault, "with self.mapping.invalidate_lock.shared:", "if True:", "concurrency"),
    "guest_fault without the lock": (
        GuestMemfd.guest_fault,
        "with self.mapping.invalidate_lock.shared:",
        "if True:",
        "concurrency",
    ),
    "pages leak": (GuestMemfd.discard, "folio_put_refs(self.kernel, folio, 1 << folio.order)", "pass", "concurrency"),
    "not zeroed": (GuestMemfd.grab_folio, "if not folio.uptodate:", "if False:", "zeroing"),
    "bound twice": (GuestMemfd.may_bind, "return -EEXIST", "return 0", "memslot"),
    "signals ignored": (GuestMemfd.allocate, "err = -EINTR", "pass", "limits"),
    "the host's own data is given": (
        GuestMemfd.initialise,
        "kernel_store(self.kernel, cpu, self.kernel.machine.frames[pfn], Content.ZERO)",
        "kernel_store(self.kernel, cpu, self.kernel.machine.frames[pfn], Content.HOST)",
        "concurrency",
    ),
    "a hole of a preserved file is filled": (GuestMemfd.grab_folio, "return -EPERM, None", "pass", "preservation"),
    "a huge page is shared in part and not split": (GuestMemfd.make_shared, "err = self.split(pgoff)", "err = 0", "huge_pages"),
    "user pages stay mapped": (GuestMemfd.discard, "unmap_mapping_page(self.mapping, pgoff)", "pass", "zeroing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_library_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of the library is wrong, as in the bad twins of the checker."""
    method, good, bad, group = WRONG[name]
    wrong = Twin("Wrong", World, method, good, bad, "").wrong(GuestMemfd)
    monkeypatch.setattr(GuestMemfd, method.__name__, vars(wrong)[method.__name__])
    assert "fail" in {outcome.result for outcome in conform.run_model(rows(group), SimulatedHost)}


def test_a_row_that_breaks_a_rule_of_the_model_fails_and_the_next_has_a_new_machine() -> None:
    class Breaks(SimulatedHost):
        class Task(task.Task):
            def dup(self, fd: Result) -> Result:
                with self.kernel.running():
                    self.kernel.world.files[0].mapping.invalidate_lock.down_write()
                    require_rule(False, "a rule of the model")
                return 0

    outcomes = {o.name: o for o in conform.run_model(rows("lifetime", "fallocate"), Breaks)}
    failed = {name for name, o in outcomes.items() if o.result == "fail"}
    assert "lifetime.test_dup" in {name.partition(".test_dup")[0] + ".test_dup" for name in failed if "dup" in name}
    assert all(outcome.result == "pass" for name, outcome in outcomes.items() if name.startswith("fallocate."))
    assert "the model breaks a rule: a rule of the model" in next(o.reason for o in outcomes.values() if o.result == "fail")


class BreaksARule(SimulatedHost):
    """Every binding and every fallocate breaks a rule of the model."""

    class Files(files.Files):
        def vfs_fallocate(self, file: Open, mode: int, offset: int, length: int) -> int:
            with self.kernel.running():
                require_rule(False, "a rule of the model")
            return 0

    class Vms(vms.Vms):
        def address(self, address: Result | str | None, size: int) -> int:
            with self.kernel.running():
                require_rule(False, "a rule of the model")
            return 0


def test_operations_that_are_made_of_others_keep_the_broken_rule() -> None:
    broken = Other("the model breaks a rule: a rule of the model")
    host = BreaksARule()
    vm = host.create_vm()
    assert host.set_user_memory_region(vm, 0, 0, 0, 0x1000) == broken
    assert host.fallocate_signalled(host.create_guest_memfd(vm, 1 << 20, 0), 1 << 20) == broken
    assert host.fallocate(1, 3, 0, 0x1000) == broken
    assert host.rule == ""


def test_the_table_of_operations_is_of_those_that_are_declared_and_performed() -> None:
    declared = [name for name, value in vars(Host).items() if hasattr(value, "__wrapped__")]
    assert sorted(OPERATIONS) == sorted(declared)
    assert set(IN_CHILD) <= OPERATIONS.keys()
    assert PERFORM.keys() == FILE_OPERATIONS.keys()


def test_a_host_that_lacks_an_operation_or_has_two_of_a_name_does_not_begin() -> None:
    host = SimulatedHost()
    with pytest.raises(TypeError, match="create_vm is performed by 0 parts of the host: let one have it"):
        host.consist(host.files)
    with pytest.raises(TypeError, match="create_vm is performed by 2 parts of the host: let one have it"):
        host.consist(host.vms, host.vms)


def test_results_are_values() -> None:
    assert Errno(22) == EINVAL
    assert failed(EINVAL) and not failed(EINVAL.code)
    assert [EINVAL, Signal("SIGBUS", 5)] == [Errno(22), Signal("SIGBUS", 5)] != [EINVAL, Signal("SIGBUS", 6)]
    unlike: list[Failure] = [Other("EINVAL"), EINVAL, Errno(22, 0)]
    assert len(set(unlike)) == 3
    shown = [EINVAL, Errno(11, 0x2000), Signal("SIGKILL"), Signal("SIGSEGV", -8), Other("no mapping"), Errno(524)]
    assert repr(shown) == "[EINVAL, EAGAIN +0x2000, SIGKILL, SIGSEGV -0x8, no mapping, errno 524]"
    assert pickle.loads(pickle.dumps(shown)) == shown
    assert [result.kind for result in shown[1:4]] == ["EAGAIN", "SIGKILL", "SIGSEGV"]


def test_lists_of_results_are_compared() -> None:
    with pytest.raises(Mismatch, match=re.escape("expected [1, EFAULT], got [1, 0]")):
        expect([1, 0], [1, EFAULT])


def test_an_interrupted_run_says_what_was_done(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Stops(SimulatedHost):
        def memfd_create(self, size: int) -> Result:
            raise KeyboardInterrupt

    monkeypatch.setattr("guestmem.contract.syscalls.simulated_host.SimulatedHost", Stops)
    assert cli.main(["conform", "creation", "--backend", "model", "--ktap"]) == 3
    out, err = capsys.readouterr()
    done = out.count("\nok ")
    assert done > 10
    assert err == f"guestmem: interrupted after {done} of {len(rows('creation'))} rows\n"


def test_a_host_that_dies_costs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dies(SimulatedHost):
        def memfd_create(self, size: int) -> Result:
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

    monkeypatch.setattr(conform, "no_kernel", lambda: "")
    outcomes = list(conform.run_kernel(rows("creation"), Dies))
    failed = [o for o in outcomes if o.result == "fail"]
    assert [o.name for o in failed] == ["creation.test_create_on_memfd"]
    assert failed[0].reason.startswith("the process was ended by SIGKILL; rule: only a VM makes files of guest memory")


def test_ktap() -> None:
    outcomes = [
        conform.Outcome("g.test_a", "model", "pass", ""),
        conform.Outcome("g.test_b b", "kernel", "fail", "expected 0, got 1"),
        conform.Outcome("g.test_c", "kernel", "xfail", "known"),
        conform.Outcome("g.test_d", "kernel", "skip", "needs root"),
    ]
    assert list(conform.ktap(len(outcomes), outcomes)) == [
        "KTAP version 1",
        "1..4",
        "ok 1 model.g.test_a",
        "# expected 0, got 1",
        "not ok 2 kernel.g.test_b_b",
        "# known",
        "ok 3 kernel.g.test_c # XFAIL known deviation",
        "ok 4 kernel.g.test_d # SKIP needs root",
        "# Totals: pass:1 fail:1 xfail:1 xpass:0 skip:1 error:0",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["conform", "nothing"], "'nothing' is no group: use some of creation, file_operations"),
        (["conform", "--backend", "xen"], "invalid choice: 'xen'"),
        (["conform", "--ktap", "--json"], "not allowed with argument --ktap"),
        (["fuzz", "--seconds", "0"], "'0' is no number above 0"),
        (["fuzz", "--seed", "x"], "invalid int value: 'x'"),
        (["fuzz", "--programs", "0.5"], "'0.5' is no number of at least 1"),
        (["fuzz", "-o", "/nonexistent"], "there is no directory /nonexistent: make it, or choose another place with -o"),
        (["fuzz", "-o", "/proc"], "cannot be written: No such file or directory: choose another place with -o"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


def descendants(pid: int) -> list[int]:
    """The processes below one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(entry.name), *descendants(int(entry.name))]
    return found


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_kill_leaves_no_process(tmp_path: Path) -> None:
    require("kvm")
    command = [sys.executable, "-m", "guestmem", "fuzz", "--seconds", "60", "-o", str(tmp_path)]
    with subprocess.Popen(command) as fuzz:
        while not (below := descendants(fuzz.pid)):
            assert fuzz.poll() is None
            time.sleep(0.02)
        fuzz.kill()
    for _ in range(500):
        if all(gone(pid) for pid in below):
            break
        time.sleep(0.02)
    assert [pid for pid in below if not gone(pid)] == []
    assert list(tmp_path.iterdir()) == []


def test_a_cgroup_that_was_left_is_removed_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    require("root")
    try:
        where, _ = cgroup.parent()
        left = where / "guestmem-999999999"
        left.mkdir()
    except (Missing, OSError) as error:
        pytest.skip(f"no memory cgroup: {error}")
    assert cli.main(["conform", "creation", "--backend", "model"]) == 0
    assert capsys.readouterr().err == f"guestmem: removed {left}, left by a run that was killed\n"
    assert not left.exists()
