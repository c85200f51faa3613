# SPDX-License-Identifier: Apache-2.0
"""The standard cast on each hypervisor."""

from __future__ import annotations

from errno import EINTR
from typing import Any, cast

from guestmem.guest_memfd.library import Driver
from guestmem.hypervisors.confidential import Confidential, ConfidentialDriver
from guestmem.hypervisors.gunyah import EagerGunyahDriver, Gunyah, GunyahDriver
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.hypervisors.pkvm import Pkvm, PkvmDriver
from guestmem.machine.frame import Content, Frame
from guestmem.machine.guest import Expects, Gfn, Guest
from guestmem.machine.machine import Enforcement, Hypervisor
from guestmem.mm.exception import Loaded
from guestmem.mm.filemap import Pgoff
from guestmem.model import always, part, reached, require, sometimes, step, when
from guestmem.rules import CONTENTS_SURVIVE, DONE_OR_NOTHING, PAIRED
from guestmem.scenarios.cast import (
    Beyond,
    Cast,
    CrashDump,
    Kcore,
    Parts,
    PlainRead,
    Process,
    RunningVm,
    Slots,
    TwoThreads,
    Vcpus,
    Vmm,
    Walker,
    Zeropad,
)
from guestmem.scenarios.host import GuestMemory

__all__ = [
    "BeyondOnKvm",
    "BlocksOnKvm",
    "CcaHost",
    "EagerOnGunyah",
    "EagerPagesOnGunyah",
    "FixedUpOnGunyah",
    "ForcedOnPkvm",
    "GunyahHost",
    "KvmHost",
    "OnCca",
    "OnGunyah",
    "OnKvm",
    "OnPkvm",
    "OnSnp",
    "OnTdx",
    "PaddedOnKvm",
    "PartsOnKvm",
    "PkvmHost",
    "SignalsOnKvm",
    "SlotsOnGunyah",
    "SlotsOnKvm",
    "SnpHost",
    "TdxHost",
    "TwoOnGunyah",
    "TwoOnKvm",
    "TwoThreadsOnGunyah",
    "TwoThreadsOnKvm",
    "WalkedOnGunyah",
    "WalkedOnKvm",
    "WalkedOnPkvm",
]

SECOND = "a VM runs on a page that another VM had before"


def sanitising(driver: Any, hypervisor: Hypervisor) -> Driver:
    """A driver that asks a hypervisor, which hands pages back without what guests kept in them."""
    driver.hypervisor = hypervisor
    driver.sanitises = True
    return cast(Driver, driver)


class KvmHost(GuestMemory):
    """Plain KVM: a guest asks the VMM to share a page, and the VMM does it or not."""

    hypervisor: Hypervisor = part()
    driver: KvmDriver = part()

    def host(self) -> Hypervisor:
        return self.hypervisor

    def client(self) -> Driver:
        return self.driver

    @step
    def give(self, guest: Guest, gfn: Gfn) -> None:
        """KVM_HC_MAP_GPA_RANGE.  SNP: a page state change; TDX: MapGPA; CCA: RSI_IPA_STATE_SET.  The VMM answers."""
        if guest.running and guest.entries[gfn].private:
            guest.offer(gfn, self.leaves())

    def leaves(self) -> Content:
        """What a guest leaves in a page that it offers."""
        return Content.SHARED

    @always(PAIRED)
    def invalidation_ended(self) -> bool:
        return self.at_work() or not any(any(guest.invalidating) for guest in self.machine.guests)

    def may_share(self, pgoff: Pgoff) -> bool:
        """What the guest has asked for, or what no guest ever had."""
        return self.file.owner[pgoff] is None or self.offered(pgoff)


class GunyahHost(GuestMemory):
    """Gunyah.

    Attributes:
        halfway: a hypercall over several frames that is refused may have done some of them by then.
    """

    hypervisor: Gunyah = part()
    driver: GunyahDriver = part()
    halfway: bool = False

    def host(self) -> Hypervisor:
        self.hypervisor.enforcement = Enforcement.SEA
        self.hypervisor.machine = self.machine
        self.hypervisor.halfway = self.halfway
        return self.hypervisor

    def client(self) -> Driver:
        return sanitising(self.driver, self.hypervisor)

    def give(self, guest: Guest, gfn: Gfn) -> None:
        self.hypervisor.modify_pages(guest, gfn)


class PkvmHost(GuestMemory):
    """pKVM as of Linux 7.3.

    Attributes:
        el2_panics: as of 6.12, where an access of the host to what it does not own is a bug at EL2.
        asks: guests wait for the host's answer before they take back what they shared.
    """

    hypervisor: Pkvm = part()
    driver: PkvmDriver = part()
    el2_panics: bool = False
    asks: bool = False

    def host(self) -> Hypervisor:
        self.hypervisor.enforcement = Enforcement.EL2_PANIC if self.el2_panics else Enforcement.S1PTW
        self.hypervisor.machine = self.machine
        self.hypervisor.asks = self.asks
        return self.hypervisor

    def agrees(self, guest: Guest, gfn: Gfn, shared: bool) -> bool:
        """What is shared a guest decides by itself, and the host hears of it."""
        return True

    def client(self) -> Driver:
        return sanitising(self.driver, self.hypervisor)

    def give(self, guest: Guest, gfn: Gfn) -> None:
        self.hypervisor.guest_share_host(guest, gfn)

    @step
    def keep(self, guest: Guest, gfn: Gfn) -> None:
        self.hypervisor.guest_unshare_host(guest, gfn)
        entry = guest.entries[gfn]
        taken = not guest.running or entry.frame is None or guest.gave[gfn]
        require(taken or entry.private, DONE_OR_NOTHING)

    def may_share(self, pgoff: Pgoff) -> bool:
        """Where guests wait for an answer: what the guest has asked for, or what no guest ever had."""
        return not self.asks or self.file.owner[pgoff] is None or self.offered(pgoff)


class ConfidentialHost(KvmHost):
    """A host of confidential VMs.  A guest keeps nothing in a page that it offers: a conversion takes what is there."""

    hypervisor: Confidential = part()
    driver: ConfidentialDriver = part()

    def client(self) -> Driver:
        self.hypervisor.machine = self.machine
        return sanitising(self.driver, self.hypervisor)

    @step
    def touch_page(self, guest: Guest, gfn: Gfn) -> bool:
        """A guest accepts a page that is new to it.  One that it has accepted, and must accept again, is not what it was."""
        when(guest.running and not guest.frozen)
        entry = guest.entries[gfn]
        if entry.private and entry.frame is not None and not self.hypervisor.accepted[entry.frame.pfn]:
            require(guest.expects[gfn] is not Expects.SECRET, CONTENTS_SURVIVE)
            self.hypervisor.accepted[entry.frame.pfn] = True
        return guest.access(gfn)

    def leaves(self) -> Content:
        return Content.ZERO


class UnfaultingHost(ConfidentialHost):
    """A host whose loads of a guest's page show noise or zeros, and fault only where the page is out of the direct map."""

    def met(self, frame: Frame, loaded: Loaded) -> None:
        if not frame.stage2:
            reached("the kernel runs into a page of a guest, and sees nothing of it")


class SnpHost(UnfaultingHost):
    """SEV-SNP: the RMP says whose a page is, and the nested page tables are the host's."""

    def host(self) -> Hypervisor:
        self.hypervisor.enforcement = Enforcement.RMP
        self.hypervisor.demotes = False
        return self.hypervisor


class TdxHost(UnfaultingHost):
    """TDX: the private stage 2 is the module's, and a page that leaves it loses what is in it.

    Attributes:
        demotes: a block entry of which a part goes is split before.
    """

    demotes: bool = True

    def host(self) -> Hypervisor:
        self.hypervisor.enforcement = Enforcement.POISON
        self.hypervisor.zap_destroys = True
        self.hypervisor.demotes = self.demotes
        return self.hypervisor


class CcaHost(ConfidentialHost):
    """CCA: what a realm has is in another physical address space; the stage 2 of realms is the RMM's."""

    def host(self) -> Hypervisor:
        self.hypervisor.enforcement = Enforcement.GPT
        self.hypervisor.zap_destroys = True
        return self.hypervisor


class OnKvm(KvmHost, Cast):
    """The standard cast on KVM."""


class OnGunyah(GunyahHost, Cast):
    """The standard cast on Gunyah."""

    must_show = ["a VM's memory cannot be taken back", "a page cannot be discarded"]

    def unbinding_failed(self) -> None:
        reached("a VM's memory cannot be taken back")

    def punching_failed(self, err: int, start: int, end: int) -> None:
        reached("a page cannot be discarded")


class OnPkvm(PkvmHost, Cast):
    """The standard cast on pKVM."""

    must_show = ["a page cannot be discarded"]

    def punching_failed(self, err: int, start: int, end: int) -> None:
        reached("a page cannot be discarded")


class OnSnp(SnpHost, Cast):
    """The standard cast on SEV-SNP."""


class OnTdx(TdxHost, Cast):
    """The standard cast on TDX."""


class OnCca(CcaHost, Cast):
    """The standard cast on CCA."""


class ForcedOnPkvm(PkvmHost, CrashDump, PlainRead, Process, Vcpus, RunningVm):
    """pKVM, where a page that the host has taken by force is lost to its guest, which ends when it comes back to it."""

    geometry = {"pages": 1, "frames": 2}

    def keeps(self, guest: Guest, gfn: Gfn) -> bool:
        return guest.entries[gfn].poison or super().keeps(guest, gfn)

    @sometimes("the host has taken a page by force")
    def forced(self) -> bool:
        return any(entry.poison for guest in self.machine.guests for entry in guest.entries)


class PaddedOnKvm(KvmHost, Zeropad, RunningVm):
    """Names are looked up while block entries are split; the guest does nothing."""

    geometry = {"pages": 1, "frames": 2}


class SignalsOnKvm(OnKvm):
    """Threads in the kernel get signals."""

    must_show = ["a signal ends an allocation"]

    def allocation_failed(self, err: int) -> None:
        if err == -EINTR:
            reached("a signal ends an allocation")


class PartsOnKvm(KvmHost, Parts):
    """Two VMs on KVM that have parts of a file."""

    geometry = {"vms": 2}


class BeyondOnKvm(KvmHost, Beyond):
    """A VM on KVM whose file ends before the last page that its VMM asks for."""


class SlotsOnKvm(KvmHost, Slots):
    """A VM on KVM that has parts of a file at any gfn."""


class SlotsOnGunyah(GunyahHost, Slots):
    """A VM on Gunyah that has parts of a file at any gfn."""

    must_show = ["a page of a running guest cannot be taken"]

    def forgotten(self, guest: Guest, gfn: Gfn, err: int) -> None:
        super().forgotten(guest, gfn, err)
        if err:
            reached("a page of a running guest cannot be taken")


class BlocksOnKvm(KvmHost, PlainRead, Kcore, Vcpus, RunningVm):
    """Two pages of a file in one block entry of the direct map."""

    geometry = {"frames": 4}

    @sometimes("two pages of the file are in one block entry")
    def in_one_block(self) -> bool:
        first = self.file.mapping.slots[0]
        second = self.file.mapping.slots[1]
        return first is not None and second is not None and first.frame.order > 0 and first.frame.next is second.frame


class TwoThreadsOnKvm(KvmHost, TwoThreads):
    """A VMM of two threads on KVM."""

    geometry = {"pages": 1}


class TwoThreadsOnGunyah(GunyahHost, TwoThreads):
    """A VMM of two threads on Gunyah."""

    geometry = {"pages": 1}


class WalkedOnKvm(OnKvm, Walker):
    """The standard cast on KVM, and a walker of memory."""


class FixedUpOnGunyah(GunyahHost, Kcore, Zeropad, Process, Vcpus, Vmm):
    """The standard cast on Gunyah without the plain read: every access that nobody asked for has an exception-table entry."""


class WalkedOnGunyah(OnGunyah, Walker):
    """The standard cast on Gunyah, and a walker of memory."""


class WalkedOnPkvm(OnPkvm, Walker):
    """The standard cast on pKVM, and a walker of memory."""


class EagerOnGunyah(OnGunyah):
    """Gunyah, with a driver that lends in prepare_inaccessible."""

    driver: EagerGunyahDriver = part()


class EagerPagesOnGunyah(GunyahHost, Vcpus, RunningVm):
    """Two pages that become private together: the second may fail when the first is lent, and is not given back."""

    geometry = {"pages": 2}
    must_show = ["a page is lost with a conversion"]

    driver: EagerGunyahDriver = part()

    def conversion_failed(self) -> None:
        if any(folio.lost for folio in self.kernel.folios):
            reached("a page is lost with a conversion")


class TwoOnGunyah(OnGunyah):
    """Two VMs that use the same pages, one after the other."""

    geometry = {"vms": 2, "pages": 1, "frames": 2}

    def started(self, guest: Guest, before: Guest | None) -> None:
        if before is not None and before is not guest:
            reached(SECOND)


class TwoOnKvm(OnKvm):
    """Two VMs that use the same pages, one after the other."""

    geometry = {"vms": 2, "pages": 1, "frames": 2}

    def started(self, guest: Guest, before: Guest | None) -> None:
        if before is not None and before is not guest:
            reached(SECOND)
