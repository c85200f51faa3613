# SPDX-License-Identifier: Apache-2.0
"""``guestmem new`` writes files that hold as they stand, for each kind and host; what users write in them is found."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from guestmem.cli.main import main
from guestmem.report.check import check
from guestmem.report.hooks import KINDS, LIKE, hooks, new_file
from guestmem.upstream.catalogue import DEFECTS

OWN = sorted((Path(__file__).parents[1] / "own").glob("b*.py"))


@pytest.mark.parametrize("like", LIKE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_file_holds(kind: str, like: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"{kind}_{like}.py"
    assert main(["new", kind, str(file), "--like", like]) == 0
    found = check(f"{file}:MyWorld", pages=1, frames=2)
    assert found.verdict == "holds"
    field = KINDS[kind].field
    if field:  # every hook is in it, and each is one that somebody calls
        text = file.read_text()
        assert all(f"def {hook.name}(" in text and hook.called for hook in hooks(KINDS[kind].bases[like]))


def test_check_finds_the_world_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(new_file("world", "kvm", "mine.py") + "\n\nclass Another(MyWorld):\n    pass\n")
    assert main(["check", str(file), "--pages", "1"]) == 0
    assert "mine.py:Another" in capsys.readouterr().out
    file.write_text(file.read_text() + "\n\nclass Third(MyWorld):\n    pass\n")
    assert main(["check", str(file)]) == 2
    assert f"it has 2 worlds: name one: {file}:Another, {file}:Third" in capsys.readouterr().err
    file.write_text("x = 1\n")
    assert main(["check", str(file)]) == 2
    assert "it has no worlds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["new", "drivr", "x.py"], "drivr: no such kind of file: use one of driver, hypervisor, library, mm, actor, world"),
        (["new", "driver", "x.txt"], "x.txt: a world is in a Python file: name one, as mydriver.py"),
        (["new", "driver", "x.py", "--like", "xen"], "xen: no such host: use one of kvm, gunyah, pkvm, snp, tdx, cca"),
        (["new", "driver", "there.py"], "there.py: is there already: name another, or remove it"),
        (["hooks", "x"], "x: no such kind of file: use one of driver, hypervisor, library, mm, actor, world"),
        (["defects", "B2"], "B2: no such defect: use one of B1, B3,"),
        (["compare", "--mask"], "--mask: it is for libraries: add --library"),
        (["compare", "--library", "rfc-v3"], "rfc-v3: no such library: use one of ours, rfc-v1,"),
        (["check", "pkvm", "--option", "ask=yes"], "ask: no such option of pkvm: use one of "),
        (["check", "pkvm", "--option", "asks=maybe"], "maybe: no such value of asks: use one of yes, no"),
    ],
)
def test_mistakes_are_one_line(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.py").write_text("")
    assert main(argv) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_an_option_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "pkvm", "--option", "asks=yes", "--pages", "1"]) == 0
    assert "holds" in capsys.readouterr().out


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.stem)
def test_a_defect_in_a_file_of_ones_own_is_found(file: Path) -> None:
    found = check(f"{file}:MyWorld", within=60)
    assert found.verdict == "violated"
    assert found.rule
    assert f"B{int(file.stem[1:])}" in DEFECTS


def test_they_are_short() -> None:
    lines = [sum(1 for line in file.read_text().splitlines() if line) for file in OWN]
    assert len(lines) >= 10
    assert statistics.median(lines) <= 8


def test_a_saved_test_fails_until_it_is_mended(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text((OWN[0].parent / "b03.py").read_text())

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", *argv], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run("guestmem", "check", "mine.py", "--save-test", "test_mine.py").returncode == 1
    failed = run("pytest", "-q", "-p", "no:cacheprovider", "test_mine.py")
    assert failed.returncode == 1
    assert "success means done" in failed.stdout
    mine.write_text(
        mine.read_text().replace(
            "        super().punch_hole(start, end)\n        return 0", "        return super().punch_hole(start, end)"
        )
    )
    assert run("pytest", "-q", "-p", "no:cacheprovider", "test_mine.py").returncode == 0


def test_hooks_say_where_they_are_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hooks", "library", "--json"]) == 0
    found = {hook["name"]: hook for hook in json.loads(capsys.readouterr().out)["hooks"]["library"]}
    files = {where.partition(":")[0] for where in found["in_use"]["called"]}
    assert files == {"guest_memfd/library.py", "guest_memfd/hugetlb.py"}
    assert main(["hooks", "mm"]) == 0
    assert "Kernel.set_direct_map_valid(self, frame: Frame, order: int, valid: bool) -> int" in capsys.readouterr().out


def test_defects_and_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["defects", "B3", "B49", "--cured", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == 1
    assert [(one["id"], one["found"], one["innocent"], one["cured"]) for one in found["defects"]] == [
        ("B3", True, False, "holds"),
        ("B49", True, False, "holds"),
    ]
    assert main(["compare", "kvm", "--library", "ours", "rfc-v1", "v7", "v8", "--json"]) == 0
    cells = {cell["library"]: cell for cell in json.loads(capsys.readouterr().out)["cells"]}
    assert cells["ours"]["verdict"] == "holds"
    broken = {name: {one["rule"] for one in cell["broken"]} for name, cell in cells.items()}
    assert broken["v7"] - broken["v8"] == {"a frame given to a guest holds nothing of the host or of another guest"}
    assert main(["compare", "gunyah", "--library", "rfc-v1", "--mask", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["masks"][0]["layers"]
    assert [layer["parts"] for layer in layers] == [["NeverFlushed"], ["HoleSucceeds"], ["PinsOnly"]]
