# SPDX-License-Identifier: Apache-2.0
"""Where everything stands in a packed state.

A state is a few 64-bit words.  Only fields that can change have a place; the values of one field for all its records
stand side by side.  Each thread has an area for its program counter and the locals that are alive there, packed anew
at each boundary, so that what is dead is zero and equal futures are equal states.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from guestmem.checker.ir import Boundary, ThreadBody, Var
from guestmem.checker.middle.intervals import Intervals
from guestmem.checker.pools import Pools
from guestmem.checker.values import Interval, fits
from guestmem.model.errors import Refused
from guestmem.model.record import Array, Field
from guestmem.model.world import World

WORD = 64


@dataclass
class Bits:
    """A run of equal cells: cell i is ``width`` bits at word ``word + i // per_word``, and holds value - low."""

    word: int
    shift: int
    width: int
    count: int
    per_word: int
    low: int

    def where(self, i: int) -> tuple[int, int]:
        """Word and shift of cell i."""
        return self.word + i // self.per_word, self.shift + i % self.per_word * self.width


@dataclass
class Saved:
    """A local kept at a boundary: ``width`` bits of the area, holding value - low."""

    var: Var
    chunk: int
    shift: int
    width: int
    low: int


@dataclass
class Area:
    """The bits of a thread: chunks (word, shift, width), the program counter at the bottom of the first."""

    chunks: list[tuple[int, int, int]]
    pc_width: int
    saved: dict[Boundary, list[Saved]] = field(default_factory=dict)


def width_of(interval: Interval) -> int:
    """Bits for a value within an interval; 0 when there is only one."""
    return (interval[1] - interval[0]).bit_length()


class _Words:
    """First fit of pieces of at most a word."""

    def __init__(self) -> None:
        self.used: list[int] = []

    def place(self, width: int) -> tuple[int, int]:
        for word, used in enumerate(self.used):
            if used + width <= WORD:
                self.used[word] += width
                return word, used
        self.used.append(width)
        return len(self.used) - 1, 0

    def fresh(self, count: int) -> int:
        self.used.extend([WORD] * count)
        return len(self.used) - count


class Layout:
    """The places of a world's changing fields and of its threads."""

    def __init__(self, pools: Pools, changing: Iterable[Field], threads: Mapping[ThreadBody, Intervals]) -> None:
        self.pools = pools
        self.fields: dict[Field, Bits] = {}
        self.areas: list[Area] = []
        words = _Words()
        pieces: list[tuple[int, int, object]] = []
        for declared in changing:
            interval = pools.interval(declared.type)
            count = pools.room(declared)
            width = width_of(interval)
            if width > WORD or not all(map(fits, interval)):
                raise Refused(f"{declared!r}", f"a field of {width} bits", f"narrow its range to {WORD} bits")
            per_word = WORD // width if width else max(count, 1)
            bits = Bits(0, 0, width, count, per_word, interval[0])
            self.fields[declared] = bits
            if width and count > per_word:
                bits.word = words.fresh(-(-count // per_word))
            elif width:
                bits.per_word = count
                pieces.append((width * count, len(pieces), bits))
        for body, intervals in threads.items():
            area, widths = _area(body, intervals)
            self.areas.append(area)
            pieces.extend((w, len(pieces) + i, (area, i)) for i, w in enumerate(widths) if w)
        for width, _, owner in sorted(pieces, key=lambda piece: (-piece[0], piece[1])):
            word, shift = words.place(width)
            if isinstance(owner, Bits):
                owner.word, owner.shift = word, shift
            elif isinstance(owner, tuple):
                owner[0].chunks[owner[1]] = (word, shift, width)
        self.words = max(1, len(words.used))
        self.bits = sum(words.used)

    def pack(self, pools: Pools) -> list[int]:
        """The words for the fields of a world, this one or one built like it; the threads' areas are zero."""
        words = [0] * self.words
        for declared, bits in self.fields.items():
            for cell, record, index in pools.cells(declared):
                value = getattr(record, declared.name)
                number = pools.encode(value[index] if isinstance(value, Array) else value, declared.type)
                word, shift = bits.where(cell)
                words[word] |= (number - bits.low) << shift
        return words

    def unpack(self, words: Sequence[int], world: World) -> None:
        """Set the fields of a world to what a state says."""
        for declared, bits in self.fields.items():
            for cell, record, index in self.pools.cells(declared):
                word, shift = bits.where(cell)
                number = (words[word] >> shift & (1 << bits.width) - 1) + bits.low
                decoded = self.pools.decode(number, declared.type)
                if declared.kind == "array":
                    getattr(record, declared.name)[index] = decoded
                else:
                    setattr(record, declared.name, decoded)

    def thread(self, words: Sequence[int], number: int, body: ThreadBody) -> tuple[Boundary, dict[Var, int]]:
        """Where a thread stands in a state, and the locals it keeps."""
        area = self.areas[number]
        chunks = [words[word] >> shift & (1 << width) - 1 for word, shift, width in area.chunks]
        boundary = body.boundaries[chunks[0] & (1 << area.pc_width) - 1 if chunks else 0]
        values = {
            s.var: (chunks[s.chunk] >> s.shift & (1 << s.width) - 1 if s.width else 0) + s.low for s in area.saved[boundary]
        }
        return boundary, values


def _area(body: ThreadBody, intervals: Intervals) -> tuple[Area, list[int]]:
    """A thread's area, and the widths of its chunks."""
    pc_width = (len(body.boundaries) - 1).bit_length()
    area = Area([], pc_width)
    widths = [pc_width]
    for boundary in body.boundaries:
        used = [pc_width]
        saved = []
        for var in boundary.live:
            interval = intervals.of.get(var, (0, 0))
            width = width_of(interval)
            if width > WORD:
                function, place, _ = boundary.stack[-1]
                raise Refused(
                    str(place),
                    f"{var.source or 'a value'!r} is kept across a step of {function.name} and has no bounds",
                    "give it an Index type, or take it from a bounded field",
                )
            chunk = next((i for i, u in enumerate(used) if u + width <= WORD), len(used))
            if chunk == len(used):
                used.append(0)
            saved.append(Saved(var, chunk, used[chunk], width, interval[0]))
            used[chunk] += width
        area.saved[boundary] = saved
        widths = [max(a, b) for a, b in itertools.zip_longest(widths, used, fillvalue=0)]
    area.chunks = [(0, 0, 0)] * len(widths)
    return area, widths
