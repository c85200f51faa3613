# SPDX-License-Identifier: Apache-2.0
"""Numbers of 32 bits: what does not fit is cut off, in Python and in what the checker runs, also across steps."""

from hypothesis import given
from hypothesis import strategies as st

from guestmem.checker import Model
from guestmem.machine.word import U32, u32
from guestmem.model import World, choose, require, step, thread

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


@given(st.integers(-(1 << 62), 1 << 62))
def test_as_a_machine_does_it(value: int) -> None:
    assert int.from_bytes(value.to_bytes(9, "little", signed=True)[:4], "little") == u32(value)
