# SPDX-License-Identifier: Apache-2.0
"""What depends on the machine: the model resembles any, the contract holds on each, and a deviation excuses what it is about."""

import collections
import errno
import os
import signal
from typing import Any

import pytest
from test_conform import OverlapIsInvalid

from guestmem.contract import conform, deviations
from guestmem.contract.deviations import DEVIATIONS, known
from guestmem.contract.generate import generate
from guestmem.contract.program import present
from guestmem.contract.results import EEXIST, EINVAL, Denied, Errno, Result
from guestmem.contract.rows import GROUPS, rows
from guestmem.contract.syscalls import vms
from guestmem.contract.syscalls.objects import Slot
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.linux import probe
from guestmem.linux.facts import HUGE_SHIFT, Facts, find
from requires import require

NEW = Facts()
PLAIN = NEW._replace(
    protected=(), vm_types=(0,), converts=(), flags=3, writes=0, no_direct_map=0, huge=0, userfaults=0, preserves=False
)
MACHINES = {
    "as most are": NEW,
    "without SMM": NEW._replace(address_spaces=1),
    "5-level paging": NEW._replace(user_bits=56),
    "no forced reads, secret memory not locked": NEW._replace(forced=False, secret_locked=False),
    "overlaps found first": NEW._replace(overlap_first=True),
    "no conversion": NEW._replace(converts=()),
    "conversion in place of attributes of VMs": NEW._replace(protected=(), file_only=True),
    "write(2), with the first new flag": NEW._replace(flags=7, writes=4, no_direct_map=0),
    "memory that the direct map does not have": NEW._replace(flags=7, writes=0),
    "no userfaultfd": NEW._replace(userfaults=0),
    "huge pages of 128 KiB, another flag": NEW._replace(huge=32 | 17 << HUGE_SHIFT),
    "no huge pages, nothing preserved": NEW._replace(huge=0, preserves=False),
    "userfaultfd for pages that are there": NEW._replace(userfaults=4),
    "no new flag": NEW._replace(flags=3, writes=0, no_direct_map=0),
    "a small address space": NEW._replace(room_bits=32, commit=1 << 30),
    "no private memory, no attributes, no pre-faulting": PLAIN._replace(attributes=False, pre_faults=False),
    "arm64": PLAIN._replace(
        machine="aarch64",
        bindable=(1, 3),
        memory_fault=0,
        slots=32767,
        address_spaces=1,
        gpa_bits=40,
        user_bits=52,
        room_bits=48,
        counts_entries=False,
        attributes=False,
        pre_faults=False,
        no_pre_fault=errno.EINVAL,
    ),
    "KVM that makes files and binds none": PLAIN._replace(
        files=(0,), bindable=(), flags=0, said=0, anonymous=False, no_exec=False
    ),
    "no guest_memfd": PLAIN._replace(files=(), bindable=(), flags=0, said=0),
}


def on(facts: Facts) -> SimulatedHost:
    """A simulated host that resembles a machine."""
    host = SimulatedHost()
    host.resemble(facts)
    return host


@pytest.mark.parametrize("name", MACHINES)
def test_the_contract_holds_on_a_model_of_any_machine(name: str) -> None:
    """And what probe says can be tested is what conform tests, but for secret memory, whose rows ask the kernel alone."""
    facts = MACHINES[name]
    outcomes = list(conform.run_model(rows(), lambda: on(facts)))
    assert [o for o in outcomes if o.result not in ("pass", "skip")] == []
    if name in ("as most are", "overlaps found first"):
        assert [o for o in outcomes if o.result == "skip"] == []
    found: dict[str, Any] = {
        "kernel": {"root": True},
        "kvm": {
            "usable": True,
            "capabilities": {"MEMORY_ATTRIBUTES": 0, "PRE_FAULT_MEMORY": 0},
            "guests": {"real_mode": "runs", "long_mode_cpl3": "runs on guest_memfd", "el1": "runs on guest_memfd"},
            "facts": facts._asdict(),
        },
        "cachestat": {"usable": True},
        "memfd_secret": {"usable": True},
        "tracefs": {"usable": True},
        "gunyah": False,
    }
    testable = {row["what"]: row["testable"] for row in probe._testable(found)}
    runs = {group: any(o.result == "pass" for o in outcomes if o.name.startswith(f"{group}.")) for group in GROUPS}
    assert {group: testable[group] for group in GROUPS} == runs


@pytest.mark.parametrize("name", MACHINES)
def test_random_programs_are_made_for_any_machine(name: str) -> None:
    host, left_out = on(MACHINES[name]), collections.Counter[str]()
    made = [generate(host, f"7.{number}", left_out=left_out) for number in range(20)]
    assert sum(len(program) for program, _ in made) > (200 if MACHINES[name].files else 20)


def test_this_machines_facts_are_legal() -> None:
    require("kvm")
    facts = find()
    assert set(facts.bindable) <= set(facts.files) <= {0, 1, 2, 3}
    assert facts.gpa_bits > 32 and facts.user_bits >= facts.room_bits >= 41
    assert facts.slots > 0 and facts.address_spaces > 0


# ---- deviations


def test_the_contract_itself_has_no_deviation() -> None:
    assert present(lambda: on(NEW)) == ()


def test_a_deviation_is_there_if_its_program_shows_it_or_its_cause_is() -> None:
    overlap, shadow = DEVIATIONS[0], DEVIATIONS[-1]
    assert present(OverlapIsInvalid) == (overlap,)
    assert present(lambda: on(NEW._replace(shadow_paging=True))) == (shadow,)


def test_a_deviation_whose_cause_is_there_and_that_does_not_show_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conform, "no_kernel", lambda: "")
    outcomes = list(conform.run_kernel(rows("stage2"), lambda: on(NEW._replace(shadow_paging=True))))
    (unexpected,) = [o for o in outcomes if o.result == "xpass"]
    assert unexpected.name == "stage2.test_memory_is_of_the_file"
    assert conform.exit_code(outcomes) == 1
    assert "not ok" in next(line for line in conform.ktap(len(outcomes), outcomes) if "XPASS" in line)
    assert "passed unexpectedly:" in list(conform.summary(outcomes))


def test_a_deviation_that_the_kernel_does_not_have_excuses_nothing() -> None:
    """As on 7.3: EINVAL for a slot that overlaps and lies past the last address is not what 6.18 gave for the overlap."""

    class OnlyWhereBothAreWrong(SimulatedHost):
        """Looks at the range first where the address is wrong as well."""

        class Vms(vms.Vms):
            def may_bind(self, slot: Slot) -> None:
                try:
                    super().may_bind(slot)
                except Denied as denied:
                    raise Denied(EINVAL if slot.gpa >> 40 else denied.failure, denied.rule) from None

    there = present(OnlyWhereBothAreWrong)
    assert there == ()
    assert known(EINVAL, EEXIST, there, operation="set_user_memory_region2", rule=DEVIATIONS[0].rule) is None
    assert known(EINVAL, EEXIST, DEVIATIONS, operation="set_user_memory_region2", rule=DEVIATIONS[0].rule) is DEVIATIONS[0]


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: deviation.rows[0])
def test_what_a_deviation_shows_is_not_what_the_contract_has(deviation: deviations.Deviation) -> None:
    results: list[Result] = []
    host = SimulatedHost()

    class Watched:
        """Passes operations on."""

        def __getattr__(self, name: str) -> Any:
            def operation(*arguments: Any) -> Result:
                results.append(getattr(host, name)(*arguments))
                return results[-1]

            return operation

    exec(deviation.program, {"host": Watched()})
    assert results[-1] != deviation.shows
    assert not isinstance(deviation.shows, Errno) or deviation.shows == deviation.observed


@pytest.mark.parametrize(("error", "result"), [(OSError(16, "Device or resource busy"), "skip"), (None, "fail")])
def test_a_kernel_whose_facts_cannot_be_found(monkeypatch: pytest.MonkeyPatch, error: OSError | None, result: str) -> None:
    class Unknown(SimulatedHost):
        def __init__(self) -> None:
            if error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise error

    monkeypatch.setattr(conform, "no_kernel", lambda: "")
    assert {o.result for o in conform.run_kernel(rows("creation"), Unknown)} == {result}
