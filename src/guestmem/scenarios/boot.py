# SPDX-License-Identifier: Apache-2.0
"""A VM on Gunyah that is started with its image in a memory parcel, fails at any step of that, ends, and is started again."""

from __future__ import annotations

from errno import EBUSY, EPERM

from guestmem.hypervisors.gunyah_vm import GunyahVm, ParcelDriver, ResourceManager, Status
from guestmem.machine.guest import Gfn
from guestmem.model import alone, part, reached, require, thread
from guestmem.rules import CAUSE, DONE_OR_NOTHING, NO_LOCK_HELD
from guestmem.scenarios.cast import FileUser, Vcpus
from guestmem.scenarios.hypervisors import GunyahHost

__all__ = ["BootOnGunyah"]


class BootOnGunyah(GunyahHost, FileUser, Vcpus):
    """A VMM of two threads on Gunyah: one starts and ends a VM, the other works on its file."""

    geometry = {"pages": 1, "frames": 2, "parcels": 1}
    must_show = [
        "a VM starts from a parcel",
        "a VM does not start, and its parcel comes back",
        "a guest's pages come back when it is torn down",
        "a page in a parcel is refused",
    ]

    driver: ParcelDriver = part()
    rm: ResourceManager = part()
    vm: GunyahVm = part()

    def setup(self) -> None:
        super().setup()
        guest = self.machine.guests[0]
        self.rm.hypervisor = self.hypervisor
        self.rm.guest = guest
        self.vm.rm = self.rm
        self.vm.driver = self.driver
        self.vm.file = self.file
        with alone():
            self.file.create()

    def interfered(self, err: int) -> bool:
        if err == -EBUSY and any(self.driver.parcelled):
            reached("a page in a parcel is refused")
            return True
        return super().interfered(err)

    @thread
    def starter(self) -> None:
        """Start the VM and end it."""
        while True:
            require(self.file.bind(self.rm.guest, 0, len(self.file.bound), Gfn(0)) == 0, CAUSE)
            err = self.vm.start(self.machine.cpus[0], 0, 1)
            require(self.caused(err) or (err == -EPERM and self.file.shared[0]), CAUSE)
            require((self.vm.status is Status.RUNNING) == (err == 0), DONE_OR_NOTHING)
            require(not self.locked(), NO_LOCK_HELD)
            if err == 0:
                reached("a VM starts from a parcel")
            parcel = self.vm.parcel.shared
            self.end()
            if parcel:
                reached("a VM does not start, and its parcel comes back")
            elif err == 0:
                reached("a guest's pages come back when it is torn down")

    def end(self) -> None:
        """End the VM, and have its memory back, at the next attempt where it was refused."""
        err = self.vm.put()
        while err:
            require(self.caused(err) and err != -EBUSY, CAUSE)
            err = self.vm.put()
        require(self.rm.guest.empty() and self.vm.status is Status.NONE, DONE_OR_NOTHING)
        require(not any(self.driver.parcelled) and not any(self.driver.provided), DONE_OR_NOTHING)
        require(not self.locked(), NO_LOCK_HELD)

    @thread
    def notifications(self) -> None:
        """The resource manager ends or resets the VM, and notifies the driver."""
        while True:
            self.vm.notified(self.rm.work())
            self.vm.status_wait.wake_up()
