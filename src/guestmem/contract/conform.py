# SPDX-License-Identifier: Apache-2.0
"""Run the contract on hosts, and say what came of it: KTAP, JSON, or a summary for people.

Exit codes are those of kselftest: 0 all pass, 1 a row failed, 4 a host was skipped as a whole.
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from guestmem.contract.deviations import known
from guestmem.contract.host import Host, Missing
from guestmem.contract.kernel.worker import Lost, Worker
from guestmem.contract.rows import Mismatch, Row, rows

__all__ = ["BACKENDS", "Outcome", "as_json", "environment", "exit_code", "judge", "ktap", "run", "run_kernel", "summary"]

BACKENDS = ("model", "kernel")
PASS, FAIL, XFAIL, SKIP = "pass", "fail", "xfail", "skip"


class Outcome(NamedTuple):
    """What came of a row: ``result`` is "pass", "fail", "skip", or "xfail" for a known deviation; ``reason`` why."""

    name: str
    backend: str
    result: str
    reason: str


def judge(row: Row, host: Host) -> tuple[str, str]:
    """Run a row on a host; the result and the reason."""
    try:
        row.test(host, *row.case)
    except Missing as missing:
        return SKIP, f"needs {missing}"
    except Mismatch as mismatch:
        deviation = known(mismatch.got, mismatch.expected, row=row.name)
        if deviation is not None:
            return XFAIL, f"{deviation.explanation} ({deviation.kernels}; {deviation.source})"
        return FAIL, f"{mismatch}; rule: {row.rule}; source: {row.source}"
    finally:
        host.finish()
    return PASS, ""


def run_model(wanted: Iterable[Row], host: Host) -> Iterator[Outcome]:
    """Run rows on the simulated host."""
    for row in wanted:
        result, reason = judge(row, host)
        # The model is the contract: a deviation is a mistake here.
        yield Outcome(row.name, "model", FAIL if result == XFAIL else result, reason)


def no_kernel() -> str:
    """Why this machine's kernel cannot be tested, or nothing."""
    from guestmem.linux.kvm import Kvm

    try:
        with Kvm() as kvm:
            kvm.api_version()
    except OSError as error:
        return f"needs /dev/kvm: {error.strerror}"
    return ""


def kernel_host() -> Host:
    """The kernel as a host, in the process that it may change."""
    from guestmem.contract.kernel.host import KernelHost

    return KernelHost()


def run_kernel(wanted: Sequence[Row], prepare: Callable[[], Host] = kernel_host) -> Iterator[Outcome]:
    """Run rows on the real kernel, in a process that may be lost on the way."""
    why = no_kernel()
    if why:
        yield from (Outcome(row.name, "kernel", SKIP, why) for row in wanted)
        return
    worker: Worker | None = None
    for number, row in enumerate(wanted):
        if worker is None:
            worker = Worker(prepare, lambda host, number: judge(wanted[number], host))
        try:
            result, reason = worker.do(number)
        except Lost as lost:
            result, reason = FAIL, f"{lost}; rule: {row.rule}; source: {row.source}"
            worker.close()
            worker = None
        yield Outcome(row.name, "kernel", result, reason)
    if worker is not None:
        worker.close()


def run(backends: Sequence[str], groups: Sequence[str], note: Callable[[str], None]) -> list[Outcome]:
    """Run the rows of some groups, or all, on hosts."""
    from guestmem.contract.simulated.host import SimulatedHost

    wanted = rows(*groups)
    outcomes: list[Outcome] = []
    for backend in backends:
        runner = run_model(wanted, SimulatedHost()) if backend == "model" else run_kernel(wanted)
        for outcome in runner:
            outcomes.append(outcome)
            note(f"{backend} {outcome.name}")
    return outcomes


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """kselftest's: 1 if a row failed, 4 if all rows of a host were skipped."""
    if any(outcome.result == FAIL for outcome in outcomes):
        return 1
    for backend in BACKENDS:
        results = {outcome.result for outcome in outcomes if outcome.backend == backend}
        if results == {SKIP}:
            return 4
    return 0


def environment() -> dict[str, Any]:
    """What the results are about."""
    modules = [name for name in ("kvm_intel", "kvm_amd", "kvm_pvm", "kvm") if os.path.exists(f"/sys/module/{name}")]
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "kvm": " ".join(modules),
        "root": os.geteuid() == 0,
        "guestmem": __import__("guestmem").__version__,
    }


def as_json(outcomes: Sequence[Outcome]) -> str:
    """The outcome as one object."""
    results = [outcome._asdict() for outcome in outcomes]
    return json.dumps({"schema": 1, "environment": environment(), "results": results}, indent=1)


def ktap(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The outcome as KTAP, version 1: a deviation is an XFAIL, whose explanation is a diagnostic."""
    yield "KTAP version 1"
    yield f"1..{len(outcomes)}"
    for number, outcome in enumerate(outcomes, 1):
        if outcome.reason and outcome.result != SKIP:
            yield f"# {outcome.reason}"
        word = "not ok" if outcome.result == FAIL else "ok"
        directive = {SKIP: f" # SKIP {outcome.reason}", XFAIL: " # XFAIL known deviation"}.get(outcome.result, "")
        yield f"{word} {number} {outcome.backend}.{outcome.name.replace(' ', '_')}{directive}"
    count = Counter(outcome.result for outcome in outcomes)
    yield f"# Totals: pass:{count[PASS]} fail:{count[FAIL]} xfail:{count[XFAIL]} xpass:0 skip:{count[SKIP]} error:0"


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The outcome for people: a line for each group, then what needs attention."""
    about = environment()
    yield f"Linux {about['kernel']}, {about['machine']}, {about['kvm'] or 'no KVM'}"
    for backend in BACKENDS:
        mine = [outcome for outcome in outcomes if outcome.backend == backend]
        for group in dict.fromkeys(outcome.name.partition(".")[0] for outcome in mine):
            count = Counter(outcome.result for outcome in mine if outcome.name.startswith(f"{group}."))
            yield f"{backend:<8}{group:<18}" + "  ".join(f"{count[r]} {r}" for r in (PASS, FAIL, XFAIL, SKIP) if count[r])
        if mine:
            count = Counter(outcome.result for outcome in mine)
            yield f"{backend:<8}{'':<18}" + "  ".join(f"{count[r]} {r}" for r in (PASS, FAIL, XFAIL, SKIP) if count[r])
    for result, title in ((SKIP, "skipped"), (XFAIL, "known deviations"), (FAIL, "failed")):
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
