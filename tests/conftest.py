# SPDX-License-Identifier: Apache-2.0
"""Recorded numbers: ``recorded.json`` has them by test file and name; ``pytest -n0 --record`` is the one way to change them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("recorded.json")

#: Columns by name; a number that there is none of, such as the steps to what never breaks, is None.
Numbers = dict[str, int | None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write the numbers of this run to recorded.json (with -n0)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--record") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--record: one process writes the file: give -n0 too")


@pytest.fixture(scope="session")
def _sections(request: pytest.FixtureRequest) -> Iterator[dict[str, dict[str, Numbers]]]:
    """The numbers of each test file; those of a file that ran whole replace all that it had before."""
    sections: dict[str, dict[str, Numbers]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    if not request.config.getoption("--record"):
        yield sections
        return
    new: dict[str, dict[str, Numbers]] = {}
    yield new
    whole = not request.config.getoption("keyword") and not any("::" in given for given in request.config.args)
    for file, found in new.items():
        sections[file] = found if whole else sections.get(file, {}) | found
    texts = []
    for file, numbers in sorted(sections.items()):
        lines = [f"{json.dumps(name)}: {json.dumps(numbers[name])}" for name in sorted(numbers)]
        texts.append(f"{json.dumps(file)}: {{\n" + ",\n".join(lines) + "\n}")
    FILE.write_text("{\n" + ",\n".join(texts) + "\n}\n")


@pytest.fixture
def recorded(request: pytest.FixtureRequest, _sections: dict[str, dict[str, Numbers]]) -> Callable[..., None]:
    """Assert that the numbers found under a name are what is recorded for it."""

    def check(name: str, **found: int | None) -> None:
        numbers = _sections.setdefault(request.path.name, {})
        if request.config.getoption("--record"):
            numbers[name] = found
        assert found == numbers.get(name), name

    return check
