# SPDX-License-Identifier: Apache-2.0
"""Counterexamples: what a row says, what is folded, the debugger, and traces that plain Python does not confirm."""

import io
import json
import re
from collections.abc import Callable
from errno import EBUSY
from pathlib import Path

import pytest

from guestmem.checker import Model
from guestmem.checker.trace import Unreplayed, counterexample, table
from guestmem.cli import main as cli
from guestmem.model import Mutex, Record, World, choose, part, require, step, thread, when
from guestmem.model.errors import ALWAYS_A_STEP, NO_DEADLOCK
from guestmem.model.schedule import Slice

CLAIMED = "a claim succeeds"


class Device(Record):
    busy: bool = False

    @step
    def claim(self) -> int:
        if self.busy:
            return -EBUSY
        self.busy = True
        return 0

    def held(self) -> int:
        """A function of a model that is called as one of the language's own."""
        return self.claim()


class Claims(World):
    """One opens a device and claims it; another claims it too, and breaks a rule some lines after its step."""

    device: Device = part()
    opened: bool = False

    def begun(self) -> bool:
        return self.opened

    @step
    def open(self) -> None:
        self.opened = True

    @step
    def wait(self) -> None:
        when(self.device.busy)

    @thread
    def first(self) -> None:
        self.device.claim()
        self.open()

    @thread
    def second(self) -> None:
        self.wait()
        while True:
            err = self.device.held()
            require(err == 0, CLAIMED)


GOLDEN = """\
   1   first       tests/checker/test_trace.py:N  Claims.first: self.device.claim()
                     device.busy: no -> yes
   2   second      tests/checker/test_trace.py:N  Claims.second: self.wait()
   3   second      tests/checker/test_trace.py:N  Device.held: return self.claim()
                     -EBUSY from Device.claim, Device.held
                   tests/checker/test_trace.py:N  Claims.second: require(err == 0, CLAIMED)
      broken: a claim succeeds
"""


def lines_of(text: str) -> str:
    """A table without the numbers of lines, which are others when a file changes; columns stay."""
    return re.sub(r"\.py:(\d+)( *)", lambda m: ".py:N" + " " * (len(m[1]) - 1 + len(m[2])), text)


def test_a_trace_ends_at_the_line_that_broke_the_rule() -> None:
    (violation,) = Model(Claims()).explore().violations
    rows = counterexample(Claims(), violation.rule, violation.slices)
    printed = "\n".join(table(rows)) + "\n"
    assert lines_of(printed) == GOLDEN
    assert rows[-1].broken_at is not None
    assert rows[-1].broken_at[1].line == Claims.second.__code__.co_firstlineno + 5
    assert rows[-1].failed == [("Device.claim", -EBUSY), ("Device.held", -EBUSY)]


def test_lines_of_the_users_file_are_marked() -> None:
    (violation,) = Model(Claims()).explore().violations
    marked = list(table(counterexample(Claims(), violation.rule, violation.slices), mine=__file__))
    assert [line[5] for line in marked if "test_trace.py" in line] == [">"] * 4


OPENED = [Slice(0), Slice(0), Slice(1)]


def test_what_every_run_begins_with_is_one_line() -> None:
    slices = [*OPENED, Slice(1)]
    folded = list(table(counterexample(Claims(), CLAIMED, slices), full=False))
    assert folded[0] == " 1-2   first       set-up: 2 steps (--full shows each step)"
    assert folded[1].startswith("   3   second ")
    whole = list(table(counterexample(Claims(), CLAIMED, slices), full=True))
    assert whole[0].startswith("   1   first ")
    assert whole[-len(folded) + 1 :] == folded[1:]
    # What the user's file does is not folded: the fault may be there.
    mine = table(counterexample(Claims(), CLAIMED, slices), mine=__file__, full=False)
    assert next(mine).startswith("   1 > first ")


class Raises(World):
    """What plain Python does here breaks no rule."""

    lock: Mutex = part()

    @thread
    def first(self) -> None:
        with self.lock:
            self.act(choose(2))

    @thread
    def second(self) -> None:
        self.lock.acquire()

    @step
    def act(self, what: int) -> None:
        numbers = (1,)
        self.lock.holder = numbers[what % 2]


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        ([Slice(0), Slice(0, (1,))], r"step 2 raises IndexError: tuple index out of range at tests/checker/test_trace.py:\d+"),
        ([Slice(0), Slice(1)], "step 2 waits"),
        ([Slice(0), Slice(0)], "step 2 has other choices"),
        ([Slice(0), Slice(0, (2,))], "step 2 has other choices"),
        ([Slice(1), Slice(1)], "second has returned before step 2"),
        ([Slice(0), Slice(0, (0,))], "no rule is broken"),
        ([], "no rule is broken before the first step"),
    ],
)
def test_a_trace_that_plain_python_does_not_confirm(slices: list[Slice], says: str) -> None:
    with pytest.raises(Unreplayed, match=says):
        counterexample(Raises(), "some rule", slices)


@pytest.mark.parametrize(
    ("rule", "slices", "says"),
    [
        ("some rule", [*OPENED, Slice(1)], f"it breaks another rule: {CLAIMED}"),
        (CLAIMED, [*OPENED, Slice(1), Slice(1)], f"step 4 already breaks a rule: {CLAIMED}"),
    ],
)
def test_a_trace_that_breaks_another_rule(rule: str, slices: list[Slice], says: str) -> None:
    with pytest.raises(Unreplayed, match=says):
        counterexample(Claims(), rule, slices)


def test_what_waits_or_never_ends_breaks_no_rule_in_a_step() -> None:
    rows = counterexample(Raises(), NO_DEADLOCK, [Slice(0)], waiting=[1])
    assert [row.thread for row in rows] == ["first"]
    assert counterexample(Raises(), ALWAYS_A_STEP, []) == []


@pytest.mark.parametrize(
    ("slices", "waiting", "says"),
    [([Slice(0)], [0, 1], "first does not wait"), ([Slice(1)], [1], "no thread waits"), ([], [1], "second does not wait")],
)
def test_a_wait_that_is_none(slices: list[Slice], waiting: list[int], says: str) -> None:
    with pytest.raises(Unreplayed, match=says):
        counterexample(Raises(), NO_DEADLOCK, slices, waiting=waiting)


@pytest.fixture
def saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[str, str]]:
    """A counterexample of Gunyah, saved; what was printed, and the file."""

    def save() -> tuple[str, str]:
        file = str(tmp_path / "trace.json")
        assert cli.main(["check", "gunyah", "--protection", "none", "--pages", "1", "--save-trace", file]) == 1
        return capsys.readouterr().out, file

    return save


def test_rows_are_readable(saved: Callable[[], tuple[str, str]]) -> None:
    printed, _ = saved()
    assert re.match(r"gunyah .*: violated in \d+ steps\n 1-\d+   vmm         set-up: .* \(--full shows each step\)\n", printed)
    assert max(map(len, printed.splitlines())) <= 100
    assert all(word in printed for word in ("hypervisors/gunyah.py:", "GunyahDriver.donate", "donate_to_guest(guest, frame"))


def test_the_debugger_stops_where_the_step_is_made(
    saved: Callable[[], tuple[str, str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed, file = saved()
    steps = re.findall(r"^ *(\d+) ", printed.rpartition("\n      broken")[0], re.M)
    donates = re.findall(r"^ *(\d+) .* GunyahDriver.donate\b", printed, re.M)
    monkeypatch.setattr("sys.stdin", io.StringIO("p order, private\nq\n"))
    assert cli.main(["explain", file, "--pdb", donates[0]]) == 1
    printed = capsys.readouterr().out
    assert "gunyah.py" in printed.splitlines()[0]
    assert printed.splitlines()[0].endswith("donate()")
    assert "(0, True)" in printed
    assert printed.endswith(f"left the debugger at step {donates[0]} of {steps[-1]}\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert cli.main(["explain", file, "--pdb"]) == 1
    assert capsys.readouterr().out.endswith(f"left the debugger at step {steps[-1]} of {steps[-1]}\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("c\n"))
    assert cli.main(["explain", file, "--pdb"]) == 1
    assert "broken: no host access ends in a panic" in capsys.readouterr().out
    assert cli.main(["explain", file, "--pdb", str(int(steps[-1]) + 1)]) == 2


def test_rows_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "gunyah", "--protection", "none", "--pages", "1", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    rows = found["rows"]
    assert [row["number"] for row in rows] == list(range(1, found["steps"] + 1))
    assert (rows[1]["thread"], rows[1]["function"], rows[1]["text"]) == ("vmm", "GuestMemfd.create", "with self.kernel.pm_lock:")
    assert ["file.open", "no", "yes"] in rows[1]["changes"]
    assert rows[1]["file"].endswith("guest_memfd/library.py")
    assert rows[-1]["broken_at"]["function"] == "do_mem_abort"
    assert rows[-1]["broken"][0].startswith("no host access ends in a panic: ")
