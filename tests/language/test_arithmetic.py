# SPDX-License-Identifier: Apache-2.0
"""Numbers are Python's numbers: translated arithmetic gives what Python gives, over wide inputs."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guestmem.checker import Model
from guestmem.model import World, bounded, step, thread
from guestmem.model.errors import Refused
from guestmem.model.record import evaluate

WIDE = 30000


class Arithmetic(World):
    """One thread that combines ``a`` and ``b``; the results are fields."""

    a: int = bounded(WIDE, lo=-WIDE)
    b: int = bounded(WIDE, lo=-WIDE)
    done: bool = False
    total: int = bounded(2 * WIDE, lo=-2 * WIDE)
    product: int = bounded(WIDE * WIDE, lo=-WIDE * WIDE)
    quotient: int = bounded(WIDE, lo=-WIDE)
    remainder: int = bounded(WIDE, lo=-WIDE)
    bits: int = bounded(3 * WIDE, lo=-3 * WIDE)
    order: int = bounded(7)
    wide: int = bounded(999)

    @thread
    def only(self) -> None:
        self.combine()

    @step
    def combine(self) -> None:
        a = self.a
        b = self.b
        self.a = min(a, WIDE)
        self.b = max(b, -WIDE)
        self.total = a + b
        self.product = a * b
        if b != 0:
            self.quotient = a // b
            self.remainder = a % b
        self.bits = (a & b) ^ (a | b)
        wide = a * 65536 * 65536 * 65536  # takes all the bits there are
        self.wide = ((wide & b) ^ (wide | b)) % 1000
        if a < b:
            self.order += 1
        if a <= b and a != b:
            self.order += 2
        if a % 2 == 1 or b > a >= 0:
            self.order += 4
        self.done = True


def translated(a: int, b: int) -> list[int]:
    """The fields after the step, by the translated code."""
    layout = MODEL.translation.layout
    MODEL.world.a, MODEL.world.b = a, b
    (edge,) = MODEL.edges(layout.pack(layout.pools))
    assert edge.broken is None
    layout.unpack(edge.state, MODEL.world)
    results = fields(MODEL.world)
    layout.unpack(INITIAL, MODEL.world)
    return results


def plain(a: int, b: int) -> list[int]:
    """The fields after the step, by Python."""
    world = Arithmetic(a=a, b=b)
    world.combine()
    return fields(world)


def fields(world: World) -> list[int]:
    return [int(getattr(world, name)) for name in world.fields()]


MODEL = Model(Arithmetic())
INITIAL, _ = MODEL.start()

numbers = st.integers(-WIDE, WIDE)


@given(numbers, numbers)
@example(-7, 2)
@example(7, -2)
@example(-WIDE, -1)
@example(0, 0)
def test_translated_and_plain_arithmetic_agree(a: int, b: int) -> None:
    assert translated(a, b) == plain(a, b)


@given(order=st.integers(0, 12), threads=st.integers(1, 9))
@example(order=9, threads=1)
def test_a_bound_may_be_a_power_of_two(order: int, threads: int) -> None:
    """Of a large folio the page cache has a reference for each page: a square of the order is too few from 2^5 pages on."""
    assert evaluate("threads + 1 + 2 ** order", {"threads": threads, "order": order}) == threads + 1 + (1 << order)


@pytest.mark.parametrize("bound", ["3 ** order", "2 ** frames", "2 ** (order - 10)", "order ** 2"])
def test_a_bound_is_no_other_power(bound: str) -> None:
    with pytest.raises(Refused, match="use integers"):
        evaluate(bound, {"order": 4, "frames": 1 << 40})
