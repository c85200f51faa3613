# SPDX-License-Identifier: Apache-2.0
"""What docs/contract.md says is so: tables made from the data, programs that print what is shown, commands that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from guestmem.cli import main as cli
from guestmem.contract.conform import kernel_host
from guestmem.contract.deviations import DEVIATIONS
from guestmem.contract.document import SECTIONS, reports
from guestmem.contract.interface import Host
from guestmem.contract.program import Line, recorded
from guestmem.contract.results import Result
from guestmem.contract.rows import rows
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.linux.process import Worker
from requires import require

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "contract.md").read_text(encoding="utf-8")
FOUND = re.findall(r"\*\*([^*]+)\*\*[^`]*(?:`[^`]+`[^`]*)*```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.S)


def run(host: Host, code: str) -> list[Line]:
    """What the operations of a program give."""

    def program(recorder: Any) -> None:
        exec(code, {"host": recorder})

    return recorded(host, program)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_tables_are_current(name: str) -> None:
    found = re.search(rf"<!-- {name}: python tools/generate_contract.py -->\n(.*?)<!-- end -->", TEXT, re.S)
    assert found is not None
    assert found[1] == SECTIONS[name](), "run python tools/generate_contract.py"


def test_the_reports_are_current() -> None:
    files = {file.name: file.read_text(encoding="utf-8") for file in (DOCS / "reports").iterdir()}
    assert files == reports(), "run python tools/generate_contract.py"
    assert all(f"(reports/{name})" in TEXT for name in files)


@pytest.mark.parametrize(("title", "code", "shown"), FOUND, ids=[title for title, _, _ in FOUND])
def test_what_was_found_is_so(title: str, code: str, shown: str) -> None:
    require("kvm")
    with Worker(kernel_host, run) as worker:
        lines = [f"{line.operation}: {line.result!r}" for line in worker.do(code)]
    assert lines[-len(shown.splitlines()) :] == shown.splitlines()


def test_enough_was_found() -> None:
    assert len(FOUND) == 7


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: deviation.rows[0])
def test_a_deviation_has_rows_and_a_program_that_meets_its_rule(deviation: Any) -> None:
    assert any(row.name.startswith(deviation.rows) for row in rows())
    host = SimulatedHost()
    steps: list[tuple[str, Result, str]] = []

    class Watched:
        """Passes operations on and notes the rule."""

        def __getattr__(self, name: str) -> Any:
            def operation(*arguments: Any) -> Result:
                result: Result = getattr(host, name)(*arguments)
                steps.append((name, result, host.rule))
                return result

            return operation

    exec(deviation.program, {"host": Watched()})
    assert (deviation.operation or steps[-1][0], deviation.expected, deviation.rule) in steps


def test_every_command_exists() -> None:
    used = set(re.findall(r"^guestmem (\w+)", TEXT, re.M))
    assert used == {"conform", "fuzz"}
    for command in used:
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0
