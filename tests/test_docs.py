# SPDX-License-Identifier: Apache-2.0
"""The documentation is true: its example holds, its commands exist, its table is what the command prints."""

import inspect
import re
import textwrap
from pathlib import Path

import pytest

from cells import cells, run
from guestmem.cli import main as cli
from guestmem.scenarios.catalogue import PROTECTIONS, SCENARIOS
from guestmem.scenarios.story import Thread

ROOT = Path(__file__).parent.parent


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
    assert used == {"compare", "check", "explain", "list", "probe", "conform", "fuzz", "record", "replay", "mutate"}
    for command in used:
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0


def test_every_link_of_the_readme_leads_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((docs/[\w.]+)\)", text):
        assert (ROOT / target).is_file()


def test_the_list_of_scenarios_is_current() -> None:
    text = (ROOT / "docs" / "scenarios.md").read_text()
    for scenario in SCENARIOS.values():
        rules = [scenario.expected.get(p, scenario.expected.get("", "")) or "holds" for p in PROTECTIONS]
        assert f"| `{scenario.name}` | {scenario.text} | {' | '.join(rules)} |\n" in text


def test_the_story_is_told_as_it_runs() -> None:
    text = (ROOT / "docs" / "thread.md").read_text()
    assert textwrap.dedent(inspect.getsource(Thread.story)) in text
