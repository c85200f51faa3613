# SPDX-License-Identifier: Apache-2.0
"""The parts of docs/contract.md that are made from data."""

from __future__ import annotations

from guestmem.contract.deviations import DEVIATIONS
from guestmem.contract.rows import GROUPS, rows

__all__ = ["SECTIONS", "deviations", "groups"]


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


SECTIONS = {"groups": groups, "deviations": deviations}
