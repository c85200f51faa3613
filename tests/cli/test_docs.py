# SPDX-License-Identifier: Apache-2.0
"""The documentation is true: its example holds, its commands exist, its table is what the command prints."""

import inspect
import json
import re
import subprocess
import textwrap
from pathlib import Path

import pytest

from cells import cells, run
from guestmem.cli import main as cli
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS
from guestmem.scenarios.story import Story
from guestmem.upstream.catalogue import DEFECTS

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs").glob("*.md")


def test_the_example_of_a_scenario_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "own.md").read_text()
    example = re.search(r"```python\n# ring.py\n(.*?)```", text, re.S)
    assert example is not None
    file = tmp_path / "ring.py"
    file.write_text(example[1])
    assert cli.main(["check", f"{file}:Ring"]) == 0
    assert "holds" in capsys.readouterr().out


def test_the_page_on_python_shows_what_its_cells_show() -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    assert text.count("```python\n") == len(cells(text)) == text.count("```text\n")
    assert [shown for _, shown in run(text)] == [shown for _, shown in cells(text)]


def test_every_command_of_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"^guestmem (\w+)", text, re.M))
    assert used == {
        "compare",
        "check",
        "explain",
        "list",
        "probe",
        "conform",
        "fuzz",
        "record",
        "replay",
        "mutate",
        "calibrate",
        "boot",
        "new",
        "hooks",
        "defects",
    }
    for command in used:
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0


def test_each_of_the_two_first_commands_of_the_readme_is_one_line() -> None:
    text = (ROOT / "README.md").read_text()
    show, test, *_ = re.findall(r"```sh\n(.*?)```", text, re.S)
    assert show.count("\n") == test.count("\n") == 1
    assert show.endswith("guestmem compare gunyah --pages 1 --steps\n")
    assert test.endswith("ruff check && ruff format --check && mypy && pytest\n")
    extracts = re.search(r"awk '.*?' README.md", (ROOT / ".ci" / "run").read_text())
    assert extracts is not None
    assert subprocess.run(extracts[0], shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout == test


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *sorted(f"docs/{f.name}" for f in DOCS)])
def test_every_link_leads_somewhere(name: str) -> None:
    file = ROOT / name
    for target in re.findall(r"\]\(([\w./]+)(?:#[\w-]+)?\)", file.read_text()):
        assert (file.parent / target).is_file(), target


def test_every_file_named_for_contributors_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:src|tests|docs|scenarios)/[\w./]+)`", text))
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "src" / "guestmem" / name).exists(), name


def test_the_list_of_scenarios_is_current() -> None:
    text = (ROOT / "docs" / "scenarios.md").read_text()
    for scenario in SCENARIOS.values():
        each = [scenario.expected.get(p, scenario.expected.get("")) for p in PROTECTIONS]
        rules = ["not asked" if rule is None else rule or "holds" for rule in each]
        assert f"| `{scenario.name}` | {scenario.text} | {' | '.join(rules)} |\n" in text


def test_the_list_of_defects_is_current() -> None:
    text = (ROOT / "docs" / "upstream.md").read_text()
    recorded = json.loads((ROOT / "tests" / "recorded.json").read_text())["test_defects.py"]
    for number, defect in DEFECTS.items():
        numbers = recorded[number]
        assert f"| {number} | {defect.scenario.text} |" in text
        assert f"| {numbers['steps']} | {numbers['states']} | {defect.source} |" in text


def test_the_story_is_told_as_it_runs() -> None:
    text = (ROOT / "docs" / "thread.md").read_text()
    assert textwrap.dedent(inspect.getsource(Story.story)) in text
