# SPDX-License-Identifier: Apache-2.0
"""Numbers of 32 and of 64 bits: what does not fit is cut off, in Python and in what the checker runs, also across steps."""

import _ctypes
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guestmem.checker import Model
from guestmem.checker.engine.compile import QUICK
from guestmem.checker.explore import Steps
from guestmem.checker.trace import replay
from guestmem.machine.word import U32, U64, u32, u64
from guestmem.model import World, array, choose, require, step, thread
from guestmem.model.errors import TOO_LARGE, Refused
from lockstep import Lockstep
from programs import imported

GOES_ROUND = "what is below 0 goes round"
SOME_BYTES = "a range of pages has bytes"


class Sizes(World):
    """Somebody multiplies a number of pages, as large as it gets or one less, by their size."""

    size: U32 = U32(0)

    @step
    def write(self, size: U32) -> None:
        self.size = size

    @thread
    def vmm(self) -> None:
        pages = (1 << 20) - choose(2, "fewer")
        size = u32(pages * 4096)
        below = u32(0 - pages)
        self.write(u32(0))
        require(below == (1 << 32) - pages, GOES_ROUND)
        self.write(size)
        require(self.size > 0, SOME_BYTES)


def test_a_product_that_overflows_is_cut_off() -> None:
    outcome = Model(Sizes()).explore()
    assert [(violation.rule, violation.slices[0].choices) for violation in outcome.violations] == [(SOME_BYTES, (0,))]


@given(st.integers(-(1 << 126), 1 << 126))
def test_as_a_machine_does_it(value: int) -> None:
    kept = value.to_bytes(17, "little", signed=True)
    assert int.from_bytes(kept[:4], "little") == u32(value)
    assert int.from_bytes(kept[:8], "little") == u64(value)


FEWER = "what was not begun is not undone"


class Rollback(World):
    """Somebody who cannot finish undoes what was begun, from the last page to the first, with an unsigned index."""

    converted: list[bool] = array(4)
    undone: U64 = U64(0)

    def goes_on(self, index: U64, start: int, end: int) -> bool:
        return start <= index < end

    @step
    def begin(self, start: int, end: int) -> None:
        for page in range(start, end):
            self.converted[page] = True

    @step
    def undo(self, index: U64, end: int) -> None:
        self.undone = index
        require(index < end, FEWER)
        self.converted[index] = False

    @thread
    def vmm(self) -> None:
        start = choose(2, "the first page")
        end = 4
        self.begin(start, end)
        index = u64(end - 1)
        while self.goes_on(index, start, end):
            self.undo(index, end)
            index = u64(index - 1)
        require(not any(self.converted), "all is undone")


class EndlessRollback(Rollback):
    """From page 0 on, no unsigned index is below it."""

    def goes_on(self, index: U64, start: int, end: int) -> bool:
        return start <= index


def test_an_unsigned_index_goes_round_below_the_first_page() -> None:
    good = Model(Rollback()).explore()
    assert (good.verdict, good.states) == ("holds", 10)
    (violation,) = Model(EndlessRollback()).explore().violations
    assert (violation.rule, violation.slices[0].choices, violation.steps) == (FEWER, (0,), 6)
    *_, last = replay(EndlessRollback(), violation.slices)
    assert last.changes == [("undone", "0", str((1 << 64) - 1))]


class Product(World):
    """The product of two numbers, each with one bit set, which is 2^126 or 2^127."""

    one: U64 = U64(0)
    result: U64 = U64(0)

    @step
    def multiply(self, one: U64, shift: int) -> None:
        self.one = one
        self.result = u64(self.one * (1 << shift))

    @thread
    def only(self) -> None:
        self.multiply(U64(1 << 63), 63 + choose(2, "one more"))


def test_what_leaves_127_bits_is_no_verdict() -> None:
    outcome = Model(Product()).explore()
    assert (outcome.verdict, outcome.violations) == ("incomplete", [])
    assert outcome.why.endswith(TOO_LARGE)
    assert "self.one * (1 << shift)" in outcome.why


PROGRAM = """\
from guestmem.machine.word import U32, U64, u32, u64
from guestmem.model import World, bounded, require, step, thread


class W(World):
    a: U64 = U64({a})
    b: U64 = U64({b})
    c: U32 = U32({c})
    d: int = bounded((1 << 62) - 1, lo=-(1 << 62))
    e: int = bounded((1 << 64) - 7, lo=-6)
    small: int = bounded(999)
    less: bool = False

    def low(self, value: int) -> U64:
        return u64(value)

    @step
    def first(self, a: U64, b: U64, c: U32, d: int) -> tuple[U64, int]:
        e = {0}
        self.a = u64(e)
        self.b = self.low({1})
        self.less = ({2} + 0) < ({3} + 0)
        self.c = u32({4})
        return u64({5}), e % 1000

    @step
    def second(self, a: U64, b: U64, c: U32, d: int) -> None:
        self.small = {6} % 1000
        self.e = {7} % ((1 << 64) - 1) - 6 if ({3} + 0) >= ({6} + 0) else self.a // 2
        self.d = {8} % (1 << 63) - (1 << 62)

    @thread
    def only(self) -> None:
        self.d = {d}
        a = self.a
        d = self.d
        b, small = self.first(self.a, self.b, self.c, d)
        c = self.c
        c = u32({2})
        self.second(a, b, c, d)
        require(a + b >= 0 and small < 1000, "never broken")
        self.a = u64({0})
        self.b = u64(b - a)
"""

edges = st.sampled_from([0, 1, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
unsigned = st.one_of(edges, st.integers(0, (1 << 64) - 1))
leaves = st.one_of(st.sampled_from(["a", "b", "c", "d", "self.a", "self.b", "self.c", "self.d", "self.e"]), unsigned.map(str))


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Operations on expressions."""
    plain = st.tuples(inner, st.sampled_from(["+", "-", "*", "&", "|", "^"]), inner).map(lambda t: f"({' '.join(t)})")
    divided = st.tuples(inner, st.sampled_from(["//", "%"]), st.sampled_from(["", "-"]), inner)
    shifted = st.tuples(inner, st.sampled_from(["<<", ">>"]), inner, st.sampled_from([64, 130]))
    called = st.tuples(
        st.sampled_from(["u64({0})", "u32({0})", "-({0})", "min({0} + 0, {1} + 0)", "max({0} + 0, {1} + 0)"]), inner, inner
    )
    return st.one_of(
        plain,
        divided.map(lambda t: f"({t[0]} {t[1]} {t[2]}max({t[3]} + 0, 1))"),
        shifted.map(lambda t: f"(({t[0]}) {t[1]} ({t[2]}) % {t[3]})"),
        called.map(lambda t: t[0].format(*t[1:])),
    )


expressions = st.recursive(leaves, larger, max_leaves=5)


def test_random_arithmetic_is_python_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where an expression goes over 127 bits the two part; most do not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    drawn = steps = 0
    refused: list[str] = []

    @settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(expressions, min_size=9, max_size=9), unsigned, unsigned, st.integers(0, (1 << 32) - 1))
    def each(texts: list[str], a: int, b: int, c: int) -> None:
        nonlocal drawn, steps
        drawn += 1
        d = (a ^ b) % (1 << 62) - c
        with imported(PROGRAM.format(*texts, a=a, b=b, c=c, d=d), tmp_path, f"words_{drawn}") as module:
            try:
                model = Steps(module.W(), flags=QUICK)
            except Refused as error:  # of constants it is known before
                refused.append(error.what)
                return
            steps += Lockstep(module.W, model).run(0, 6)
            _ctypes.dlclose(model.library._handle)

    each()
    assert steps >= 2 * drawn
    assert {*refused} <= {"a number of more than 127 bits"}
