# SPDX-License-Identifier: Apache-2.0
"""What loads may give, as far as one thread knows that alone stores."""

from __future__ import annotations

__all__ = ["Seen"]


class Seen:
    """The last stores to pages, and what a load of a page may give then.

    Attributes:
        generation: of the memory; one that begins is all zeros.  It is counted while no memory is there.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._stored: dict[int, tuple[int, int, int]] = {}

    def stored(self, page: int, value: int, began: int) -> None:
        """A value was stored, and ``began`` was the generation when that began."""
        self._stored[page] = value, began, self.generation

    def may(self, page: int, began: int) -> set[int]:
        """What a load may have given that began in a generation and has ended now."""
        value, first, last = self._stored.get(page, (0, 0, 0))
        if last < began:
            return {0}
        return {value} if first == self.generation else {0, value}
