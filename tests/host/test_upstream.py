# SPDX-License-Identifier: Apache-2.0
"""What is wrong in posted designs and does not show in the worlds where libraries are compared."""

from guestmem.checker import Model
from guestmem.guest_memfd.library import Protection
from guestmem.model import part
from guestmem.rules import CAUSE
from guestmem.scenarios.users import BrokenOnGunyah
from guestmem.upstream.library_rfc import ThirdDesign, VerdictInverted


def test_the_third_design_says_the_opposite_of_what_came_of_broken_memory() -> None:
    class Broken(BrokenOnGunyah):
        file: VerdictInverted = part()

    assert issubclass(ThirdDesign, VerdictInverted)
    outcome = Model(Broken(protection=Protection.UNMAP)).explore()
    assert [violation.rule for violation in outcome.violations] == [CAUSE]
