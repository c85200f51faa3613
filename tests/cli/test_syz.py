"""Counterexamples as programs for syzkaller: they are in its language, and have the calls that were made."""

import re
from pathlib import Path

import pytest

from guestmem.cli import main as cli

VALUE = r"(?:0x[0-9a-f]+|r\d+|nil|'(?:[^'\\]|\\x[0-9a-f]{2})*'|\"\"/\d+)"


def parsed(text: str) -> int:
    """Where an argument ends: a number, a variable, a pointer with what it points to, a struct, an array."""
    if match := re.match(r"&\(0x[0-9a-f]+(?:/0x[0-9a-f]+)?\)", text):
        at = match.end()
        return at + 1 + parsed(text[at + 1 :]) if text[at : at + 1] == "=" else at
    if text[:1] in "{[":
        at = 1
        while True:
            at += parsed(text[at:])
            if text[at] in "}]":
                return at + 1
            assert text.startswith(", ", at), text[at:]
            at += 2
    match = re.match(rf"(?:<r\d+=>)?{VALUE}", text)
    assert match, text
    return match.end()


def calls_of(text: str) -> list[str]:
    """The names of the calls of a program; each line is parsed, and each variable is there when it is used."""
    names: list[str] = []
    known: set[str] = set()
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"(?:(r\d+) = )?([a-z0-9_]+(?:\$[A-Za-z0-9_]+)?)(\(.*?\))( \(async\))?", line)
        assert match, line
        result, name, arguments, later = match.groups()
        assert parsed("{" + arguments[1:-1] + "}") == len(arguments)
        made = set(re.findall(r"<(r\d+)=>", arguments))
        assert set(re.findall(r"\br\d+\b", arguments)) <= known | made, line
        known |= {result, *made} - {None}
        names.append((name.partition("$")[2] or name) + (" async" if later else ""))
    return names


def written(tmp_path: Path, *arguments: str) -> str:
    file = tmp_path / "way.syz"
    assert cli.main(["check", *arguments, "--syz", str(file)]) == 1
    return file.read_text()


BEGIN = ["kvm", "KVM_CREATE_VM", "KVM_CREATE_VCPU", "memfd_create", "KVM_CREATE_GUEST_MEMFD", "mmap"]


def test_a_secret_that_is_read(tmp_path: Path) -> None:
    text = written(tmp_path, "kvm", "--protection", "none", "--pages", "1")
    assert calls_of(text) == [*BEGIN, "KVM_SET_USER_MEMORY_REGION2", "KVM_PRE_FAULT_MEMORY"]
    assert "# vcpu0: the guest writes to gfn 0, which its stage 2 has\n" in text
    assert re.search(r"^# zeropad0 breaks: the host never reads a guest's secret$", text, re.M)


def test_calls_into_which_others_come(tmp_path: Path) -> None:
    names = calls_of(written(tmp_path, "B5"))
    assert names[:8] == [*BEGIN, "KVM_SET_USER_MEMORY_REGION2", "KVM_PRE_FAULT_MEMORY"]
    assert names[8:] == [
        "KVM_SET_MEMORY_ATTRIBUTES2",
        "KVM_SET_MEMORY_ATTRIBUTES2 async",
        "pipe",
        "vmsplice",
        "pwrite64",
        "pipe",
        "vmsplice",
    ]


def test_slots_that_are_there_from_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from guestmem.own import Gfn, Guest, KvmDriver, KvmHost, RunningVm, Vcpus, part\n\n\n"
        "class Mine(KvmDriver):\n    def unmap(self, guest: Guest, gfn: Gfn) -> None:\n        pass\n\n\n"
        "class World(KvmHost, Vcpus, RunningVm):\n    driver: Mine = part()\n"
    )
    text = written(tmp_path, str(tmp_path / "mine.py"), "--pages", "2", "--option", "shifted=yes")
    regions = [line for line in text.splitlines() if "REGION2" in line]
    assert [re.findall(r"0x[0-9a-f]+", line.partition("={")[2]) for line in regions] == [
        ["0x0", "0x4", "0x1000", "0x1000", "0x7f0000800000", "0x1000", "0x0"],
        ["0x1", "0x4", "0x0", "0x1000", "0x7f0000801000", "0x1000", "0x1000"],
    ]


@pytest.mark.parametrize(
    ("named", "why"),
    [("gunyah", "runs on Gunyah, whose calls syzkaller does not know"), ("secretmem", "has no file of guest memory")],
)
def test_what_has_no_system_calls_is_said(named: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--protection", "none", "--pages", "1"] if named == "gunyah" else []
    assert cli.main(["check", named, *given, "--syz", str(tmp_path / "way.syz")]) == 2
    assert capsys.readouterr().err == f"guestmem: {named}: {why}: leave out --syz\n"
    assert not (tmp_path / "way.syz").exists()
