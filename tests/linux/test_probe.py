# SPDX-License-Identifier: Apache-2.0
"""``guestmem probe`` and ``guestmem calibrate``: what they find, with and without /dev/kvm."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guestmem.cli import main as cli
from guestmem.contract.rows import GROUPS
from guestmem.linux import calibrate, kvm
from guestmem.linux.probe import tried
from requires import missing, require


def probed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert cli.main(["probe", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    return found


def why_not(found: dict[str, Any]) -> dict[str, str]:
    return {row["what"]: row["why"] for row in found["testable"] if not row["testable"]}


def test_it_names_the_kernel_and_what_can_be_tested(capsys: pytest.CaptureFixture[str]) -> None:
    require("kvm")
    found = probed(capsys)
    assert found["kernel"]["release"] == os.uname().release
    kvm = found["kvm"]
    assert (kvm["usable"], kvm["api_version"], kvm["vm_types"]["DEFAULT"]) == (True, 12, "ok")
    flags = kvm["guest_memfd"]["flags"]
    advertised = kvm["capabilities"]["GUEST_MEMFD_FLAGS"]
    assert [flags["MMAP"] == "ok", flags["INIT_SHARED"] == "ok"] == [bool(advertised & 1), bool(advertised & 2)]
    assert "creation" not in why_not(found)
    assert GROUPS.keys() <= {row["what"] for row in found["testable"]}
    assert cli.main(["probe"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"kernel         {os.uname().release}")
    for why in why_not(found).values():
        assert why in said


def test_without_kvm_it_says_what_kvm_would_add(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm.Kvm.__init__, "__defaults__", ("/nowhere/kvm",))
    found = probed(capsys)
    assert found["kvm"] == {"usable": False, "why": "open(path=/nowhere/kvm, flags=0x80002): ENOENT: No such file or directory"}
    assert why_not(found)["creation"] == found["kvm"]["why"]
    assert found["would_add"][0].startswith("/dev/kvm: guest_memfd, memory slots")
    assert cli.main(["probe"]) == 0
    assert "would add      /dev/kvm: " in capsys.readouterr().out


def test_without_root_it_says_what_root_would_add() -> None:
    require("nobody")
    argv = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-m", "guestmem", "probe"]
    run = subprocess.run(argv, capture_output=True, text=True, cwd="/")
    assert (run.returncode, run.stderr) == (0, "")
    assert "would add      root: recording" in run.stdout


def test_a_child_that_does_not_return_is_told() -> None:
    assert tried(lambda: [1, "two"]) == [1, "two"]
    assert tried(lambda: os.kill(os.getpid(), 9)) == "killed by SIGKILL"
    assert tried(lambda: os.close(9999)) == "OSError: [Errno 9] Bad file descriptor"
    assert tried(lambda: os.read(os.pipe()[0], 1), seconds=1) == "no end in 1 s"


@pytest.mark.parametrize("command", ["probe", "list"])
def test_standard_output_that_is_full_or_closed_is_one_line(command: str) -> None:
    for where, says in ((">/dev/full", "No space left on device: give it a place"), (">&-", "is closed: give it a place")):
        argv = ["sh", "-c", f"{sys.executable} -m guestmem {command} {where}"]
        run = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stderr.count("\n")) == (3, 1)
        assert says in run.stderr


def check_profile(profile: dict[str, Any]) -> None:
    assert (profile["schema"], profile["unit"]) == (1, "ns per page")
    assert profile["costs"].keys() | profile["missing"].keys() == calibrate.COSTS.keys() | {"call"}
    assert not profile["costs"].keys() & profile["missing"].keys()
    for cost in profile["costs"].values():
        least, most = cost["range"]
        first, third = cost["quartiles"]
        assert 0 <= least <= cost["median"] <= most
        assert first <= cost["median"] <= third
        assert cost["samples"] >= 1


def test_the_shipped_profile_has_every_cost() -> None:
    profile = calibrate.default()
    check_profile(profile)
    assert profile["missing"] == {}
    assert profile["environment"]["kernel"].startswith("6.18")


def test_a_profile_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "REPETITIONS", 2)
    monkeypatch.setattr(calibrate, "PAGES", 16)
    file = tmp_path / "profile.json"
    code = 3 if missing("kvm") else 0
    assert cli.main(["calibrate", "-o", str(file)]) == code
    assert "direct_map_split is not measured: not asked for: --secretmem" in capsys.readouterr().err
    profile = json.loads(file.read_text())
    check_profile(profile)
    assert profile["missing"]["direct_map_split"].startswith("not asked for: --secretmem")
    if missing("kvm"):
        assert profile["missing"]["guest_demand_fault"]
    assert cli.main(["calibrate"]) == code
    check_profile(json.loads(capsys.readouterr().out))
