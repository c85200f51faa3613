# SPDX-License-Identifier: Apache-2.0
"""``import guestmem``: what it gives, when that is imported, and how results look."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import guestmem
from guestmem import World, bounded, model, require, step, thread
from guestmem.cli import main as cli


class Counter(World):
    """One who counts."""

    n: int = bounded(3)

    @thread
    def only(self) -> None:
        while True:
            self.count()

    @step
    def count(self) -> None:
        require(self.n != 3, "never three")
        self.n += 1


def without_times(text: str) -> str:
    """What is printed, but for how long it took."""
    return re.sub(r"\d+\.\d s", "T", text.rstrip())


def test_it_gives_the_commands_and_the_language() -> None:
    assert set(guestmem.__all__) == {*model.__all__, "check", "compare", "explain", "scenarios", "world"}
    assert set(guestmem.__all__) <= set(dir(guestmem))
    for name in guestmem.__all__:
        assert getattr(guestmem, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'chek'"):
        _ = guestmem.chek  # type: ignore[attr-defined]


def test_nothing_is_imported_before_it_is_used() -> None:
    loaded = "[name for name in sys.modules if name.startswith('guestmem.')]"
    script = f"import sys, guestmem; print({loaded}); guestmem.World; print('guestmem.report' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "False"]


def test_a_check_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    found = guestmem.check("gunyah", protection="none", pages=1)
    assert cli.main(["check", "gunyah", "--protection", "none", "--pages", "1"]) == 1
    assert without_times(str(found)) == without_times(capsys.readouterr().out)
    assert (found.verdict, found.rule) == ("violated", "no host access ends in a panic")
    assert found.steps == len(found.rows)
    assert repr(found) == (
        f"<Check of gunyah pages=1 frames=2 protection=none: violated in {found.steps} steps: no host access ends in a panic>"
    )


def test_a_check_that_climbs_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    found = guestmem.check("kvm-two-threads", within=0.001)
    assert cli.main(["check", "kvm-two-threads", "--within", "0.001s"]) == 3
    assert without_times(str(found)) == without_times(capsys.readouterr().out)
    assert found.verdict == "incomplete"


def test_a_world_of_ones_own_is_checked_and_explained() -> None:
    found = guestmem.check(Counter)
    assert (found.verdict, found.rule, found.steps) == ("violated", "never three", 4)
    why = guestmem.explain(found)
    table = "\n".join(str(why).splitlines()[1:])
    assert table in str(found)
    assert table.endswith("broken: never three")
    assert repr(why).endswith(": 4 steps: never three>")
    with pytest.raises(guestmem.Refused, match="no rule is broken"):
        guestmem.explain(guestmem.check("kvm", pages=1))


def test_a_record_shows_where_it_is_and_what_it_holds() -> None:
    world = Counter()
    assert (str(world), repr(world)) == ("counter", "<Counter counter: n=0>")
    host = guestmem.world("gunyah", pages=1)
    frame = host.machine.frames[0]  # type: ignore[attr-defined]
    assert str(frame) == "machine.frames[0]"
    assert repr(frame).startswith("<Frame machine.frames[0]: pfn=0, next=machine.frames[1], content=HOST, ")


def test_a_mistake_is_one_line() -> None:
    for call, says in (
        (lambda: guestmem.check("xen"), "xen: no such scenario: use one of kvm, "),
        (lambda: guestmem.check("kvm", protection="magic"), "magic: no such protection: use one of none, "),
        (lambda: guestmem.compare("kvm", arch=["mips"]), "mips: no such architecture: use one of arm64, "),
        (lambda: guestmem.compare("kvm", pagess=1), "'pagess' is no size or option of it: use one of: "),
        (lambda: guestmem.explain("/nonexistent"), "/nonexistent: No such file or directory: name a file written by "),
        (lambda: guestmem.world("kvm", pages="many"), "pages='many': no number of at least 1: write pages=1"),
    ):
        with pytest.raises(guestmem.Refused) as refused:
            call()
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)


def test_the_scenarios_are_at_hand() -> None:
    assert {"kvm", "pkvm", "gunyah"} <= guestmem.scenarios.SCENARIOS.keys()
    assert guestmem.scenarios.find("kvm").name == "kvm"


def test_its_types_are_for_its_users() -> None:
    assert (Path(guestmem.__file__).parent / "py.typed").is_file()
