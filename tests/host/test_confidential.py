# SPDX-License-Identifier: Apache-2.0
"""What the firmware of a confidential host refuses, and what it does with a page, call by call."""

from errno import EPERM

import pytest

from guestmem.machine.frame import Content
from guestmem.machine.guest import Gfn
from guestmem.machine.machine import Fault
from guestmem.model import alone
from guestmem.model.errors import Verdict
from guestmem.scenarios.hypervisors import OnCca, OnSnp, OnTdx

HOSTS = OnSnp, OnTdx, OnCca


@pytest.mark.parametrize("host", HOSTS)
def test_a_frame_has_one_guest(host: type[OnSnp | OnTdx | OnCca]) -> None:
    world = host(vms=2)
    first, second = world.machine.guests
    frame = world.machine.frames[1]
    with alone():
        assert world.hypervisor.assign(first, Gfn(0), frame, 0) == 0
        assert world.hypervisor.assign(second, Gfn(0), frame, 0) == -EPERM
        world.driver.unmap(first, Gfn(0))
        assert world.hypervisor.assign(second, Gfn(0), frame, 0) == -EPERM
        world.hypervisor.release(frame)
        assert world.hypervisor.assign(second, Gfn(0), frame, 0) == 0
    assert not first.reaches(frame) and second.holds_private(frame)


@pytest.mark.parametrize(
    ("host", "load", "store", "kept"),
    [
        (OnSnp, Fault.NONE, Fault.DENIED, True),
        (OnTdx, Fault.NONE, Fault.NONE, False),
        (OnCca, Fault.DENIED, Fault.DENIED, False),
    ],
)
def test_what_the_host_meets_and_what_a_zap_leaves(
    host: type[OnSnp | OnTdx | OnCca], load: Fault, store: Fault, kept: bool
) -> None:
    world = host()
    guest = world.machine.guests[0]
    frame = world.machine.frames[1]
    with alone():
        assert world.hypervisor.assign(guest, Gfn(0), frame, 0) == 0
        frame.content = guest.secret
        assert world.machine.stage2_fault(frame, False) is load
        assert world.machine.stage2_fault(frame, True) is store
        assert world.machine.exposes(frame) is (host is OnCca)
        world.driver.unmap(guest, Gfn(0))
        assert (frame.content is guest.secret) is kept and not frame.stage2
        world.hypervisor.release(frame)
    assert frame.content is Content.ZERO and frame.stage2


@pytest.mark.parametrize(("host", "kept"), [(OnSnp, True), (OnTdx, False), (OnCca, False)])
def test_a_guest_accepts_what_is_new_to_it(host: type[OnSnp | OnTdx | OnCca], kept: bool) -> None:
    world = host()
    guest = world.machine.guests[0]
    frame = world.machine.frames[1]
    guest.running = True
    accepted = world.hypervisor.accepted
    with alone():
        assert world.hypervisor.assign(guest, Gfn(0), frame, 0) == 0
        assert not accepted[frame.pfn]
        assert world.touch_page(guest, Gfn(0)) and accepted[frame.pfn]
        world.driver.unmap(guest, Gfn(0))
        assert world.hypervisor.assign(guest, Gfn(0), frame, 0) == 0
        assert accepted[frame.pfn] is kept
        world.hypervisor.release(frame)
        guest.forget(Gfn(0))
        assert world.hypervisor.assign(guest, Gfn(0), frame, 0) == 0
        assert not accepted[frame.pfn]
        with pytest.raises(Verdict, match="contents survive"):
            world.touch_page(guest, Gfn(0))
