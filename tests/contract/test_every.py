# SPDX-License-Identifier: Apache-2.0
"""``guestmem fuzz --all N``: every small program, once, by number, with a look at all that can be seen."""

import itertools
from pathlib import Path

import pytest

from guestmem.cli import main as cli
from guestmem.contract import fuzz
from guestmem.contract.every import FILE_FLAGS, LETTERS, Everything, Programs, beginning, performed
from guestmem.contract.interface import Host, Missing
from guestmem.contract.results import EINVAL, Result
from guestmem.contract.syscalls import files, mappings, objects
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.linux.facts import Facts
from requires import require

FACTS = Facts()


class ForgetsOnePage(SimulatedHost):
    """A hole that ends at the end of the file leaves its last page, where there are two."""

    class Files(files.Files):
        def vfs_fallocate(self, file: objects.Open, mode: int, offset: int, length: int) -> int:
            if mode == 3 and offset == 0 and length == 4 * 4096:
                length -= 4096
            return super().vfs_fallocate(file, mode, offset, length)


class DropsMore(SimulatedHost):
    """MADV_DONTNEED takes the pages away as well."""

    class Mappings(mappings.Mappings):
        def drop_entries(self, mapping: objects.Mapping, start: int, end: int) -> None:
            assert isinstance(mapping.file, objects.Gmem)
            with self.kernel.running():
                mapping.file.punch_hole((mapping.offset + start) // 4096, (mapping.offset + end) // 4096)


def compared(longest: int, kernel: type[SimulatedHost], first: int = 0) -> Everything:
    """All programs on two simulated hosts, of which the second stands for the kernel."""
    everything = Everything(longest, first, SimulatedHost, kernel)
    list(everything.run(600, None, lambda _: None))
    return everything


def letters_of(flags: int) -> int:
    """How many letters a beginning has, counted another way: by the words in their text."""
    has = {"vm", "a", "b", "cpu", *(["m"] if flags & 1 else [])}
    named = ({name for name in ("vm", "a", "b", "m", "cpu") if f"Thing(name='{name}')" in repr(one)} for one in LETTERS)
    return sum(names <= has for names in named)


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_the_number_of_programs_is_that_of_all_sequences(longest: int) -> None:
    many = [letters_of(flags) for flags in FILE_FLAGS.values()]
    assert many == [47, 47, 32]
    assert len(Programs(longest, FACTS)) == sum(n**length for n in many for length in range(1, longest + 1))


def test_every_sequence_has_one_number() -> None:
    programs = Programs(2, FACTS)
    all_of_them = [programs[number] for number in range(len(programs))]
    by_beginning = [list(group) for _, group in itertools.groupby(all_of_them, key=lambda one: str(one[0]))]
    assert len(by_beginning) == len(FILE_FLAGS)
    for (_, letters), group in zip(programs.beginnings, by_beginning, strict=True):
        sequences = [tuple(sequence) for _, sequence in group]
        assert sequences == [*itertools.product(letters), *itertools.product(letters, letters)]
    with pytest.raises(IndexError):
        programs[len(programs)]


def test_the_model_knows_every_program_of_two_operations() -> None:
    host = SimulatedHost()
    programs = Programs(2, FACTS)
    for number in range(0, len(programs), 7):
        program, steps = performed(host, *programs[number])
        assert len(program) == len(steps) > 10


def test_a_host_that_is_the_same_does_not_diverge() -> None:
    everything = compared(1, SimulatedHost)
    assert (everything.divergences, everything.programs, everything.reached) == ([], len(everything.all), len(everything.all))


@pytest.mark.parametrize(
    ("wrong", "shows"),
    [(ForgetsOnePage, "cachestat"), (DropsMore, "cachestat")],
)
def test_a_state_that_no_operation_shows_is_seen_in_the_end(wrong: type[SimulatedHost], shows: str) -> None:
    """Without the look these would slip through: no letter of the alphabet is one of these operations."""
    assert shows not in {letter.name for letter in LETTERS}
    assert shows in {divergence.program[-1].name for divergence in compared(2, wrong).divergences}


def test_a_run_goes_on_where_it_stopped() -> None:
    whole = compared(1, ForgetsOnePage)
    assert compared(1, ForgetsOnePage, first=100).programs == whole.programs - 100
    stopped = Everything(2, 0, SimulatedHost, SimulatedHost)
    for _ in stopped.run(600, 30, lambda _: None):
        pass
    stopped.stop()
    assert stopped.reached == 30
    assert "stopped: go on with --all 2 --first 30" in list(stopped.report({}))


def test_what_the_machine_lacks_is_not_enumerated() -> None:
    class NoGuest(SimulatedHost):
        facts = FACTS._replace(files=(1, 3), bindable=(1, 3))

        def create_vcpu(self, vm: Result) -> Result:
            raise Missing("a guest for m68k")

    everything = compared(1, NoGuest)
    assert everything.divergences == []
    assert not any("cpu" in made for made, _ in everything.all.beginnings)
    report = "\n".join(everything.report({}))
    assert "not enumerated: a file that is not mappable: KVM makes no files with flags 0" in report
    assert "not fuzzed: create_vcpu: a guest for m68k" in report


def test_what_is_made_first_is_there() -> None:
    for flags in FILE_FLAGS.values():
        host = SimulatedHost()
        _, steps = performed(host, beginning(flags, FACTS), [])
        assert all(isinstance(done.result, (int, bytes)) or flags != 3 or done.result != EINVAL for done in steps)


def test_on_this_kernel(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    require("kvm")
    assert cli.main(["fuzz", "--all", "1", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("no unexplained divergence\n")


def test_a_seed_is_for_random_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "kernel_host", lambda: Host())
    assert cli.main(["fuzz", "--all", "2", "--seed", "1"]) == 2
    assert "leave one of the two out" in capsys.readouterr().err
