# SPDX-License-Identifier: Apache-2.0
"""/proc/self/smaps: what the kernel says of each VMA of this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Vma", "smaps"]


class Vma(NamedTuple):
    """A VMA: its addresses start <= address < end, and what is said of it, by name ("Rss": "4 kB")."""

    start: int
    end: int
    said: dict[str, str]

    def size(self, name: str) -> int:
        """A size, in bytes."""
        return int(self.said[name].split()[0]) << 10


def smaps() -> Iterator[Vma]:
    """The VMAs in the order of their addresses."""
    vma: Vma | None = None
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if "-" in line.split(" ", 1)[0]:
                if vma:
                    yield vma
                start, end = (int(at, 16) for at in line.split(" ", 1)[0].split("-"))
                vma = Vma(start, end, {})
            elif vma:
                vma.said[name] = value.strip()
    if vma:
        yield vma
