# SPDX-License-Identifier: Apache-2.0
"""What a check did not look at is said: code that never ran, names that override nothing, classes in no world."""

import importlib
import json
import re
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from guestmem.checker import Model
from guestmem.checker.coverage import any_file, explored, functions_in, statements_in, users_file
from guestmem.checker.explore import Edge
from guestmem.checker.frontend.source import Place
from guestmem.cli import main as cli
from guestmem.model.schedule import Schedule
from guestmem.scenarios.catalogue import SCENARIOS, find
from lockstep import Lockstep

CASES = Path(__file__).parents[1] / "silence"
UNMAP = ["--protection", "unmap", "--pages", "1"]

LOST = "guestmem: {file}:12: Mine.prepare_accesible overrides nothing: Driver has prepare_accessible\n"
LOST_PART = "guestmem: {file}:9: W.drivr overrides nothing: GunyahHost has driver\n"
UNPLUGGED = "guestmem: {file}:10: class Mine is used by nothing: write driver: Mine = part() in W\n"


@pytest.mark.parametrize(("case", "line"), [("misspelt", LOST), ("misspelt_part", LOST_PART), ("not_plugged_in", UNPLUGGED)])
def test_a_driver_that_nothing_hears_is_refused(case: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = CASES / f"{case}.py"
    assert cli.main(["check", f"{file}:W", *UNMAP]) == 2
    assert capsys.readouterr() == ("", line.format(file=file))


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("never_called", "Mine.before_reclaim is called by nothing in W"),
        ("never_entered", "never executed: {file}:16-17 (Mine.reclaim)"),
    ],
)
def test_code_that_never_ran_is_said(
    case: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CASES)
    assert cli.main(["check", f"{case}.py:W", *UNMAP]) == 0
    verdict, _, *said = capsys.readouterr().out.splitlines()
    assert verdict.endswith("holds")
    assert said == [line.format(file=f"{case}.py")]


# ---- small worlds

WORLD = """\
from guestmem.model import Record, World, always, bounded, choose, may, part, require, step, thread, when

class Cell(Record):
    full: bool = False
    count: int = bounded(3)

    def fill_it(self, value: bool) -> None:
        self.full = value

    def emptied(self) -> None:
        self.fill_it(False)

class W(World):
    cell: Cell = part()

    @thread
    def only(self) -> None:
        self.cell.emptied()
        while True:
            self.act()

    @step
    def act(self) -> None:
        {act}
"""
FIRST = 24  # the line of {act}


def write(directory: Path, act: str, more: str = "") -> str:
    """The scenario of a file with a small world: what its one thread does over and over, and what else is in the file."""
    file = directory / f"{directory.name}.py"
    file.write_text(WORLD.format(act=act.replace("\n", "\n        ")) + more)
    return f"{file}:W"


def checked(scenario: str, capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> dict[str, Any]:
    """What ``check --json`` says of coverage."""
    assert cli.main(["check", scenario, "--json", *options]) == code
    coverage: dict[str, Any] = json.loads(capsys.readouterr().out)["coverage"]
    return coverage


def refused(scenario: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which a check ends, without the file."""
    assert cli.main(["check", scenario]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err.removeprefix(f"guestmem: {scenario.removesuffix(':W')}:").rstrip()


NEVER = {
    "all of it": ("self.cell.fill_it(True)", []),
    "a branch": ("if self.cell.count == 3:\n    self.cell.count = 0\nself.cell.fill_it(True)", [(1, 1)]),
    "a branch in one line": ("self.cell.fill_it(True)\nif self.cell.count == 3: self.cell.count = 0", [(1, 1)]),
    "else": ("if self.cell.count < 3:\n    self.cell.fill_it(True)\nelse:\n    self.cell.count = 0", [(3, 3)]),
    "a branch that translation folds": (
        "if False:\n    self.cell.count = 0\n    self.cell.count = 1\nself.cell.count = 2",
        [(1, 2)],
    ),
    "after a return": ("self.cell.fill_it(True)\nreturn\nself.cell.count = 1", [(2, 2)]),
    "two places": (
        "for i in range(2):\n    if i == 2:\n        self.cell.count = i\n    self.cell.count = 0\n"
        "while self.cell.full:\n    break",
        [(2, 2), (5, 5)],
    ),
    "several lines": ("if self.cell.count == 3:\n    self.cell.fill_it(\n        True\n    )\nself.cell.count = 0", [(1, 3)]),
    # What a step does before it waits has not happened.
    "a step that waits": ("x = choose(2)\nif x == 1:\n    when(self.cell.count == 2)\nself.cell.fill_it(True)", [(2, 2)]),
    "a step that waits and another": ("x = choose(2)\nwhen(x == 1)\nself.cell.fill_it(True)", []),
}


@pytest.mark.parametrize("case", NEVER)
def test_statements_never_executed(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act, lines = NEVER[case]
    found = checked(write(tmp_path, act), capsys)
    assert [(n["function"], n["first"] - FIRST, n["last"] - FIRST) for n in found["never"]] == [
        ("W.act", *pair) for pair in lines
    ]


ALTERNATIVES = {
    "all taken": ("self.cell.count = choose(3)", []),
    "one by its name": (
        "x = choose(3, 'use, unpin, wait')\nif x == 1:\n    when(self.cell.full)\nself.cell.count = x",
        ["unpin"],
    ),
    "two by number": ("x = choose(4)\nif x < 2:\n    when(self.cell.full)\nself.cell.count = x", ["0, 1"]),
    "it does not fail": ("x = may('it fails')\nwhen(not x)\nself.cell.count = 1", ["yes"]),
    "it always fails": ("x = may('it fails')\nwhen(x)\nself.cell.count = 1", ["no"]),
    "two in a line": ("x = may('a') and may('b')\nwhen(not x)\nself.cell.count = 1", ["yes"]),
    "never asked": ("x = self.cell.count == 3 and may('b')\nself.cell.fill_it(x)", ["never decided"]),
    "folded away": ("x = False and may('b')\nself.cell.fill_it(x)", ["never decided"]),
    "a choice of what there is": ("x = choose(self.cell.count + 1)\nself.cell.count = min(x + 1, 2)", ["3"]),
}


@pytest.mark.parametrize("case", ALTERNATIVES)
def test_alternatives_never_taken(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act, never = ALTERNATIVES[case]
    assert [a["never"] for a in checked(write(tmp_path, act), capsys)["alternatives"]] == never


def test_what_is_said_in_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    act = "x = choose(2, 'use, unpin')\nif x == 1:\n    when(self.cell.count == 3)\nif x == 1:\n    self.cell.count = 1"
    more = "\n    def unused_a(self) -> int:\n        return 1\n\n    def unused_b(self) -> int:\n        return 2\n"
    more += "\nclass Idle(Record):\n    x: bool\n"
    monkeypatch.chdir(tmp_path)
    write(tmp_path, act, more)
    name = f"{tmp_path.name}.py"
    assert cli.main(["check", f"{name}:W"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "class Idle is used by nothing in W",
        "W.unused_a, W.unused_b are called by nothing in W",
        f"never executed: {name}:26, 28 (W.act)",
        f"never taken: {name}:24 choose 'use, unpin': unpin",
    ]


def test_nothing_is_said_of_code_where_a_rule_is_broken_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = write(tmp_path, "require(self.cell.count < 2, 'few')\nself.cell.count += 1\nif self.cell.count == 3:\n    return")
    assert cli.main(["check", scenario]) == 1
    assert "never executed" not in capsys.readouterr().out
    assert cli.main(["check", scenario, "--coverage"]) == 1
    assert "(W.act)" in capsys.readouterr().out


def test_a_step_that_broke_a_rule_was_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act = "if may('it goes wrong'):\n    self.cell.count = 2\n    require(self.cell.count < 2, 'few')"
    assert checked(write(tmp_path, act), capsys, code=1)["never"] == []


def test_a_method_that_is_overridden_is_not_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "\nclass W(W):\n    @step\n    def act(self) -> None:\n        self.cell.fill_it(True)\n"
    assert checked(write(tmp_path, "self.cell.count = 1", more), capsys)["uncalled"] == []


def test_a_step_after_a_choice_that_waits_has_not_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "\n    @thread\n    def other(self) -> None:\n        while True:\n            if choose(2) == 1:\n"
    more += "                self.never()\n            else:\n                self.act()\n"
    more += "\n    @step\n    def never(self) -> None:\n        x = 1\n"
    more += "        when(self.cell.count == 3)\n        self.cell.count = x\n"
    found = checked(write(tmp_path, "self.cell.count = 1", more), capsys, code=1)  # who chose it waits for ever
    assert [(n["function"], n["last"] - n["first"]) for n in found["never"]] == [("W.other", 0), ("W.never", 2)]


def test_incomplete_exploration_says_what_it_did_not_execute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    act = "if self.cell.count < 3:\n    self.cell.count += 1\nelse:\n    self.cell.count = 0"
    scenario = write(tmp_path, act)
    assert checked(scenario, capsys)["never"] == []
    assert [n["first"] - FIRST for n in checked(scenario, capsys, "--max-states", "2", code=3)["never"]] == [3]


def test_what_runs_while_a_world_is_built_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "\n    def setup(self) -> None:\n        self.fill()\n\n    def fill(self) -> None:\n        self.cell.full = True\n"
    found = checked(write(tmp_path, "self.cell.count = 1", more), capsys)
    assert (found["uncalled"], found["never"]) == ([], [])


def test_what_properties_look_at_is_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "\n    @always('few')\n    def few(self) -> bool:\n        if self.cell.count == 2:\n            return True\n"
    more += "        return self.cell.count < 3\n"
    assert checked(write(tmp_path, "self.cell.count = 2", more), capsys)["never"] == []


def test_the_project_s_own_files_are_looked_at_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked("secretmem-clears-first", capsys)["never"] == []
    found = checked("secretmem-clears-first", capsys, "--coverage")
    assert "Secretmem.create" in {never["function"] for never in found["never"]}
    assert "Mutex.try_acquire" in found["uncalled"]
    assert found["same_as"] == ""


@pytest.mark.parametrize("name", ["gunyah", "secretmem-clears-first"])
def test_watching_changes_no_count(name: str) -> None:
    scenario = SCENARIOS[name]
    plain, watched = (Model(scenario.build(**scenario.small), watches) for watches in (users_file, any_file))
    assert plain.translation.marks.words == 0 < watched.translation.marks.words
    counts = [(o.verdict, o.states, o.transitions) for o in (plain.explore(), watched.explore())]
    assert counts[0] == counts[1]


class Checked(Lockstep):
    """A lockstep that evaluates the properties too."""

    def take(self, schedule: Schedule, edge: Edge) -> bool:
        goes_on = super().take(schedule, edge)
        if goes_on:
            schedule.broken()
        return goes_on


def test_what_is_marked_is_what_python_executes() -> None:
    scenario = SCENARIOS["secretmem-clears-first"]
    model = Model(scenario.build(**scenario.small), any_file)
    assert model.explore().verdict == "holds"
    marked, _ = model.translation.marks.read(model.marks())
    places = {statement.place for statement in model.translation.marks.statements}
    files = {place.file for place in places}
    executed: set[Place] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        executed.add(Place(frame.f_code.co_filename, frame.f_lineno))
        return trace if frame.f_code.co_filename in files else None

    outer = sys.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        for seed in range(10):
            Checked(lambda: scenario.build(**scenario.small), model).run(seed, 300)
    finally:
        threading.settrace(outer)
        sys.settrace(outer)
    assert places & executed == {statement.place for statement in marked}


# ---- names

BASE = """

class Base(Record):
    level: int = bounded(3)
    tidies: bool = False

    def prepare(self, cell: Cell, value: bool) -> bool:
        return value

    def release(self, cell: Cell) -> bool:
        return self.tidies

    def extra_help(self, cell: Cell) -> bool:
        return True

class Mine(Base):
    {body}

class W(W):
    base: Mine = part()

    @step
    def act(self) -> None:
        self.cell.full = self.base.prepare(self.cell, True) and self.base.release(self.cell) and self.base.extra_help(self.cell)
"""
METHOD = "def {}:\n        return True"
LOST_NAMES = {
    "a method": (METHOD.format("prepar(self, cell: Cell, value: bool) -> bool"), "prepar overrides nothing: Base has prepare"),
    "a letter too many": (METHOD.format("releasee(self, cell: Cell) -> bool"), "releasee overrides nothing: Base has release"),
    "a field": ("tidiess: bool = True", "tidiess overrides nothing: Base has tidies"),
    "a plain value": ("tidie = True", "tidie overrides nothing: Base has tidies"),
    "a value for a field": ("tidies = True", "tidies sets nothing: tidies is a field of Base, set it in setup()"),
    "a parameter less": (
        METHOD.format("prepare(self, cell: Cell) -> bool"),
        "prepare takes (self, cell) where Base.prepare takes (self, cell, value): take the same parameters",
    ),
    "another parameter": (
        METHOD.format("release(self, slot: Cell) -> bool"),
        "release takes (self, slot) where Base.release takes (self, cell): take the same parameters",
    ),
}
HEARD = {
    "an override": METHOD.format("prepare(self, cell: Cell, value: bool) -> bool"),
    "a step": "@step\n    def release(self, cell: Cell) -> bool:\n        return True",
    "a helper of another name": METHOD.format("before_prepare(self) -> bool"),
    "a helper that is called": METHOD.format("prepares(self) -> bool")
    + "\n\n    def release(self, cell: Cell) -> bool:\n        return self.prepares()",
    "a field that is read": "tidiess: bool = True\n\n    def release(self, cell: Cell) -> bool:\n        return self.tidiess",
    "both names": METHOD.format("prepare(self, cell: Cell, value: bool) -> bool")
    + "\n\n    "
    + METHOD.format("prepare2(self) -> bool"),
}


@pytest.mark.parametrize("case", LOST_NAMES)
def test_what_overrides_nothing_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body, line = LOST_NAMES[case]
    scenario = write(tmp_path, "pass", BASE.format(body=body))
    assert refused(scenario, capsys).partition(": ")[2] == f"Mine.{line}"


@pytest.mark.parametrize("case", HEARD)
def test_what_overrides_or_is_used_is_not(case: str, tmp_path: Path) -> None:
    Model.translate(find(write(tmp_path, "pass", BASE.format(body=HEARD[case]))).build())


def test_a_misspelt_method_of_a_world_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "\n    def set_up(self) -> None:\n        self.cell.full = True\n"
    assert refused(write(tmp_path, "self.cell.count = 1", more), capsys).endswith("W.set_up overrides nothing: World has setup")


def test_a_mixin_that_overrides_nothing_where_it_is_mixed_in_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixin = "class Mixin(Record):\n    def {}(self, cell: Cell) -> bool:\n        return True\n\nclass Mine(Mixin, Base):"
    good, bad = (BASE.replace("class Mine(Base):", mixin.format(name)).format(body="pass") for name in ("release", "relese"))
    (tmp_path / "good").mkdir()
    assert cli.main(["check", write(tmp_path / "good", "pass", good)]) == 0
    capsys.readouterr()
    assert refused(write(tmp_path, "pass", bad), capsys).endswith("Mixin.relese overrides nothing: Base has release")


# ---- classes

PLUGS = """

class Lock(Record):
    def hold(self) -> bool:
        return True

class Better(Lock):
    def hold(self) -> bool:
        return False

class W(W):
    lock: {lock} = part()

    @step
    def act(self) -> None:
        self.cell.full = self.lock.hold()
"""
OTHER = "\nclass Other(W):\n    lock: Better = part()\n"


def test_a_class_in_no_world_is_refused_where_it_was_to_replace_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = write(tmp_path, "pass", PLUGS.format(lock="Lock"))
    assert refused(scenario, capsys).endswith("class Better is used by nothing: write lock: Better = part() in W")


@pytest.mark.parametrize(("lock", "more"), [("Better", ""), ("Lock", OTHER)])
def test_a_class_in_this_world_or_another_of_the_file_is_used(
    lock: str, more: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(write(tmp_path, "pass", PLUGS.format(lock=lock) + more), capsys)["unused"] == []


# ---- a file that changes nothing

DRIVER = """\
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.mm.filemap import Pgoff
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnKvm

class Mine(KvmDriver):
    {body}

class W(OnKvm):
    driver: Mine = part()
"""


@pytest.mark.parametrize(
    ("body", "same"),
    [
        ("def helper(self) -> int:\n        return 1", "OnKvm"),
        (
            "def invalidate_end(self, file: GuestMemfd, start: int, end: int) -> None:"
            "\n        super().invalidate_end(file, start, end)",
            "",
        ),
        ("level: bool = True", ""),
    ],
)
def test_a_file_that_changes_nothing_is_told(body: str, same: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"{tmp_path.name}.py"
    file.write_text(DRIVER.format(body=body))
    assert checked(f"{file}:W", capsys, *UNMAP)["same_as"] == same


# ---- what no scenario executes


def test_what_the_document_says_is_not_executed_by_these(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root / "tools"))
    generate = importlib.import_module("generate_docs")
    listed = re.findall(
        r"^\| (\w+/\S+\.py) \| `(\S+)` \| (?:`(.+?)`|all of it) \| (.+) \|$", (root / "docs" / "coverage.md").read_text(), re.M
    )
    assert listed
    assert not [function for _, function, _, why in listed if why == generate.HOLE]
    assert not set(generate.REASONS) - {name for _, function, text, _ in listed for name in (function, f"{function}: {text}")}
    small = [lambda n=n: SCENARIOS[n].build(**SCENARIOS[n].small) for n in ("gunyah", "secretmem")]
    executed = explored(small, any_file)
    for name, function, text, _ in listed:
        file = str(root / "src" / "guestmem" / name)
        tree = next(node for owner, node in functions_in(file) if (f"{owner}.{node.name}" if owner else node.name) == function)
        nodes = [
            n
            for n in statements_in(tree.body)
            if not text or text.split()[0] == "choose" or generate.begins(file, n.lineno) == text
        ]
        assert nodes, (function, text)
        assert text.split()[:1] == ["choose"] or not all(executed.has(file, node) for node in nodes), (function, text)
    reasons = {*(function for _, function, _, _ in listed), *(f"{function}: {text}" for _, function, text, _ in listed)}
    assert set(generate.REASONS) <= reasons
