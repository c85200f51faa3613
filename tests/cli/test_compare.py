# SPDX-License-Identifier: Apache-2.0
"""``guestmem compare``: what its cells say, what they cost in words, when it has an answer."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import guestmem
from guestmem.cli import main as cli
from guestmem.report.compare import Cell, Comparison
from guestmem.report.price import profile


def test_compare_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--protection", "unmap", "--arch", "arm64-blocks", "x86", "--json"]
    assert cli.main(["compare", "kvm-two-vms", "gunyah-two-vms", *arguments]) == 0
    cells = {(c["hypervisor"], c["arch"]): c for c in json.loads(capsys.readouterr().out)["cells"]}
    assert cells["kvm-two-vms", "arm64-blocks"]["verdict"] == "refused"
    assert "create: -EOPNOTSUPP" in cells["kvm-two-vms", "arm64-blocks"]["why"]
    assert cells["kvm-two-vms", "x86"]["verdict"] == "holds"
    assert (cells["kvm-two-vms", "x86"]["cost"]["block_split"], cells["kvm-two-vms", "x86"]["cost"]["table_page"]) == (1, 1)
    assert cells["gunyah-two-vms", "x86"]["why"] == "there is no gunyah-two-vms on x86"


def test_what_begins_otherwise_is_explored_though_its_code_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the direct map begins with block entries there are more states; the translated code does not say how it begins."""
    arguments = ["compare", "kvm", "--pages", "1", "--protection", "unmap", "--arch", "arm64", "arm64-bbml2", "x86", "--json"]
    assert cli.main(arguments) == 0
    pages, split, x86 = (cell["states"] for cell in json.loads(capsys.readouterr().out)["cells"])
    assert pages < split == x86


def test_compare_with_another_accessor_and_another_claim(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "kvm-two-vms", "--protection", "unmap", "--json"]
    assert cli.main([*arguments, "--speculation"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["verdict"] == "holds"
    assert cli.main([*arguments, "--accessor", "crash-dump"]) == 0
    cell = json.loads(capsys.readouterr().out)["cells"][0]
    assert (cell["rule"], cell["violations"][0]["who"]) == ("the host never reads a guest's secret", "crash dump")
    assert "plain read" in cell["survive"]
    assert cli.main(["compare", "gunyah-two-vms", "--protection", "fixup", "--speculation", "--json"]) == 0
    rules = {v["rule"] for v in json.loads(capsys.readouterr().out)["cells"][0]["violations"]}
    assert "what speculation can reach through the direct map is no secret" in rules


def test_compare_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "gunyah-two-vms", "--protection", "none", "unmap", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["schema"] == 2
    none, unmap = table["cells"]
    assert (none["verdict"], none["rule"], none["steps"]) == ("violated", "no host access ends in a panic", 14)
    assert (unmap["verdict"], unmap["rule"], unmap["steps"]) == ("holds", None, None)
    assert unmap["cost"]["kernel_flush"] == 136
    assert "kernel_flush" not in none["cost"]
    assert unmap["nanoseconds"] > none["nanoseconds"]


@pytest.fixture(scope="module")
def gunyah() -> Comparison:
    """A row of the table, of two columns."""
    return guestmem.compare("gunyah", protection=["none", "unmap"], pages=1)


def test_the_command_prints_the_table(gunyah: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "gunyah", "--protection", "none", "unmap", "--pages", "1"]) == 0
    assert capsys.readouterr().out == f"{gunyah}\n"
    assert repr(gunyah) == "<Comparison: 1 of 2 cells hold>"


def test_a_row_fits_a_terminal(gunyah: Comparison) -> None:
    lines = str(gunyah).splitlines()
    assert lines[0].split() == ["none", "unmap"]
    assert re.fullmatch(r"gunyah +panic \d+ +holds", lines[1])
    assert any(line.startswith("panic N ") and line.endswith("no host access ends in a panic") for line in lines)
    assert max(map(len, lines)) <= 80


def test_the_shortest_way_is_shown_on_demand(gunyah: Comparison) -> None:
    steps = "\n".join(gunyah.lines(steps=True))
    assert steps.startswith(str(gunyah))
    assert "gunyah, none: the shortest way to panic" in steps
    assert "broken: no host access ends in a panic: synchronous external abort" in steps


def test_details_are_shown_on_demand(gunyah: Comparison) -> None:
    details = "\n".join(gunyah.lines(details=True))
    assert details.startswith(str(gunyah))
    assert re.search(r"^ +14  load_unaligned_zeropad, copy_from_kernel_nofault, plain read:", details, re.M)
    assert "8 user TLB flushes" in details
    assert "Zeropad.zeropad" not in details


def test_work_has_the_prices_of_a_profile(gunyah: Comparison, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    costs = {"memfd_secret_fault": {"median": 1_000_000.0}, "memfd_fault": {"median": 0.0}}
    environment = {"cpu": "a CPU", "machine": "riscv64", "kernel": "9.9"}
    file.write_text(json.dumps({"schema": 1, "unit": "ns per page", "environment": environment, "costs": costs}))
    printed = " ".join(str(replace(gunyah, profile=profile(file))).split())
    assert "128 pages; prices: a CPU, riscv64, Linux 9.9 " in printed
    assert "unmap 136.00 ms more: 272 descriptors written, 136 kernel TLB flushes" in printed
    assert "without a price: guest faults, hypercalls, pages allocated, pages zeroed, user faults, user TLB flushes" in printed
    assert cli.main(["compare", "--profile", __file__]) == 2
    assert capsys.readouterr().err == f"guestmem: {__file__}: no profile of costs: name a file written by calibrate -o\n"


def test_a_table_that_is_not_complete_is_no_answer(gunyah: Comparison) -> None:
    cut = Cell(gunyah.cells[0].key, "incomplete", 1000, 5000, "the budget of 1 bytes is used up")
    assert gunyah.complete
    table = replace(gunyah, cells=[cut, gunyah.cells[1]])
    assert not table.complete
    assert re.search(r"^gunyah +incomplete +holds$", str(table), re.M)
    assert "incomplete    the budget of 1 bytes is used up\n" in str(table)


def test_without_an_answer_the_command_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guestmem.report.together.default_memory", lambda: 1)
    assert cli.main(["compare", "gunyah-two-vms", "--protection", "unmap"]) == 3
    assert "incomplete" in capsys.readouterr().out
