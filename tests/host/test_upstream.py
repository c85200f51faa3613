# SPDX-License-Identifier: Apache-2.0
"""What is wrong in posted designs and does not show in the worlds where libraries are compared."""

from guestmem.checker import Model
from guestmem.guest_memfd.library import Protection
from guestmem.model import part
from guestmem.rules import CAUSE
from guestmem.scenarios.cast import Process, Vcpus, Vmm
from guestmem.scenarios.hypervisors import KvmHost
from guestmem.scenarios.users import BrokenOnGunyah
from guestmem.upstream.kvm_6_18 import Kvm618, OtherMemory
from guestmem.upstream.library_rfc import ThirdDesign, VerdictInverted


def test_the_third_design_says_the_opposite_of_what_came_of_broken_memory() -> None:
    class Broken(BrokenOnGunyah):
        file: VerdictInverted = part()

    assert issubclass(ThirdDesign, VerdictInverted)
    outcome = Model(Broken(protection=Protection.UNMAP)).explore()
    assert [violation.rule for violation in outcome.violations] == [CAUSE]


class NothingUninvited(OtherMemory, KvmHost, Process, Vcpus, Vmm):
    """KVM 6.18 where nobody reads what he was not given."""

    geometry = {"pages": 1, "frames": 3}


class NothingZapped(Kvm618):
    def make_private(self, start: int, end: int) -> tuple[int, int]:
        return 0, 0


def test_private_memory_beside_the_vmms_own_holds_but_for_who_reads_the_direct_map() -> None:
    outcome = Model(NothingUninvited(protection=Protection.UNMAP)).explore()
    assert (outcome.verdict, outcome.violations, outcome.missed) == ("holds", [], [])

    class Unzapped(NothingUninvited):
        file: NothingZapped = part()

    assert Model(Unzapped(protection=Protection.UNMAP)).explore().verdict == "violated"
