# SPDX-License-Identifier: Apache-2.0
"""VMs of the kernel's host: their ioctls, memory slots, and guests that load and store."""

from __future__ import annotations

import os
import platform

from guestmem.contract.interface import Missing
from guestmem.contract.kernel.guest import ContractGuest
from guestmem.contract.kernel.mappings import Mappings
from guestmem.contract.kernel.statistics import StatsFile
from guestmem.contract.kernel.task import Open, Task
from guestmem.contract.results import ENOTTY, Denied, Result
from guestmem.linux import calls, uapi
from guestmem.linux.calls import MASK64, libc
from guestmem.linux.kvm import Kvm, Vm

__all__ = ["Vms"]

MASK32 = (1 << 32) - 1
FEWEST_MMU_PAGES = 64  # KVM_MIN_ALLOC_MMU_PAGES, arch/x86/include/asm/kvm_host.h
NOWHERE = 8  # in the page at 0, where vm.mmap_min_addr lets nobody map


class OpenVm(Open):
    """A VM, with its vCPU and its statistics."""

    vcpu: OpenVcpu | None = None
    stats: StatsFile | None = None

    def let_go(self) -> None:
        if self.stats is not None:
            self.stats.close()


class OpenVcpu(Open):
    """A vCPU, with its guest as long as it is open."""

    def __init__(self, guest: ContractGuest) -> None:
        self.guest: ContractGuest | None = guest

    def let_go(self) -> None:
        assert self.guest is not None
        self.guest.close()
        self.guest = None


class Vms:
    """VMs, memory slots, vCPUs, stage 2.  Raises OSError when there is no KVM to open."""

    def __init__(self, task: Task, mappings: Mappings) -> None:
        self.task = task
        self.mappings = mappings
        self.kvm = Kvm()

    def create_vm(self, kind: int = 0) -> Result:
        return self.task.opened(calls.ioctl(self.kvm.fileno(), "KVM_CREATE_VM", uapi.KVM_CREATE_VM, kind), OpenVm())

    def create_guest_memfd(self, vm: Result, size: int, flags: int) -> Result:
        argument = uapi.kvm_create_guest_memfd(size & MASK64, flags & MASK64)
        return self.task.opened(calls.ioctl(self.task.fd(vm), "KVM_CREATE_GUEST_MEMFD", uapi.KVM_CREATE_GUEST_MEMFD, argument))

    def open_kvm(self) -> Result:
        return self.task.opened(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))

    def create_guest_memfd_reserved(self, vm: Result, size: int, flags: int, word: int) -> Result:
        argument = uapi.kvm_create_guest_memfd(size & MASK64, flags & MASK64, (word,))
        return self.task.opened(calls.ioctl(self.task.fd(vm), "KVM_CREATE_GUEST_MEMFD", uapi.KVM_CREATE_GUEST_MEMFD, argument))

    def unmapped_argument(self, vm: Result, ioctl: str) -> Result:
        return libc("ioctl", fd=self.task.fd(vm), request=getattr(uapi, ioctl), argument=NOWHERE)

    def check_extension(self, fd: Result, capability: int) -> Result:
        return calls.ioctl(self.task.fd(fd), "KVM_CHECK_EXTENSION", uapi.KVM_CHECK_EXTENSION, capability)

    def set_user_memory_region2(
        self, vm: Result, slot: int, flags: int, gpa: int, size: int, address: Result | str | None, fd: Result, offset: int
    ) -> Result:
        if isinstance(address, str) and address.startswith("0x"):
            hva = int(address, 16)
        else:
            hva = 0 if address is None else self.mappings.at(address, 0)
        argument = uapi.kvm_userspace_memory_region2(
            slot & MASK32, flags & MASK32, gpa & MASK64, size & MASK64, hva, offset & MASK64, self.task.fd(fd) & MASK32
        )
        name, request = "KVM_SET_USER_MEMORY_REGION2", uapi.KVM_SET_USER_MEMORY_REGION2
        return calls.ioctl(self.task.fd(vm), name, request, argument)

    def set_user_memory_region(self, vm: Result, slot: int, flags: int, gpa: int, size: int) -> Result:
        argument = uapi.kvm_userspace_memory_region(slot & MASK32, flags & MASK32, gpa & MASK64, size & MASK64, 0)
        name, request = "KVM_SET_USER_MEMORY_REGION", uapi.KVM_SET_USER_MEMORY_REGION
        return calls.ioctl(self.task.fd(vm), name, request, argument)

    def create_vcpu(self, vm: Result) -> Result:
        guest = ContractGuest(self.kvm, self.task.fd(vm))
        file = OpenVcpu(guest)
        _, owner = self.task.valid(vm)
        assert isinstance(owner, OpenVm)
        owner.vcpu = file
        return self.task.opened(guest.descriptor(), file)

    def run_bare(self, vm: Result) -> Result:
        if platform.machine() != "x86_64":
            raise Missing("a vCPU that leaves where no memory is: x86-64 (elsewhere it takes one abort after another)")
        with Vm(os.dup(self.task.valid(vm)[0]), self.kvm) as bare:
            # Shadow paging counts its pages from the slots, and without any has none: KVM_RUN would be ENOSPC.
            bare.set_nr_mmu_pages(FEWEST_MMU_PAGES)
            with bare.create_vcpu() as vcpu:
                return vcpu.run().reason

    def guest(self, vcpu: Result) -> ContractGuest:
        """The guest of a vCPU."""
        real, file = self.task.valid(vcpu)
        if not isinstance(file, OpenVcpu) or file.guest is None:
            calls.ioctl(real, "KVM_RUN", uapi.KVM_RUN)
            raise Denied(ENOTTY)
        return file.guest

    def guest_load(self, vcpu: Result, gpa: int) -> Result:
        return self.guest(vcpu).load(gpa)

    def guest_store(self, vcpu: Result, gpa: int, value: int) -> Result:
        return self.guest(vcpu).store(gpa, value)

    def vm_memory_attributes(self, vm: Result, gpa: int, size: int, attributes: int, flags: int) -> Result:
        argument = uapi.kvm_memory_attributes(gpa & MASK64, size & MASK64, attributes & MASK64, flags & MASK64)
        return calls.ioctl(self.task.fd(vm), "KVM_SET_MEMORY_ATTRIBUTES", uapi.KVM_SET_MEMORY_ATTRIBUTES, argument)

    def memory_fault(self, vcpu: Result) -> Result:
        return self.guest(vcpu).memory_fault()

    def pre_fault(self, vcpu: Result, gpa: int, size: int, flags: int) -> Result:
        argument = uapi.kvm_pre_fault_memory(gpa & MASK64, size & MASK64, flags & MASK64)
        calls.ioctl(self.task.fd(vcpu), "KVM_PRE_FAULT_MEMORY", uapi.KVM_PRE_FAULT_MEMORY, argument)
        return argument.size

    def pages_4k(self, vm: Result) -> Result:
        file, stats = self.statistics(vm)
        guest = file.vcpu.guest if file.vcpu else None
        if guest is None:
            return stats.value("pages_4k")
        guest.idle()
        return stats.value("pages_4k") - guest.program_pages

    def pages_huge(self, vm: Result) -> Result:
        _, stats = self.statistics(vm)
        return stats.value("pages_2m") + stats.value("pages_1g")

    def statistics(self, vm: Result) -> tuple[OpenVm, StatsFile]:
        """A VM, and its statistics."""
        real, file = self.task.valid(vm)
        if not isinstance(file, OpenVm):
            calls.ioctl(real, "KVM_GET_STATS_FD", uapi.KVM_GET_STATS_FD)
            raise Denied(ENOTTY)
        if file.stats is None:
            file.stats = StatsFile(calls.ioctl(real, "KVM_GET_STATS_FD", uapi.KVM_GET_STATS_FD))
        return file, file.stats
