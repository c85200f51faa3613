# SPDX-License-Identifier: Apache-2.0
"""Hibernation, kexec and live update of a host with guest memory."""

from __future__ import annotations

from errno import EAGAIN, EBUSY, ENOENT, EPERM

from guestmem.guest_memfd.library import Pm
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content, Frame
from guestmem.machine.machine import HYP_PANIC, Fault
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.mm.hibernation import hibernation_available, snapshot
from guestmem.model import array, choose, panic, reached, require, sometimes, step, thread, when
from guestmem.rules import CAUSE, DONE_OR_NOTHING
from guestmem.scenarios.cast import PlainRead, Process, Vcpus, Vmm
from guestmem.scenarios.hypervisors import GunyahHost, KvmHost, PkvmHost

__all__ = [
    "HibernateOnGunyah",
    "HibernateOnKvm",
    "HibernateOnPkvm",
    "KexecOnGunyah",
    "LiveUpdate",
    "ReclaimOnKvm",
]


class Freezable(Vmm, Vcpus):
    """A VMM and guests that can be frozen between two of their system calls.

    Attributes:
        working: the VMM is in one.
    """

    working: bool = False

    def operate(self, cpu: Cpu) -> None:
        self.enter_kernel()
        super().operate(cpu)
        self.working = False

    @step
    def enter_kernel(self) -> None:
        when(not self.machine.guests[0].frozen)
        self.working = True

    @step
    def freeze_processes(self) -> None:
        """Wait until nobody is in the kernel, and let nobody in."""
        when(not self.working and not any(guest.exited > 0 for guest in self.machine.guests))
        self.set_frozen(True)

    @step
    def thaw_processes(self) -> None:
        self.set_frozen(False)

    def set_frozen(self, frozen: bool) -> None:
        """Whether vCPUs, and the VMM with them, are kept from running."""
        for guest in self.machine.guests:
            guest.frozen = frozen


class Hibernate(Freezable):
    """Somebody has the host hibernate, now and then.

    Attributes:
        pm: what the library does about it.
    """

    geometry = {"pages": 1, "frames": 3}

    pm: Pm = Pm.REFUSE

    def setup(self) -> None:
        super().setup()
        self.file.pm = self.pm

    def interfered(self, err: int) -> bool:
        return err == -EAGAIN or err == -EBUSY or super().interfered(err)

    def postponed(self) -> bool:
        return True

    @thread
    def hibernate(self) -> None:
        """echo disk > /sys/power/state."""
        while True:
            self.attempt(self.machine.cpus[0])

    def attempt(self, cpu: Cpu) -> None:
        """hibernate(): what is asked before anything is frozen may not be so any more when all is."""
        if not hibernation_available(self.kernel):
            return
        err = self.file.hibernation_prepare()
        require(self.caused(err) and (err == 0 or self.against_image()), CAUSE)
        if err == 0:
            self.freeze_processes()
            snapshot(self.kernel, cpu)
            require(not self.machine.refused(), CAUSE)
            reached("an image is made")
            self.thaw_processes()
        self.file.post_hibernation()

    def against_image(self) -> bool:
        """Whether the library has a cause to say that no image may be made."""
        if self.kernel.lost or (self.pm is Pm.REFUSE and self.file.open):
            return True
        for pgoff in Pgoff.span(0, len(self.file.shared)):
            kept = self.file.bound[pgoff] or self.pm is not Pm.RECLAIM
            if self.file.mapping.slots[pgoff] is not None and not self.file.shared[pgoff] and kept:
                return True
        return False


class HibernateOnGunyah(GunyahHost, Hibernate):
    """Hibernation of a host under Gunyah."""


class HibernateOnKvm(KvmHost, Hibernate):
    """Hibernation of a host with plain KVM."""


class ReclaimOnKvm(HibernateOnKvm):
    """Hibernation for which the library gives up what it can."""

    @sometimes("a private page without a guest is discarded for an image")
    def reclaimed(self) -> bool:
        if self.working or self.file.mapping.invalidate_lock.writer == 0:  # not the VMM has it, but the notifier
            return False
        return any(folio.refcount > self.holders(pfn) for pfn, folio in enumerate(self.kernel.folios))


class HibernateOnPkvm(PkvmHost, Hibernate):
    """Hibernation of a host with pKVM."""


class Kexec(Freezable):
    """Somebody starts another kernel, which knows nothing of what was lent.

    Attributes:
        notified: the library is told first, and stops it where it cannot get everything back.
    """

    geometry = {"pages": 1, "frames": 3}

    notified: bool = True

    @thread
    def kexec(self) -> None:
        """kexec -e, once it is possible."""
        while True:
            if self.prepared():
                for frame in self.machine.frames:
                    self.new_kernel_writes(frame)
                reached("another kernel runs")
                self.thaw_processes()

    def prepared(self) -> bool:
        """The reboot notifier, with all processes frozen: end VMs, take everything back.  False: something is still lent."""
        self.freeze_processes()
        if not self.notified:
            return True
        for guest in self.machine.guests:
            self.machine.hypervisor.vm_stop(guest)
            guest.frozen = True
        if self.file.open:
            self.close()
        if not self.kernel.lost:
            return True
        reached("kexec is refused")
        self.thaw_processes()
        return False

    @step
    def new_kernel_writes(self, frame: Frame) -> None:
        """The new kernel has a direct map of its own, of all memory, and writes to a page."""
        fault = self.machine.stage2_fault(frame, False)
        if fault is Fault.EL2:
            panic(HYP_PANIC)
        if fault is not Fault.NONE:
            panic("the new kernel touches a page that the old one lent")


class KexecOnGunyah(GunyahHost, Kexec):
    """kexec of a host under Gunyah."""


class LiveUpdate(KvmHost, PlainRead, Process, Freezable):
    """A file that is all shared is handed to the next kernel, which finds in it what was there.

    Attributes:
        handed: by page offset, the folio that the next kernel is told of (KHO).
        reserves: the next kernel keeps what it was handed from its allocator.
    """

    geometry = {"pages": 1, "frames": 3}

    handed: list[Folio | None] = array("pages")
    reserves: bool = True

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + (1 if self.reserves and any(one is self.kernel.folios[pfn] for one in self.handed) else 0)

    def interfered(self, err: int) -> bool:
        return err == -EPERM or super().interfered(err)

    @thread
    def luo(self) -> None:
        """The live update orchestrator: preserve, then cancel, or go on to the next kernel and retrieve."""
        while True:
            if self.file.preserve() == 0:
                if choose(2, "go on, cancel") == 1:
                    self.file.unpreserve()
                    require(not self.file.preserved, DONE_OR_NOTHING)
                    reached("a live update is cancelled")
                else:
                    self.next_kernel()

    def next_kernel(self) -> None:
        """Freeze, hand over, boot, retrieve."""
        if self.boot() == 0:
            for pgoff in Pgoff.span(0, len(self.handed)):
                self.retrieve(pgoff)
            self.end()

    @step
    def boot(self) -> int:
        """Once all processes are frozen: a new kernel, its direct map, new folios, free but its own and what it was handed.

        -ENOENT: the file that was preserved is gone.
        """
        idle = self.pinned.folio is None and self.rented is None and not self.at_work()
        when(idle and not self.working and not any(guest.exited > 0 for guest in self.machine.guests))
        if not self.file.preserved:
            return -ENOENT
        with self.file.mapping.invalidate_lock.exclusive:
            for pgoff in Pgoff.span(0, len(self.handed)):
                self.handed[pgoff] = self.file.mapping.slots[pgoff]
                self.discarding[pgoff] = True
                self.file.mapping.slots[pgoff] = None
                self.file.mapping.user[pgoff].folio = None
                self.file.mapping.user[pgoff].live = False
        self.set_frozen(True)
        for pfn in range(1, len(self.kernel.folios)):
            folio = self.kernel.folios[pfn]
            kept = self.reserves and any(one is folio for one in self.handed)
            folio.free = not kept
            folio.refcount = 0
            folio.uptodate = kept
            folio.zapped = False
            folio.frame.present = True
            for cpu in self.machine.cpus:
                cpu.stale[pfn] = False
            if kept:
                folio.refcount = 1
            else:
                folio.frame.content = Content.HOST
        return 0

    @step
    def retrieve(self, pgoff: Pgoff) -> None:
        """Put a folio into the new file."""
        with self.file.mapping.invalidate_lock.shared:
            folio = self.handed[pgoff]
            if folio is not None:
                require(not folio.free, DONE_OR_NOTHING)
                self.file.mapping.slots[pgoff] = folio
                self.handed[pgoff] = None
                reached("a page is retrieved by the next kernel")

    @step
    def end(self) -> None:
        """The VMs run on."""
        self.file.unpreserve()
        for pgoff in Pgoff.span(0, len(self.handed)):
            self.discarding[pgoff] = False
        self.set_frozen(False)
