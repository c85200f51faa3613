# SPDX-License-Identifier: Apache-2.0
"""The guide of ten minutes: each file is written, each command run in an empty directory, and prints what the guide shows."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "ten_minutes.md"


def commands(console: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block, and the lines that each prints."""
    for part in re.split(r"^\$ ", console, flags=re.M)[1:]:
        command, *shown = part.splitlines()
        yield command, shown


def printed(command: str, place: Path) -> list[str]:
    """What a command prints, without what differs from run to run."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=place, env=environment, capture_output=True, text=True, check=False)
    text = (done.stdout + done.stderr).replace(f"{place}/", "")
    return [re.sub(r"\b\d+\.\d+ ?s$", "N s", line) for line in text.splitlines() if line.strip()]


def test_the_guide(tmp_path: Path) -> None:
    blocks = re.findall(r"```(python|console)\n(.*?)```", GUIDE.read_text(), re.S)
    assert [kind for kind, _ in blocks].count("console") >= 5
    for kind, text in blocks:
        if kind == "python":
            name, _, source = text.partition("\n")
            (tmp_path / name.removeprefix("# ")).write_text(source)
            continue
        for command, shown in commands(text):
            lines = printed(command, tmp_path)
            if "pytest" in command:
                lines = lines[-1:]
            if "   ..." in shown:
                after = shown[shown.index("   ...") + 1 :]
                assert (lines[0], lines[-len(after) :]) == (shown[0], after), command
            else:
                assert lines == shown, command
