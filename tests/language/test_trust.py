# SPDX-License-Identifier: Apache-2.0
"""What users bring, each file wrong in its own way: the verdict or the refusal is the one that its first line states."""

import re
from pathlib import Path

import pytest

from guestmem.cli.main import main

FILES = sorted((Path(__file__).parents[1] / "trust").glob("*.py"))
EXIT_CODES = {"holds": 0, "violated": 1, "refused": 2, "exit 2": 2}

#: What is printed, by file: a part of the line that says what is wrong.
SAYS = {
    "chain_stops_early": "the last part was evaluated",
    "counter_leaked_once": "counters equal",
    "driver_missing_return": "reclaim() may end without a return",
    "driver_not_plugged_in": "Mine",
    "field_named_as_a_method": "W.marked: a field with a name of World's own",
    "index_evaluated_once": "called twice",
    "integers_beyond_32_bits": "n stays 0",
    "iterated_once": "no mark is seen",
    "loop_bound_once": "n is not 3",
    "never_called": "before_reclaim",
    "no_return_on_one_path": "value() may end without a return",
    "none_after_early_return": "no None is used as a record",
    "override_misspelt": "prepare_accessible",
    "return_0": "broken: ",
    "span_out_of_range": "Slot(2) of 2",
    "spin_on_a_flag": "a wait ends",
    "super_in_shared_mixin": "n is never 2 or 3",
    "threads_unmarked": "zeropad",
    "unassigned_local": "'at' may have no value here",
}


def expected(file: Path) -> tuple[list[str], set[int]]:
    """The arguments of the command in the first line of a file, and the exit codes that the line allows."""
    line = file.read_text().partition("\n")[0]
    found = re.fullmatch(r"# expected of `guestmem (.+?)`: (.+)", line)
    assert found, line
    arguments = found[1].replace(f"tests/trust/{file.name}", str(file)).split()
    verdicts = re.findall("|".join(EXIT_CODES), found[2].partition("never")[0])
    return arguments, {EXIT_CODES[verdict] for verdict in verdicts}


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_the_verdict_is_right(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, codes = expected(file)
    small = ["--pages", "1"] if file.stem == "never_called" else []  # larger sizes take a minute
    code = main([*arguments, *small])
    printed = capsys.readouterr()
    assert code in codes
    assert SAYS[file.stem] in printed.out + printed.err
