# SPDX-License-Identifier: Apache-2.0
"""What docs/linux.md says is so: its example prints what it shows, its commands exist, its costs are the profile's."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guestmem.cli import main as cli
from guestmem.linux import calibrate
from requires import require

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "linux.md").read_text()


def run(file: Path) -> str:
    """What a script prints."""
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", ["hole.py", "child.py"])
def test_an_example_prints_what_is_shown(name: str, tmp_path: Path) -> None:
    require("kvm")
    found = re.search(rf"```python\n(# {name}\n.*?)```\n\n```text\n(.*?)```", TEXT, re.S)
    assert found is not None
    (tmp_path / name).write_text(found[1])
    assert run(tmp_path / name) == found[2]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the guest is one for x86-64")
def test_the_guest_on_guest_memfd_boots() -> None:
    require("kvm")
    assert f"```text\n{run(ROOT / 'examples' / 'boot_guest.py')}```" in TEXT


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
