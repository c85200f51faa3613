# SPDX-License-Identifier: Apache-2.0
"""A wheel needs no source tree: installed in a new environment it checks a scenario, and its types are for its users.

Slow (half a minute): a wheel is built and installed, and compiles with nothing cached.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cells import cells
from requires import require

ROOT = Path(__file__).parents[2]


def run(*argv: str | Path, cwd: Path, code: int = 0) -> str:
    """What a command prints that sees nothing of the source tree."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    environment["XDG_CACHE_HOME"] = str(cwd / "cache")
    done = subprocess.run(list(map(str, argv)), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which a wheel of this tree is installed, and nothing else."""
    require("hatchling")
    place = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    run(sys.executable, "-c", f"import os; os.chdir({str(ROOT)!r}); {build}", place, cwd=place)
    (wheel,) = place.glob("*.whl")
    run(sys.executable, "-m", "venv", place / "venv", cwd=place)
    run(place / "venv" / "bin" / "pip", "install", "-q", "--no-index", "--no-deps", wheel, cwd=place)
    return place


def test_it_checks_a_scenario(installed: Path) -> None:
    printed = run(installed / "venv" / "bin" / "guestmem", "check", "gunyah", "--pages", "1", cwd=installed)
    assert printed.startswith("gunyah pages=1 frames=2 protection=unmap: holds\n")


def test_it_prints_the_step_table(installed: Path) -> None:
    line = "import guestmem; print(guestmem.check('gunyah', protection='none', pages=1))"
    printed = run(installed / "venv" / "bin" / "python", "-c", line, cwd=installed)
    assert "Zeropad.zeropad" in printed
    assert "broken: no host access ends in a panic" in printed


def test_a_users_types_are_checked(installed: Path) -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    (installed / "example.py").write_text("\n".join(source for source, _ in cells(text)))
    mypy: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        installed / "venv" / "bin" / "python",
    ]
    assert run(*mypy, "example.py", cwd=installed).startswith("Success")
    (installed / "wrong.py").write_text("import guestmem\n\nguestmem.chek\nguestmem.check(3)\n")
    found = run(*mypy, "wrong.py", cwd=installed, code=1)
    assert 'Module has no attribute "chek"' in found
    assert 'Argument 1 to "check" has incompatible type "int"' in found
