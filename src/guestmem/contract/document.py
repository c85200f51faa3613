# SPDX-License-Identifier: Apache-2.0
"""The parts of docs/contract.md that are made from data."""

from __future__ import annotations

from collections import Counter

from guestmem.contract.c.reports import name_of, of_deviation
from guestmem.contract.c.write import source
from guestmem.contract.deviations import DEVIATIONS
from guestmem.contract.generate import NEVER, generate
from guestmem.contract.rows import GROUPS, rows
from guestmem.contract.syscalls.simulated_host import SimulatedHost

__all__ = ["SECTIONS", "deviations", "groups", "left_out", "reports"]

SEEN = {
    "mapping.test_mremap_past_largest_offset": (
        "Seen on Linux 6.18.15, 7.2.12 and 7.3.4 as Debian builds them, on x86-64 and on arm64, and on 6.18 with KVM_PVM.",
        "VM type 0; KVM_CAP_GUEST_MEMFD_FLAGS 3 (MMAP, INIT_SHARED).",
    ),
    "stage2.test_memory_is_of_the_file": (
        "Seen on Linux 6.18.15 and 7.3.4 as Debian builds them, x86-64, kvm_amd with npt=0, and on 6.18 with KVM_PVM:",
        "shadow paging. VM type 0; KVM_CAP_GUEST_MEMFD_FLAGS 3 (MMAP, INIT_SHARED).",
    ),
}
"""Where deviations were seen that no release is without; each has a C file in docs/reports/."""


def groups() -> str:
    """The groups, with the number of their rows."""
    lines = ["| group | rows | what |", "|---|---|---|"]
    lines += [f"| {name} | {len(rows(name))} | {what} |" for name, what in GROUPS.items()]
    lines.append(f"| | {len(rows())} | on each host |")
    return "\n".join(lines) + "\n"


def deviations() -> str:
    """The known deviations, each with the shortest program that shows it."""
    parts = []
    for deviation in DEVIATIONS:
        parts.append(
            f"**{deviation.explanation[0].upper()}{deviation.explanation[1:]}.** Expected {deviation.expected!r}, "
            f"observed {deviation.observed!r}; {deviation.kernels}. Source: {deviation.source}.\n\n"
            f"```text\n{deviation.program}```\n"
        )
    return "\n".join(parts)


def left_out() -> str:
    """What is not fuzzed: what no program does, and what the model does not know, by how often it was left out."""
    host, reasons, programs, operations = SimulatedHost(), Counter[str](), 300, 0
    for number in range(programs):
        operations += len(generate(host, f"0.{number}", left_out=reasons)[0])
    lines = ["No program has", "", *(f"- {what}" for what in NEVER), ""]
    lines += [f"In the first {programs} programs of seed 0, beside {operations} operations, these were left out:", ""]
    lines += ["| times | what the model does not know |", "|---|---|"]
    lines += [f"| {times} | {reason} |" for reason, times in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))]
    return "\n".join(lines) + "\n"


def reports() -> dict[str, str]:
    """The C files of docs/reports/ by name."""
    found = {}
    for deviation in DEVIATIONS:
        if (where := SEEN.get(deviation.rows[0])) is not None:
            found[name_of(deviation)] = source(of_deviation(deviation, where), name_of(deviation))
    return found


SECTIONS = {"groups": groups, "deviations": deviations, "left out": left_out}
