# SPDX-License-Identifier: Apache-2.0
"""Recorded numbers: ``recorded.json`` has them by name; ``pytest -n0 --record`` is the one way to change them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).with_name("recorded.json")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write the numbers of this run to recorded.json (with -n0)")


@pytest.fixture(scope="session")
def _numbers(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    numbers: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    yield numbers
    if request.config.getoption("--record"):
        lines = [f"{json.dumps(name)}: {json.dumps(numbers[name])}" for name in sorted(numbers)]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@pytest.fixture
def recorded(request: pytest.FixtureRequest, _numbers: dict[str, Any]) -> Callable[[str, Any], None]:
    """Assert that what was found under a name is what is recorded for it."""

    def check(name: str, found: Any) -> None:
        if request.config.getoption("--record"):
            _numbers[name] = found
        assert found == _numbers.get(name), name

    return check
