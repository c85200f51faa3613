# SPDX-License-Identifier: Apache-2.0
"""What is left of a mapping, in bytes from its start."""

from __future__ import annotations

from collections.abc import Iterator

from guestmem.contract.interface import PAGE_SIZE

__all__ = ["Spans", "page_end"]


def page_end(offset: int) -> int:
    """The end of the page that an offset is in, or at the end of."""
    return -(-offset // PAGE_SIZE) * PAGE_SIZE


class Spans:
    """Ranges of a mapping in order, each with a value; between them nothing is mapped."""

    def __init__(self, length: int, value: int) -> None:
        self.parts = [(0, length, value)]

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return iter(self.parts)

    def copy(self) -> Spans:
        """The same, on its own."""
        other = Spans(0, 0)
        other.parts = list(self.parts)
        return other

    def end(self) -> int:
        """Where the last one ends."""
        return self.parts[-1][1]

    def cover(self, start: int, end: int) -> bool:
        """Whether all of a range is mapped; of an empty one, whether it is inside."""
        mapped = sum(max(0, min(last, end) - max(first, start)) for first, last, _ in self.parts)
        return mapped == end - start and 0 <= start <= end <= self.end()

    def at(self, offset: int) -> int:
        """The value at an offset."""
        return next(value for start, end, value in self.parts if start <= offset < end)

    def remove(self, start: int, end: int) -> None:
        """Unmap a range."""
        if start < end:
            before = [(first, min(last, start), value) for first, last, value in self.parts if first < start]
            after = [(max(first, end), last, value) for first, last, value in self.parts if last > end]
            self.parts = [*before, *after]

    def set(self, start: int, end: int, value: int) -> None:
        """Give a range a value."""
        if start < end:
            self.remove(start, end)
            self.parts = sorted([*self.parts, (start, end, value)])
