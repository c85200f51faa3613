# SPDX-License-Identifier: Apache-2.0
"""The whole story on one host: a library, two hypervisor drivers, a large folio, hibernation, a module."""

from __future__ import annotations

from errno import EWOULDBLOCK

from guestmem.guest_memfd.library import Driver, GuestMemfd
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.machine.frame import Content
from guestmem.machine.guest import Gfn, Guest
from guestmem.machine.machine import Fault
from guestmem.mm.exception import kernel_store
from guestmem.mm.filemap import Pgoff, user_access
from guestmem.mm.folio import Folio, alloc_folio
from guestmem.mm.hibernation import hibernation_available
from guestmem.mm.module import Module, delete_module
from guestmem.model import part, reached, require, thread
from guestmem.rules import REFUSED
from guestmem.scenarios.cast import Tenant, Zeropad
from guestmem.scenarios.hypervisors import GunyahHost

__all__ = ["Story"]


class Story(GunyahHost, Tenant, Zeropad):
    """One VMM does everything once, while another CPU looks names up.

    VM 0 runs under Gunyah, on ``file``, whose driver is a module; VM 1 under KVM, on ``kvm_file``.
    """

    geometry = {"vms": 2, "pages": 2, "frames": 6, "order": 1}

    module: Module = part()
    kvm_driver: KvmDriver = part()
    kvm_file: GuestMemfd = part()

    @thread
    def story(self) -> None:
        """From the first page to the last; where memory or the hypervisor fails it, it goes on to the end."""
        gunyah_vm = self.machine.guests[0]
        kvm_vm = self.machine.guests[1]
        cpu = self.machine.cpus[0]

        # A page of names.  What comes after it in memory may become anybody's.
        self.rented = alloc_folio(self.kernel, 0)
        if self.rented is not None:
            kernel_store(self.kernel, cpu, self.rented.frame, Content.HOST)

        # Two drivers, one library.
        require(self.file.create() == 0 and self.kvm_file.create() == 0, "files can be created")
        self.file.bind(gunyah_vm, 0, 2, Gfn(0))
        self.kvm_file.bind(kvm_vm, 0, 2, Gfn(0))
        gunyah_vm.running = True
        kvm_vm.running = True

        # The page cache gives a large folio, the library takes it out of the direct map, Gunyah's driver lends it.
        # At the end of the page before it somebody looks a name up: that is what all this is about.
        self.touch(self.file, gunyah_vm, Gfn(0))
        self.touch(self.kvm_file, kvm_vm, Gfn(0))

        # A part of the large folio becomes shared, so it is split; the VMM uses that part.
        self.give(gunyah_vm, Gfn(0))
        err, _ = self.file.convert(0, 1, True)
        if err == 0:
            self.use_mapping(Pgoff(0))

            # All is private again, and one folio.
            err, _ = self.file.convert(0, 1, False)
            if err == 0:
                gunyah_vm.gave[0] = False
                self.touch(self.file, gunyah_vm, Gfn(0))

        # Who asks for hibernation, or for the module to go, is refused.
        require(not hibernation_available(self.kernel), REFUSED)
        require(delete_module(self.module) == -EWOULDBLOCK, REFUSED)

        # The VMs end; everything returns, or is known to be lost.
        self.machine.hypervisor.vm_stop(gunyah_vm)
        kvm_vm.stop()
        self.file.release()
        self.kvm_file.release()
        require(delete_module(self.module) == 0, "a driver without files can be unloaded")
        if hibernation_available(self.kernel):
            reached("hibernation is possible again")

    def touch(self, file: GuestMemfd, guest: Guest, gfn: Gfn) -> None:
        """A guest writes a secret to a page, having faulted it in where it is not there."""
        if not guest.touch(gfn):
            err = file.guest_fault(self.machine.cpus[0], guest, gfn)
            guest.exited -= 1
            if err == 0:
                guest.touch(gfn)
                reached("a guest has a secret")

    def use_mapping(self, pgoff: Pgoff) -> None:
        """The VMM writes to a page of its mapping, having faulted it in."""
        if user_access(self.machine, self.file.mapping, pgoff, True) is Fault.TRANSLATION:
            if self.file.fault(self.machine.cpus[0], pgoff) == 0:
                user_access(self.machine, self.file.mapping, pgoff, True)
                reached("the VMM uses a part of what was a large folio")

    # ---- what a second file means for the rules

    def client(self) -> Driver:
        driver = super().client()
        driver.module = self.module
        return driver

    def setup(self) -> None:
        super().setup()
        self.kvm_file.kernel = self.kernel
        self.kvm_file.driver = self.kvm_driver
        self.kvm_file.protection = self.protection

    def file_of(self, guest: Guest) -> GuestMemfd:
        if guest is self.machine.guests[0]:
            return self.file
        return self.kvm_file

    def at_work(self) -> bool:
        return super().at_work() or self.kvm_file.mapping.invalidate_lock.busy()

    def holders(self, pfn: int) -> int:
        return super().holders(pfn) + sum(1 for slot in self.kvm_file.mapping.slots if slot is self.kernel.folios[pfn])

    def files_against_images(self) -> int:
        return super().files_against_images() + (1 if self.kvm_file.open else 0)

    def mapped(self, folio: Folio) -> bool:
        return super().mapped(folio) or any(entry.folio is folio for entry in self.kvm_file.mapping.user)
