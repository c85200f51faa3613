# SPDX-License-Identifier: Apache-2.0
"""Run the contract on hosts, and say what came of it: KTAP, JSON, or a summary for people.

Exit codes are those of kselftest: 0 all pass, 1 a row failed, 4 a host was skipped as a whole.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import guestmem
from guestmem.contract.deviations import Deviation, known
from guestmem.contract.interface import Host, Missing
from guestmem.contract.kernel.cgroup import remove_stale
from guestmem.contract.program import present
from guestmem.contract.results import failed
from guestmem.contract.rows import Mismatch, Row, rows
from guestmem.linux.probe import kvm_modules
from guestmem.linux.process import Lost, Worker, limited

__all__ = ["BACKENDS", "Outcome", "as_json", "environment", "exit_code", "judge", "ktap", "run", "run_kernel", "summary"]

BACKENDS = ("model", "kernel")
PASS, FAIL, XFAIL, XPASS, SKIP = "pass", "fail", "xfail", "xpass", "skip"


class Outcome(NamedTuple):
    """What came of a row, and why.

    ``result``: "pass", "fail", "skip", "xfail" for a known deviation, "xpass" where the kernel has one and the row passes.
    """

    name: str
    backend: str
    result: str
    reason: str


def judge(row: Row, host: Host, among: Sequence[Deviation] = ()) -> tuple[str, str]:
    """Run a row on a host that has some deviations; the result and the reason.

    After a failure the host may be of no use any more.
    """
    result, reason = PASS, ""
    try:
        row.test(host, *row.case)
    except Missing as missing:
        result, reason = SKIP, f"needs {missing}"
    except Mismatch as mismatch:
        deviation = known(mismatch.got, mismatch.expected, among, row=row.name)
        if deviation is not None:
            result, reason = XFAIL, f"{deviation.explanation} ({deviation.kernels}; {deviation.source})"
        else:
            result, reason = FAIL, str(mismatch)
    except Exception as error:
        result, reason = FAIL, f"{type(error).__name__}: {error}"
    else:
        for deviation in among:
            if row.name.startswith(deviation.rows):
                result, reason = XPASS, f"this kernel should have a deviation, and does not show it here: {deviation.explanation}"
    ended = host.finish()
    if failed(ended) and result != FAIL:
        result, reason = FAIL, f"closing everything: {ended!r}"
    return result, f"{reason}; rule: {row.rule}; source: {row.source}" if result == FAIL else reason


def run_model(wanted: Iterable[Row], prepare: Callable[[], Host]) -> Iterator[Outcome]:
    """Run rows on the simulated host."""
    host = prepare()
    for row in wanted:
        result, reason = judge(row, host)
        if result == FAIL:
            host = prepare()
        yield Outcome(row.name, "model", result, reason)


def no_kernel() -> str:
    """Why this machine's kernel cannot be tested, or nothing."""
    from guestmem.linux.kvm import Kvm

    if limit := limited():
        return limit
    try:
        with Kvm() as kvm:
            kvm.api_version()
    except OSError as error:
        return f"needs /dev/kvm: {error.strerror}"
    return ""


def kernel_host() -> Host:
    """The kernel as a host, in the process that it may change."""
    from guestmem.contract.kernel.kernel_host import KernelHost

    return KernelHost()


def run_kernel(wanted: Sequence[Row], prepare: Callable[[], Host] = kernel_host) -> Iterator[Outcome]:
    """Run rows on the real kernel, in a process that may be lost on the way."""
    why = no_kernel()
    if why:
        yield from (Outcome(row.name, "kernel", SKIP, why) for row in wanted)
        return
    try:
        among = present(prepare)
    except OSError as error:
        yield from (Outcome(row.name, "kernel", SKIP, f"needs KVM: {error}") for row in wanted)
        return
    except Lost as lost:
        yield from (Outcome(row.name, "kernel", FAIL, f"before the first row: {lost}") for row in wanted)
        return
    worker: Worker | None = None
    try:
        for number, row in enumerate(wanted):
            if worker is None:
                worker = Worker(prepare, lambda host, number: judge(wanted[number], host, among))
            try:
                result, reason = worker.do(number)
            except Lost as lost:
                result, reason = FAIL, f"{lost}; rule: {row.rule}; source: {row.source}"
            if result == FAIL:
                worker.close()
                worker = None
            yield Outcome(row.name, "kernel", result, reason)
    finally:
        if worker is not None:
            worker.close()
            remove_stale()


def run(backends: Sequence[str], groups: Sequence[str]) -> tuple[int, Iterator[Outcome]]:
    """Run the rows of some groups, or all, on hosts: how many outcomes there will be, and they as they come."""
    from guestmem.contract.syscalls.simulated_host import SimulatedHost

    wanted = rows(*groups)
    runners = (run_model(wanted, SimulatedHost) if backend == "model" else run_kernel(wanted) for backend in backends)
    return len(wanted) * len(backends), itertools.chain.from_iterable(runners)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """kselftest's: 1 if a row failed or passed unexpectedly, 4 if all rows of a host were skipped."""
    if any(outcome.result in (FAIL, XPASS) for outcome in outcomes):
        return 1
    for backend in BACKENDS:
        results = {outcome.result for outcome in outcomes if outcome.backend == backend}
        if results == {SKIP}:
            return 4
    return 0


def environment() -> dict[str, Any]:
    """What the results are about."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "kvm": " ".join(kvm_modules()),
        "root": os.geteuid() == 0,
        "guestmem": guestmem.__version__,
    }


def as_json(outcomes: Sequence[Outcome]) -> str:
    """The outcome as one object."""
    results = [outcome._asdict() for outcome in outcomes]
    return json.dumps({"schema": 1, "environment": environment(), "results": results}, indent=1)


def ktap(planned: int, outcomes: Iterable[Outcome]) -> Iterator[str]:
    """The outcomes as KTAP, version 1, each as it comes: a deviation is an XFAIL, whose explanation is a diagnostic."""
    yield "KTAP version 1"
    yield f"1..{planned}"
    count: Counter[str] = Counter()
    for number, outcome in enumerate(outcomes, 1):
        count[outcome.result] += 1
        if outcome.reason and outcome.result != SKIP:
            yield f"# {outcome.reason}"
        word = "not ok" if outcome.result in (FAIL, XPASS) else "ok"
        directives = {SKIP: f" # SKIP {outcome.reason}", XFAIL: " # XFAIL known deviation", XPASS: " # XPASS"}
        directive = directives.get(outcome.result, "")
        yield f"{word} {number} {outcome.backend}.{outcome.name.replace(' ', '_')}{directive}"
    yield f"# Totals: pass:{count[PASS]} fail:{count[FAIL]} xfail:{count[XFAIL]} xpass:{count[XPASS]} skip:{count[SKIP]} error:0"


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The outcome for people: a line for each group, then what needs attention."""
    about = environment()
    yield f"Linux {about['kernel']}, {about['machine']}, {about['kvm'] or 'no KVM'}"
    for backend in BACKENDS:
        mine = [outcome for outcome in outcomes if outcome.backend == backend]
        for group in dict.fromkeys(outcome.name.partition(".")[0] for outcome in mine):
            count = Counter(outcome.result for outcome in mine if outcome.name.startswith(f"{group}."))
            yield f"{backend:<8}{group:<18}" + "  ".join(f"{count[r]} {r}" for r in (PASS, FAIL, XFAIL, XPASS, SKIP) if count[r])
        if mine:
            count = Counter(outcome.result for outcome in mine)
            yield f"{backend:<8}{'':<18}" + "  ".join(f"{count[r]} {r}" for r in (PASS, FAIL, XFAIL, XPASS, SKIP) if count[r])
    for result, title in ((SKIP, "skipped"), (XFAIL, "known deviations"), (XPASS, "passed unexpectedly"), (FAIL, "failed")):
        reasons: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            if outcome.result == result:
                reasons.setdefault(outcome.reason, []).append(outcome)
        if reasons:
            yield f"{title}:"
        for reason, those in reasons.items():
            names = [f"{those[0].backend} {those[0].name}", *(outcome.name for outcome in those[1:3])]
            yield f"  {', '.join(names)}" + (f" and {len(those) - 3} more" if len(those) > 3 else "")
            yield f"      {reason}"
