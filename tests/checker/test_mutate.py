# SPDX-License-Identifier: Apache-2.0
"""``guestmem mutate``: which changes are made, and what becomes of them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from guestmem.cli.main import main
from guestmem.mutation import run
from guestmem.mutation.mutants import Mutant, mutants
from guestmem.mutation.run import NOTES, PACKAGE, RULES, package_sources

WORLD = Path(__file__).with_name("mutate.py")

SOURCE = '''\
from errno import EBUSY, EINVAL


class Inode:
    """Class bodies are not logic."""

    open = True

    def punch(self, start, end):
        """Docstrings stay."""
        if start >= end or not self.open:
            return -EINVAL
        with self.lock.exclusive:
            err = self.begin(start,
                             end)  # over two lines
            self.flush_all()
            for at in range(start, end):
                folio_put(self.pages[at])
                charge(COST - 1)
            self.users -= 1
            self.busy = False
        require(err == 0, "not changed")
        return err if err is not None else 0

    @always("rules are not changed")
    def rule(self):
        return self.open is True


def plain():
    if may("fail"):
        return -EBUSY
'''

EXPECTED = """\
11 off by one: start >= end -> start > end
11 condition negated: start >= end or not self.open -> not (start >= end or not self.open)
11 and/or exchanged: start >= end or not self.open -> start >= end and (not self.open)
12 return dropped: return -EINVAL -> pass
12 errno to 0: -EINVAL -> 0
12 another errno: -EINVAL -> -EBUSY
13 lock gone: with self.lock.exclusive: -> its body
14 statement gone: err = self.begin(start, end) -> pass
14 lines swapped: err = self.begin(start, end); self.flush_all() -> self.flush_all(); err = self.begin(start, end)
16 flush gone: self.flush_all() -> pass
17 off by one: start -> start + 1
17 off by one: start -> start - 1
17 off by one: end -> end + 1
17 off by one: end -> end - 1
18 reference gone: folio_put(self.pages[at]) -> pass
20 reference gone: self.users -= 1 -> pass
21 statement gone: self.busy = False -> pass
21 True/False exchanged: False -> True
23 condition negated: err is not None -> err is None
32 return dropped: return -EBUSY -> pass
32 errno to 0: -EBUSY -> 0
32 another errno: -EBUSY -> -EINVAL
"""


def made(source: str) -> list[Mutant]:
    return mutants(source, "inode.py", rules=RULES, notes=NOTES, free=("may",))


def test_every_kind_of_change() -> None:
    lines = [f"{m.line} {m.kind}: {m.before} -> {m.after}" for m in made(SOURCE)]
    assert "\n".join(lines) + "\n" == EXPECTED


def test_with_is_replaced_by_its_body() -> None:
    gone = next(m for m in made(SOURCE) if m.kind == "lock gone")
    function = ast.parse(gone.apply(SOURCE)).body[1]
    assert isinstance(function, ast.ClassDef) and not any(isinstance(n, ast.With) for n in ast.walk(function))
    assert "        self.flush_all()\n        for at in range(start, end):\n            folio_put" in gone.apply(SOURCE)


@pytest.mark.parametrize("package", ["guest_memfd", "hypervisors", "mm", "machine"])
def test_a_mutant_is_python_with_the_same_lines_and_another_meaning(package: str) -> None:
    keys = []
    for source in package_sources(package):
        text = source.path.read_text()
        for mutant in source.mutants():
            changed = mutant.apply(text)
            assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text)), mutant
            assert changed.count("\n") == text.count("\n"), mutant
            keys.append(mutant.key)
    assert len(set(keys)) == len(keys) > 100


def test_keys_survive_changes_elsewhere() -> None:
    moved = SOURCE.replace("class Inode", "# a comment\n\n\nclass Inode")
    assert [m.key for m in made(moved)] == [m.key for m in made(SOURCE)]
    assert {m.line for m in made(moved)} != {m.line for m in made(SOURCE)}


def test_assignments_that_commute_are_not_swapped() -> None:
    body = "def f(self, a, b):\n    self.x = a\n    {}\n"
    assert not [m for m in made(body.format("self.y = b")) if m.kind == "lines swapped"]
    for other in ("self.x = b", "a = self.x", "self.y = b.x", "self.g()"):
        assert [m for m in made(body.format(other)) if m.kind == "lines swapped"], other


def test_sources_of_the_package() -> None:
    assert [s.name for s in package_sources("mm/folio.py")] == ["mm/folio.py"]
    assert package_sources("mm/folio.py")[0].path == PACKAGE / "mm" / "folio.py"
    for wrong in ("", "nowhere", "../guestmem", "mm/nothing.py", "..", "__init__.py", "/etc"):
        assert not package_sources(wrong)


STATUS = """\
survived 13 return dropped: pass
killed 14 statement gone: pass
killed 14 True/False exchanged: False
same 18 statement gone: pass
same 18 True/False exchanged: True
killed 31 lock gone: its body
killed 32 condition negated: not (not self.slot.full and self.slot.fill() == 0)
killed 32 and/or exchanged: not self.slot.full or self.slot.fill() == 0
killed 32 comparison exchanged: self.slot.fill() != 0
survived 33 statement gone: pass
"""


def mutate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["mutate", f"{WORLD}:Ring", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def test_a_world_of_a_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two survive; with their results kept and a list that explains them, nothing is left to try, and nothing to notice."""
    kept = tmp_path / "results.jsonl"
    code, found = mutate(capsys, "--resume", str(kept), "--jobs", "2")
    assert code == 1 and (found["killed"], found["noticeable"], found["wanted"]) == (6, 8, 10)
    results = found["results"]
    assert "".join(f"{r['status']} {r['line']} {r['kind']}: {r['after']}\n" for r in results) == STATUS
    gone = next(r for r in results if r["status"] == "killed")
    assert (gone["rule"], gone["steps"]) == ("the counter counts the slot, when it is full", 2)

    whole = kept.read_bytes()
    assert len(whole.splitlines()) == 11
    kept.write_bytes(whole[:-20])  # killed while it wrote: that one is tried again
    again = mutate(capsys, "--resume", str(kept))
    assert again == (code, found) and sorted(kept.read_bytes().splitlines()) == sorted(whole.splitlines())

    survivors = tmp_path / "survivors.toml"
    names = ("file", "function", "kind", "before", "after")
    tables = [
        "\n".join(["[[mutant]]", *(f"{name} = {json.dumps(r[name])}" for name in names), f"reason = {reason!r}", "why = 'so'"])
        for r in results
        if r["status"] != "killed"
        for reason in ["equivalent" if r["status"] == "survived" else "cost"]
    ]
    stale = tables[0].replace("pass", "nothing")
    survivors.write_text("\n\n".join([*tables, stale]))
    code, found = mutate(capsys, "--resume", str(kept), "--survivors", str(survivors))
    assert code == 0 and (found["killed"], found["noticeable"]) == (6, 6)
    assert [entry["after"] for entry in found["stale"]] == ["nothing"]


def test_what_killed_a_mutant_of_older_code_is_tried_first() -> None:
    mutant = made(SOURCE)[0]
    good = {"functions": {(mutant.file, mutant.first)}, "states": 1}
    campaign = run.Campaign([], [], most=2)
    campaign._good = {run.Case(name, ()): {**good, "seconds": cost} for name, cost in (("a", 1), ("b", 2), ("dear", 99))}
    assert [case.name for case in campaign._order(mutant)] == ["a", "b"]
    campaign.hints = {mutant.key: "dear"}
    assert [case.name for case in campaign._order(mutant)] == ["dear", "a"]


def test_what_takes_too_long_is_not_survived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "results.jsonl"
    code, found = mutate(capsys, "--within", "0.000001", "--resume", str(kept))
    assert code == 3 and found["results"] == [] and len(kept.read_text().splitlines()) == 1


HANGS = """\
from guestmem.model import World, step, thread

class Counted(World):
    def setup(self) -> None:
        n = 0
        while n < 10:
            n += 1

    @thread
    def act(self) -> None:
        while True:
            self.go()

    @step
    def go(self) -> None:
        pass
"""


def test_what_hangs_is_not_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    monkeypatch.setattr(run, "PATIENCE", 2)
    code = main(["mutate", f"{tmp_path / 'hangs.py'}:Counted", "--only", "statement gone"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "hangs.py:7" in line]
    assert code == 3
    assert lines == ["incomplete  hangs.py:7 statement gone: n += 1 -> pass  hangs.py:Counted: no answer in 2 s"]


BROKEN = """\
from guestmem.model import World, require, thread

class Wrong(World):
    done: bool = False

    @thread
    def act(self) -> None:
        self.done = True
        require(not self.done, "nothing is ever done")
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "'nothing' is nothing to change: use file.py:World, guest_memfd, hypervisors, mm, machine"),
        (["mm", "kvm"], "'kvm' is nothing to change"),
        (["mm", "--pages", "2"], "--pages is for a file of yours"),
        (["mm", "--file", "mm/folios.py"], "'mm/folios.py' is no file of these targets: use one of mm/direct_map.py"),
        (["mm", "--only", "swap"], "'swap' is no kind of mutant: use one of statement gone"),
        (["machine/cost.py"], "there is no such mutant"),
        (["mm", "--within", "soon"], "'soon' is no time: write 30s, 2m or 1h"),
        (["mm", "--survivors", "none.toml"], "none.toml: No such file or directory: name a list of survivors"),
        (["mm", "--survivors", "mutate.toml"], "mutate.toml: table 1: 'lazy' is no reason: use one of equivalent, cost, hole"),
        (["mm", "--survivors", "wrong.py"], "wrong.py: it is no TOML"),
        (["mm", "--resume", "wrong.py"], "wrong.py: it is no file of results: name another one with --resume"),
        (["mm", "--resume", "old.jsonl"], "old.jsonl: it has results of another code: name another file with --resume"),
        (["mm", "--hints", "old.jsonl"], "old.jsonl: it has no results: name a file that --resume has written"),
        (["wrong.py:Wrong"], "wrong.py:Wrong as it is: violated: nothing is ever done: correct that first"),
        (["wrong.py:Nobody"], "'Nobody' is no World of wrong.py"),
        (["wrong.py:Wrong", "mm"], "name one file.py:World at a time"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.py").write_text(BROKEN)
    Path("old.jsonl").write_text(json.dumps({"schema": 1, "code": "older"}) + "\n")
    texts = "".join(f"{name} = 'x'\n" for name in ("file", "function", "kind", "before", "after", "why"))
    Path("mutate.toml").write_text(f"[[mutant]]\n{texts}reason = 'lazy'\n")
    assert main(["mutate", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("guestmem: ") and printed.err.count("\n") == 1
    assert said in printed.err
