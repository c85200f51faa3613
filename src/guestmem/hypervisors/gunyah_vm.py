# SPDX-License-Identifier: Apache-2.0
"""A VM on Gunyah from its id to its end: the resource manager, the memory parcels that it hands out, and the driver's part.

Sources: quic/gunyah-resource-manager, memparcel.c and vm_mgmt; the driver posted as "drivers: virt: Gunyah", its vm_mgr.c,
vm_mgr_mem.c and rsc_mgr_rpc.c.
"""

from __future__ import annotations

from enum import Enum
from errno import EBUSY, EINVAL, ENOMEM, EPERM

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import Extent, Gunyah, GunyahDriver
from guestmem.machine.cost import Cost
from guestmem.machine.cpu import Cpu
from guestmem.machine.frame import Content, Frame
from guestmem.machine.guest import Gfn, Guest
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio, folio_page
from guestmem.mm.wait import WaitQueue
from guestmem.model import Index, Record, array, charge, may, part, step, when

__all__ = ["GunyahVm", "HostParcel", "ParcelDriver", "ResourceManager", "Status"]


class Status(Enum):
    """Where a VM is in its life (enum gunyah_rm_vm_status); EXITING and RESETTING only the resource manager sees."""

    NONE = 0
    LOAD = 1
    INIT_FAILED = 2
    READY = 3
    RUNNING = 4
    EXITING = 5
    EXITED = 6
    RESETTING = 7
    RESET = 8


class Handle(Index, below="parcels"):
    """How the resource manager calls a parcel."""


class HostParcel(Record):
    """The host's side of a parcel (struct gunyah_rm_mem_parcel).

    Attributes:
        shared: the resource manager has it, as ``handle``.
        frames: what is in it, by the gfn where the VM has it.
    """

    shared: bool = False
    handle: Handle = Handle(0)
    frames: list[Frame | None] = array("pages")


class Memparcel(Record):
    """The resource manager's side.

    Attributes:
        live: its handle is valid.
        accepted: the VM has it mapped.
        frames: what is in it, by gfn.
    """

    live: bool = False
    accepted: bool = False
    frames: list[Frame | None] = array("pages")


class ResourceManager(Record):
    """The RPCs of the host about one VM.  Each that takes something may be refused.

    Attributes:
        status: where the VM is.
        parcels: by handle.
    """

    hypervisor: Gunyah
    guest: Guest
    status: Status = Status.NONE
    parcels: list[Memparcel] = array("parcels")

    def refuses(self) -> bool:
        """Whether it has not what a call takes."""
        charge(Cost.HYPERCALL)
        refused = may("an RPC is refused")
        if refused:
            self.hypervisor.machine.refuse()
        return refused

    @step
    def vm_alloc(self) -> int:
        """VM_ALLOC_VMID; -EINVAL: the VM is there."""
        if self.status is not Status.NONE:
            return -EINVAL
        if self.refuses():
            return -ENOMEM
        self.status = Status.LOAD
        return 0

    @step
    def mem_lend(self, parcel: HostParcel) -> int:
        """MEM_LEND to one VM: the host has no access from here on.  -EBUSY: a frame is not the host's (MEM_INUSE)."""
        for frame in parcel.frames:
            if frame is not None and self.hypervisor.owners[frame.pfn].extent is not Extent.HOST:
                return -EBUSY
        if self.refuses():
            return -ENOMEM
        for handle in Handle.span(0, len(self.parcels)):
            if not parcel.shared and not self.parcels[handle].live:
                parcel.shared = True
                parcel.handle = handle
        if not parcel.shared:
            self.hypervisor.machine.refuse()
            return -ENOMEM
        self.parcels[parcel.handle].live = True
        for gfn in Gfn.span(0, len(parcel.frames)):
            frame = parcel.frames[gfn]
            self.parcels[parcel.handle].frames[gfn] = frame
            if frame is not None:
                self.hypervisor.own(frame, self.guest, True)
        return 0

    @step
    def mem_reclaim(self, handle: Handle) -> int:
        """MEM_RECLAIM.  -EINVAL: no such parcel (HANDLE_INVALID); -EBUSY: the VM has it mapped (MEM_INUSE)."""
        parcel = self.parcels[handle]
        if not parcel.live:
            return -EINVAL
        if parcel.accepted:
            return -EBUSY
        if self.refuses():
            return -ENOMEM
        for frame in parcel.frames:
            if frame is not None:
                self.hypervisor.own(frame, None, False)
        self.forget(parcel)
        return 0

    @step
    def vm_init(self, handle: Handle) -> int:
        """VM_INIT: authenticate the image in a parcel, which the VM accepts.  An error: the VM can only be reset."""
        parcel = self.parcels[handle]
        if self.status is not Status.LOAD or not parcel.live:
            return -EINVAL
        if self.refuses():
            self.status = Status.INIT_FAILED
            return -ENOMEM
        self.status = Status.READY
        parcel.accepted = True
        for gfn in Gfn.span(0, len(parcel.frames)):
            frame = parcel.frames[gfn]
            if frame is not None:
                self.guest.enter(gfn, frame, 0, True)
        return 0

    @step
    def vm_start(self) -> int:
        """VM_START: the VM runs, and the host has its pages back one by one; of parcels nobody speaks any more."""
        if self.status is not Status.READY:
            return -EINVAL
        if self.refuses():
            return -ENOMEM
        self.status = Status.RUNNING
        self.guest.running = True
        for parcel in self.parcels:
            self.forget(parcel)
        return 0

    def forget(self, parcel: Memparcel) -> None:
        """A parcel is a parcel no more."""
        parcel.live = False
        parcel.accepted = False
        for gfn in Gfn.span(0, len(parcel.frames)):
            parcel.frames[gfn] = None

    @step
    def vm_stop(self) -> None:
        """VM_STOP: the VM is being ended; that it has exited is notified."""
        if self.status is Status.RUNNING:
            self.status = Status.EXITING

    @step
    def vm_reset(self) -> int:
        """VM_RESET: what the VM has is being cleared and unmapped; that it is done is notified.  -EINVAL: not now."""
        if self.status is not Status.EXITED and self.status is not Status.READY and self.status is not Status.INIT_FAILED:
            return -EINVAL
        self.status = Status.RESETTING
        return 0

    @step
    def vm_dealloc(self) -> int:
        """VM_DEALLOC_VMID.  -EBUSY: the VM was not reset, or a parcel is out."""
        reset = self.status is Status.RESET or self.status is Status.LOAD
        if not reset or any(parcel.live for parcel in self.parcels):
            return -EBUSY
        self.status = Status.NONE
        return 0

    def work(self) -> Status:
        """Finish what takes time: an exit, or a reset; what is to be notified."""
        if self.next() is Status.EXITING:
            self.hypervisor.vm_stop(self.guest)
            self.exited()
        else:
            self.reset()
        return self.status

    @step
    def next(self) -> Status:
        """Wait for something to do."""
        when(self.status is Status.EXITING or self.status is Status.RESETTING)
        return self.status

    @step
    def exited(self) -> None:
        """The VM executes no more, and its pages are sanitised."""
        self.status = Status.EXITED

    @step
    def reset(self) -> None:
        """Parcels are accepted no more, and what was in them is gone."""
        for parcel in self.parcels:
            parcel.accepted = False
            for gfn in Gfn.span(0, len(parcel.frames)):
                frame = parcel.frames[gfn]
                if frame is not None:
                    self.guest.forget(gfn)
                    frame.content = Content.ZERO
        self.status = Status.RESET


class ParcelDriver(GunyahDriver):
    """Gunyah's driver, which leaves alone what is in a parcel.

    Attributes:
        parcelled: by frame number, the frame is in a parcel, which only comes back as a whole.
    """

    parcelled: list[bool] = array("frames")

    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio | None) -> int:
        """Reclaim a page, if it was provided; -EBUSY while it is in a parcel."""
        if folio is not None and self.parcelled[folio_page(file.kernel, folio, pgoff).pfn]:
            return -EBUSY
        return super().prepare_accessible(file, pgoff, folio)


class GunyahVm(Record):
    """What the driver keeps of a VM (struct gunyah_vm).

    Attributes:
        status: as last notified, or known from an RPC that succeeded.
        status_wait: who waits for a notification.
        parcel: the pages with the VM's image and device tree, until it runs.
    """

    rm: ResourceManager
    driver: ParcelDriver
    file: GuestMemfd
    status: Status = Status.NONE
    status_wait: WaitQueue = part()
    parcel: HostParcel = part()

    def start(self, cpu: Cpu, start: int, end: int) -> int:
        """GUNYAH_VM_START, with the image in start <= pgoff < end, which the VM has.  An error: only ``put`` can follow."""
        err = self.rm.vm_alloc()
        if err:
            return err
        self.status = Status.LOAD
        err = self.share_parcel(cpu, start, end)
        if err:
            return err
        err = self.rm.vm_init(self.parcel.handle)
        self.status = Status.INIT_FAILED if err else Status.READY
        if err:
            return err
        self.parcel_to_paged()
        err = self.rm.vm_start()
        if err:
            self.paged_to_parcel()
        else:
            self.status = Status.RUNNING
            self.drop_parcel()
        return err

    def share_parcel(self, cpu: Cpu, start: int, end: int) -> int:
        """Lend pages of the file as a parcel.  -EPERM: a page is shared with the host, or is not the VM's."""
        with self.file.mapping.invalidate_lock.shared:
            err = self.fill_parcel(cpu, start, end)
            if err == 0:
                err = self.rm.mem_lend(self.parcel)
            if err:
                self.empty_parcel()
        return err

    def fill_parcel(self, cpu: Cpu, start: int, end: int) -> int:
        """Put pages into the parcel, private and out of the host's reach."""
        for pgoff in Pgoff.span(start, end):
            if self.file.shared[pgoff] or not self.file.bound[pgoff] or self.file.owner[pgoff] is not self.rm.guest:
                return -EPERM
            err, folio = self.file.grab_folio(cpu, pgoff, True)
            if folio is None:
                return err
            frame = folio_page(self.file.kernel, folio, pgoff)
            self.parcel.frames[self.file.gfn[pgoff]] = frame
            self.driver.parcelled[frame.pfn] = True
            self.file.put_folio(folio)
        return 0

    def empty_parcel(self) -> None:
        """Nothing is in the parcel; the invalidate lock is held, so that nobody counts on it meanwhile."""
        self.parcel.shared = False
        for gfn in Gfn.span(0, len(self.parcel.frames)):
            frame = self.parcel.frames[gfn]
            if frame is not None:
                self.driver.parcelled[frame.pfn] = False
            self.parcel.frames[gfn] = None

    def drop_parcel(self) -> None:
        """The resource manager knows the parcel no more."""
        with self.file.mapping.invalidate_lock.exclusive:
            self.empty_parcel()

    @step
    def parcel_to_paged(self) -> None:
        """The pages will come back one by one."""
        for frame in self.parcel.frames:
            if frame is not None:
                self.driver.provided[frame.pfn] = True

    @step
    def paged_to_parcel(self) -> None:
        """They will not: the resource manager still has them as a parcel."""
        for frame in self.parcel.frames:
            if frame is not None:
                self.driver.provided[frame.pfn] = False

    def put(self) -> int:
        """The VM goes, and its memory comes back.  An error: some did not, and it can be tried again."""
        if self.status is Status.RUNNING:
            self.rm.vm_stop()
            self.wait(Status.EXITED)
        if self.status is Status.READY or self.status is Status.INIT_FAILED:
            self.reset()
        if self.parcel.shared:
            err = self.rm.mem_reclaim(self.parcel.handle)
            if err:
                return err
            self.drop_parcel()
        err = self.file.unbind(self.rm.guest, 0, len(self.file.bound))
        if err:
            return err
        if self.status is Status.EXITED:
            self.reset()
        err = self.rm.vm_dealloc() if self.status is not Status.NONE else 0
        if err == 0:
            self.status = Status.NONE
        return err

    def reset(self) -> None:
        """Only after a reset is the memory of a VM the host's: the resource manager clears it on the way."""
        if self.rm.vm_reset() == 0:
            self.wait(Status.RESET)

    def wait(self, status: Status) -> None:
        """Wait for a notification."""
        self.status_wait.prepare()
        while self.status is not status:
            self.status_wait.schedule()
            self.status_wait.prepare()
        self.status_wait.finish()

    @step
    def notified(self, status: Status) -> None:
        """gunyah_vm_rm_notification_status(): the VM is somewhere else; whoever waits is woken next."""
        self.status = status
