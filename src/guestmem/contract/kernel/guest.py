# SPDX-License-Identifier: Apache-2.0
"""The guest of the contract on a real kernel: one instruction at a time, on any byte that it reaches."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from guestmem.contract.interface import Missing
from guestmem.contract.results import EFAULT, MMIO, NO_FAULT, Denied, Other, Result
from guestmem.linux import calls, uapi
from guestmem.linux.guest import NoGuest, system
from guestmem.linux.kvm import Exit, Kvm, Vm

__all__ = ["ContractGuest"]


class ContractGuest:
    """The vCPU of a VM, given by a descriptor.

    Attributes:
        fault: of the last access, if it ended with KVM_EXIT_MEMORY_FAULT: (gpa, size, flags).
        program_pages: live stage-2 entries that are the program's, where KVM counts them.
    """

    def __init__(self, kvm: Kvm, fd: int) -> None:
        self.fault: tuple[int, int, int] | None = None
        with Vm(os.dup(fd), kvm) as vm:
            try:
                self.cpu = system(kvm, vm)
            except NoGuest as no:
                raise Missing(str(no)) from None
            self.idle()
            self.idle()
            statistic = vm.statistics().get("pages_4k")
            self.program_pages = statistic.values[0] if statistic else 0

    def descriptor(self) -> int:
        """Another descriptor of the vCPU."""
        return os.dup(self.cpu.vcpu.fileno())

    def memory_fault(self) -> Result:
        """What the exit said if the last access ended in a memory fault."""
        if self.fault is None:
            raise Denied(NO_FAULT)
        return self.fault

    def load(self, gpa: int) -> Result:
        """Load a byte."""
        self.fault = None
        return self.performed(lambda: self.cpu.load(gpa))

    def store(self, gpa: int, value: int) -> Result:
        """Store a byte."""
        self.fault = None
        self.performed(lambda: self.cpu.store(gpa, value))
        return 0

    def idle(self) -> None:
        """Run, and touch nothing but the program, with the page table that loads and stores will need."""
        self.performed(self.cpu.idle)

    def performed(self, access: Callable[[], Exit]) -> int:
        """Do what is to be done, and the byte that comes of it.

        Raises EFAULT where KVM_RUN exits with a memory fault, MMIO where there is no memory.
        """
        exit = self.again(access)
        if self.cpu.done(exit):
            return exit.data[0]
        if exit.errno == errno.EFAULT:
            self.fault = exit.address, exit.size, exit.flags
            raise Denied(EFAULT)
        if exit.reason == uapi.KVM_EXIT_MMIO:
            self.cpu.complete()
            raise Denied(MMIO)
        raise Denied(Other(f"KVM_EXIT {exit.reason}"))

    def again(self, access: Callable[[], Exit]) -> Exit:
        """Do it, and go on with KVM_RUN after EINTR."""
        while True:
            try:
                return access()
            except calls.CallError as error:
                if error.errno != errno.EINTR:
                    raise
                access = self.cpu.vcpu.run

    def close(self) -> None:
        """Give back the vCPU and its memory."""
        self.cpu.close()
