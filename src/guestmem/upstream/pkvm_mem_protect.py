# SPDX-License-Identifier: Apache-2.0
"""pKVM's mem_protect.c before some of its fixes.

arch/arm64/kvm/hyp/nvhe/mem_protect.c; 8234409ffb65 and effc0a39b8e0, which look at the memcache first.
"""

from __future__ import annotations

from errno import ENOMEM

from guestmem.hypervisors.pkvm import Pkvm
from guestmem.machine.frame import Frame
from guestmem.machine.guest import Gfn, Guest
from guestmem.model import always, choose, part, step, thread, when
from guestmem.rules import SINGLE_OWNER
from guestmem.scenarios.hypervisors import OnPkvm

__all__ = ["B60", "B62", "B63", "BlocksOnPkvm"]


class HostFirst(Pkvm):
    """The host's state changes before the guest's table is known to have the memory that it needs."""

    @step
    def host_donate_guest(self, guest: Guest, gfn: Gfn, frame: Frame) -> int:
        err = super().host_donate_guest(guest, gfn, frame)
        if err == -ENOMEM:
            frame.stage2 = False
        return err


class B60(OnPkvm):
    """A donation that fails for lack of memory leaves a page that nobody has."""

    hypervisor: HostFirst = part()


class B62(OnPkvm):
    """The host touches a page of a guest, and EL2 takes it for a bug."""


class Blocks(Pkvm):
    """The host's stage 2 has block entries of two frames, made when the host faults (host_stage2_idmap).

    A block that has a page of a guest in it is made of pages (host_stage2_force_pte_cb).
    """

    def forced(self) -> bool:
        """Whether a range in which somebody owns a page is mapped by pages."""
        return True

    @step
    def host_stage2_idmap(self, frame: Frame) -> None:
        """The host has faulted at a page that is its own: map it, and as much around it as may be."""
        when(frame.stage2)
        if not self.forced():
            for neighbour in self.machine.frames:
                if neighbour.pfn // 2 == frame.pfn // 2:
                    neighbour.stage2 = True


class BlocksOnPkvm(OnPkvm):
    """pKVM whose host faults in its stage 2 by blocks."""

    geometry = {"pages": 1, "frames": 4}

    hypervisor: Blocks = part()

    @thread
    def host_fault(self) -> None:
        """The host comes back to pages that its stage 2 does not have at the moment."""
        while True:
            self.hypervisor.host_stage2_idmap(self.machine.frames[choose(len(self.machine.frames), "frame")])

    @always(SINGLE_OWNER)
    def not_the_hosts(self) -> bool:
        return not any(frame.stage2 and self.owners(frame.pfn) > 0 for frame in self.machine.frames)


class Unforced(Blocks):
    """The block is made again as one, whoever owns a part of it."""

    def forced(self) -> bool:
        return False


class B63(BlocksOnPkvm):
    """The host has a page back that it gave to a guest."""

    hypervisor: Unforced = part()
