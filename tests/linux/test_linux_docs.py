# SPDX-License-Identifier: Apache-2.0
"""What docs/linux.md says is so: its example prints what it shows, its commands exist, its costs are the profile's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from guestmem.cli import main as cli
from guestmem.linux import calibrate
from requires import require

TEXT = (Path(__file__).parents[2] / "docs" / "linux.md").read_text()


def test_the_example_prints_what_is_shown(tmp_path: Path) -> None:
    require("kvm")
    found = re.search(r"```python\n(# hole.py\n.*?)```\n\n```text\n(.*?)```", TEXT, re.S)
    assert found is not None
    file = tmp_path / "hole.py"
    file.write_text(found[1])
    run = subprocess.run([sys.executable, str(file)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == found[2]


def test_every_command_exists() -> None:
    used = set(re.findall(r"^guestmem (\w+)", TEXT, re.M))
    assert {"probe", "record", "replay", "calibrate"} <= used
    for command in used:
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0


def test_the_costs_are_those_of_the_profile() -> None:
    found = re.search(r"<!-- profile -->\n```text\n(.*?)```", TEXT, re.S)
    assert found is not None
    shown = {line.split()[0]: int(line.split()[1]) for line in found[1].splitlines()}
    costs = calibrate.default()["costs"]
    assert shown == {name: round(cost["median"]) for name, cost in costs.items() if name != "call"}
