# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes, what is printed, and one line for each mistake."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guestmem.checker import Model
from guestmem.checker.explore import Outcome
from guestmem.cli import files
from guestmem.cli import main as cli

SMALL = ["--pages", "1"]
TWO_LOCKS = '''
from guestmem.model import Mutex, World, part, thread

class Two(World):
    """Two locks, taken in two orders."""

    a: Mutex = part()
    b: Mutex = part()

    @thread
    def first(self) -> None:
        while True:
            with self.a:
                with self.b:
                    pass

    @thread
    def second(self) -> None:
        while True:
            with self.b:
                with self.a:
                    pass
'''


def one_line(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The line that a mistake gives."""
    assert cli.main(arguments) == code
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    return err


def test_check_prints_the_shortest_counterexample_and_explain_replays_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "trace.json"
    assert cli.main(["check", "gunyah", "--protection", "none", *SMALL, "--save-trace", str(saved)]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^gunyah pages=1 frames=2 protection=none: violated in \d+ steps$", printed, re.M)
    assert "Zeropad.zeropad" in printed
    assert "self.look_up_name(" in printed
    assert "driver.provided[1]: no -> yes" in printed
    assert "broken: no host access ends in a panic: synchronous external abort" in printed
    assert cli.main(["explain", str(saved)]) == 1
    replayed = capsys.readouterr().out.splitlines()
    assert replayed[1:] == printed.splitlines()[1:-1]


def test_a_scenario_that_holds(capsys: pytest.CaptureFixture[str], recorded: Callable[..., None]) -> None:
    assert cli.main(["check", "gunyah", "--protection", "unmap", *SMALL, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["verdict"], outcome["rule"]) == ("holds", None)
    recorded("gunyah unmap", **{column: outcome[column] for column in ("states", "transitions", "steps")})


def test_a_budget_that_runs_out_is_not_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "gunyah", "--protection", "unmap", "--max-states", "1000"]) == 3
    printed = capsys.readouterr().out
    assert re.search(r"not finished: 1000 states, \d+ steps deep: the budget of 1000 states is used up\n", printed)
    assert "incomplete: its own (pages=2 frames=3) not finished" in printed
    assert cli.main(["check", "gunyah", *SMALL, "--max-states", "1000"]) == 3
    printed = capsys.readouterr().out
    assert re.search(r"incomplete: the budget of 1000 states is used up; every state up to \d+ steps was covered\n", printed)


def test_a_users_own_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "two.py"
    file.write_text(TWO_LOCKS)
    assert cli.main(["check", f"{file}:Two"]) == 1
    assert "broken: no deadlock; a wait ends: every thread waits" in capsys.readouterr().out


COUNTER = '''
from guestmem.model import World, array, bounded, require, sometimes, step, thread

class Counter(World):
    """One who counts and begins again."""

    geometry = {"most": 2}
    ladder = ({"most": 1}, {}, {"most": 3}, {"most": 4})
    n: int = bounded("most")
    numbers: list[bool] = array("most + 1")

    @thread
    def only(self) -> None:
        while True:
            self.count()

    @step
    def count(self) -> None:
        self.n = (self.n + 1) % len(self.numbers)
        require(self.n != BAD, "never this")

    @sometimes("two is reached")
    def two(self) -> bool:
        return self.n == 2
'''


def counter(tmp_path: Path, bad: int) -> str:
    """A scenario that breaks a rule when it counts to ``bad``."""
    (tmp_path / "counter.py").write_text(COUNTER.replace("BAD", str(bad)))
    return f"{tmp_path}/counter.py:Counter"


def test_a_check_climbs_the_ladder_and_says_what_it_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = counter(tmp_path, 9)
    assert cli.main(["check", name]) == 0
    first, *rungs, last = capsys.readouterr().out.splitlines()
    assert first == name
    assert [rung.split()[:2] for rung in rungs] == [["most=1", "holds"], ["its", "own"], ["most=3", "holds"], ["most=4", "holds"]]
    assert rungs[0].endswith("; does not show: two is reached")
    assert last == f"{name}: holds at 4 of 4 sizes, its own sizes among them"


def test_a_violation_ends_the_climb(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name, saved = counter(tmp_path, 3), tmp_path / "trace.json"
    assert cli.main(["check", name, "--save-trace", str(saved)]) == 1
    printed = capsys.readouterr().out
    assert f"{name} most=3: violated in 3 steps" in printed
    assert "most=4" not in printed
    assert json.loads(saved.read_text())["options"] == {"most": 3}
    assert cli.main(["check", name, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [rung["verdict"] for rung in found["rungs"]] == ["holds", "holds", "violated", "not begun"]
    assert (found["options"], found["steps"], found["rule"]) == ({"most": 3}, 3, "never this")


def test_sizes_that_are_given_are_explored_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = counter(tmp_path, 3)
    assert cli.main(["check", name, "--size", "most=2"]) == 0
    assert capsys.readouterr().out.startswith(f"{name} most=2: holds\n3 states, ")
    assert cli.main(["check", name, "--size", "most=1"]) == 1
    assert "no rule is broken, but nothing shows: two is reached" in capsys.readouterr().out
    assert "use one of: most, threads, n" in one_line(capsys, "check", name, "--size", "least=1")


def test_without_time_the_worlds_own_sizes_are_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "gunyah", "--within", "0.001s"]) == 3
    printed = capsys.readouterr().out
    assert "the time is used up" in printed
    assert "gunyah protection=unmap: incomplete: its own (pages=2 frames=3) not finished" in printed
    assert "not begun: pages=1 frames=2 arch=arm64-bbml2, " in printed


MINE = """
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio, folio_page
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnGunyah

class Careless(GunyahDriver):
    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio | None) -> int:
        guest = file.owner[pgoff]
        if folio is not None and guest is not None and self.provided[folio.frame.pfn]:
            self.reclaim_page(guest, file.gfn[pgoff], folio.frame)
        return 0

class Renamed(GunyahDriver):
    pass

class OnCareless(OnGunyah):
    driver: Careless = part()

class OnRenamed(OnGunyah):
    driver: Renamed = part()
"""


def test_what_the_base_breaks_too_is_known(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    name = f"{tmp_path}/mine.py:On"
    assert cli.main(["check", f"{name}Renamed", "--protection", "none", *SMALL]) == 1
    printed = capsys.readouterr().out
    assert "violated as OnGunyah is: nothing new\nknown, also in OnGunyah:\n" in printed
    assert re.search(r"^ +\d+  zeropad0     no host access ends in a panic$", printed, re.M)
    assert cli.main(["check", f"{name}Careless", "--protection", "none", *SMALL]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^\S+Careless pages=1 frames=2 protection=none: violated in \d+ steps$", printed, re.M)
    assert re.search(r"^     >             \S+/mine.py:13 Careless.prepare_accessible$", printed, re.M)
    assert re.search(r"^                     -EBUSY from Gunyah.addrspace_unmap, GunyahDriver.reclaim_page$", printed, re.M)
    new, known = printed.split("known, also in OnGunyah:\n")
    assert "  kcore0       no host access ends in a panic\n" in known
    assert "  kcore0       no host access ends in a panic\n" not in new


def test_none_must_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "gunyah", *SMALL]) == 0
    assert capsys.readouterr().out.startswith("gunyah pages=1 frames=2 protection=unmap: holds\n")


def test_all_rules_from_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "gunyah", "--protection", "none", "--all-rules", *SMALL]) == 1
    printed = capsys.readouterr().out.splitlines()
    at = printed.index("each broken rule, in how many steps and by whom:")
    panic = "no host access ends in a panic"
    found = [line.split(maxsplit=2) for line in printed[at + 1 : -1]]
    assert {"zeropad0", "kcore0", "plain_read0"} <= {who for _, who, rule in found if rule == panic}
    steps = [int(steps) for steps, *_ in found]
    assert steps == sorted(steps)
    assert printed[0].endswith(f": violated in {steps[0]} steps")


def test_a_counterexample_that_does_not_happen_is_a_defect_of_the_checker(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    name = counter(tmp_path, 3)
    explore = Model.explore

    def wrong(self: Model, **options: Any) -> Outcome:
        outcome = explore(self, **options)
        outcome.violations = [dataclasses.replace(v, rule="another rule") for v in outcome.violations]
        return outcome

    monkeypatch.setattr(Model, "explore", wrong)
    line = one_line(capsys, "check", name, "--size", "most=3", code=3)
    assert "the checker says 'another rule' is broken in 3 steps; as ordinary Python it does not happen" in line
    assert "a defect of the checker, please report it with guestmem-counter-Counter.json" in line
    assert json.loads((tmp_path / "guestmem-counter-Counter.json").read_text())["options"] == {"most": 3}


def test_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--json"]) == 0
    names = [row["name"] for row in json.loads(capsys.readouterr().out)["scenarios"]]
    assert {"kvm", "pkvm", "gunyah"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "notes.md"], "notes.md: no such scenario: use one of kvm, "),
        (["check", "xen"], "xen: no such scenario"),
        (["check", "nowhere.py:World"], "there is no file nowhere.py"),
        (["check", "kvm", "--protection", "magic"], "magic: no such protection: use one of none, unmap, fixup, unmap+fixup"),
        (["check", "kvm", "--pages", "0"], "'0' is no number of at least 1"),
        (["check", "kvm", "--memory", "much"], "'much' is no size"),
        (["check", "kvm", "--within", "soon"], "'soon' is no time: write 30s, 2m or 1h"),
        (["check", "kvm", "--size", "3"], "'3' is no size: write NAME=N"),
        (["compare", "xen"], "xen: no such hypervisor: use one of kvm"),
        (["compare", "--arch", "mips"], "mips: no such architecture: use one of arm64, arm64-blocks, "),
        (["compare", "--accessor", "nsa"], "nsa: no such accessor: use one of crash-dump, gup, migration, walker"),
        (["compare", "--trace", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["explain", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["explain", __file__], "no saved trace"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        ([], "required: COMMAND"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert says in one_line(capsys, *arguments)


def test_a_file_outside_the_language(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(TWO_LOCKS.replace("pass", "x = 'text'"))
    line = one_line(capsys, "check", f"{file}:Two")
    assert "bad.py:15: " in line
    file.write_text("from guestmem.model import World\n\nclass Two(World):\n    n: int = 0\n")
    assert "an int without bounds: write bounded(hi)" in one_line(capsys, "check", f"{file}:Two")
    file.write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    assert "bad.py:1: ModuleNotFoundError" in one_line(capsys, "check", "bad.py:Two")
    file.write_text("def (:\n")
    assert "bad.py:1: SyntaxError" in one_line(capsys, "check", f"{file}:Two")
    file.write_text("\nraise SystemExit(1)\n")
    assert "bad.py:2: SystemExit: 1" in one_line(capsys, "check", f"{file}:Two")


def test_a_file_may_have_the_name_of_a_module_that_is_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "ast.py").write_text(TWO_LOCKS)
    assert cli.main(["check", f"{tmp_path}/ast.py:Two"]) == 1
    assert "every thread waits" in capsys.readouterr().out


def test_no_compiler(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "no C compiler: install gcc or clang, or pip install 'guestmem[cc]'" in one_line(capsys, "check", "kvm")


def test_a_full_disk_loses_no_old_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved = tmp_path / "trace.json"
    saved.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    arguments = ["check", "gunyah", "--protection", "none", *SMALL, "--save-trace", str(saved)]
    assert "No space left on device" in one_line(capsys, *arguments, code=3)
    assert [f.name for f in tmp_path.iterdir()] == ["trace.json"]
    assert saved.read_text() == "old"


def test_what_a_killed_run_left_half_written_is_removed_and_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    left, others = tmp_path / f"trace.json.{gone.pid}.tmp", {"trace.json.1.tmp", "trace.json.tmp", f"x.{gone.pid}.tmp"}
    for name in {left.name, *others}:
        (tmp_path / name).write_text("half")
    files.write_whole(str(tmp_path / "trace.json"), "whole")
    assert capsys.readouterr().err == f"guestmem: removed {left}, left by a run that was killed\n"
    assert {f.name for f in tmp_path.iterdir()} == {"trace.json", *others}
    assert (tmp_path / "trace.json").read_text() == "whole"


def test_a_device_is_written_to_and_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "gunyah", "--protection", "none", *SMALL, "--save-trace", "/dev/full"]
    assert "No space left on device" in one_line(capsys, *arguments, code=3)
    assert Path("/dev/full").is_char_device()


def test_help_imports_nothing_heavy() -> None:
    loaded = "{name.split('.')[1] for name in sys.modules if name.startswith('guestmem.')}"
    script = f"import sys; from guestmem.cli import main; main.parser(); print({loaded})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'cli'}"
