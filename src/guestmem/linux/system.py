# SPDX-License-Identifier: Apache-2.0
"""What the small guests of all architectures have in common: a vCPU, a program in a slot of its own, and a doorbell.

The program loads or stores bytes and then stores to the doorbell, where no memory is: that leaves the guest.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod

from guestmem.linux import uapi
from guestmem.linux.calls import PAGE_SIZE, CallError, Mapping, mmap
from guestmem.linux.kvm import RW, Exit, Kvm, Vm

__all__ = ["BLOCK", "DOORBELL", "GIB", "REACHED", "SYSTEM_GPA", "SYSTEM_SIZE", "SYSTEM_SLOT", "System"]

BLOCK, GIB = 1 << 21, 1 << 30
SYSTEM_SLOT, SYSTEM_GPA, SYSTEM_SIZE = 32000, 1 << 35, 16 * PAGE_SIZE
"""Where a guest has its program and its page tables."""
DOORBELL = BLOCK  # from there on
REACHED = (0, 3, 4)
"""Which GiB of guest physical memory a guest reaches on any machine: the first, and those below and above 4 GiB."""


class System(ABC):
    """vCPU 0 of a VM, which loads and stores bytes of guest physical memory (REACHED).

    Its program and page tables lie far above, in a slot of their own, so that slots and addresses below are free.
    Raises :class:`~guestmem.linux.calls.CallError`.
    """

    def __init__(self, kvm: Kvm, vm: Vm) -> None:
        self.vcpu = vm.create_vcpu()
        self._memory = Mapping(mmap(0, SYSTEM_SIZE, RW, uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS), SYSTEM_SIZE)
        for offset, data in self._contents().items():
            self._memory.write(data, offset)
        vm.set_user_memory_region2(SYSTEM_SLOT, SYSTEM_GPA, SYSTEM_SIZE, self._memory.address)
        self._boot(kvm, vm)

    @abstractmethod
    def _contents(self) -> dict[int, bytes]:
        """What is in its memory, by offset."""

    @abstractmethod
    def _boot(self, kvm: Kvm, vm: Vm) -> None:
        """Set the vCPU up."""

    @abstractmethod
    def store(self, address: int, value: int, count: int = 1, step: int = PAGE_SIZE) -> Exit:
        """Store a byte at ``count`` addresses ``step`` bytes apart, and why the guest came back; see :meth:`done`."""

    @abstractmethod
    def load(self, address: int, count: int = 1, step: int = PAGE_SIZE) -> Exit:
        """Load a byte from addresses, and why the guest came back; ``data`` begins with the last byte."""

    @abstractmethod
    def idle(self) -> Exit:
        """Run, and touch nothing but the program, with what loads and stores need."""

    @abstractmethod
    def sum(self) -> int:
        """Of the bytes that :meth:`load` loaded."""

    def done(self, exit: Exit) -> bool:
        """Whether an exit says that the program came to its end."""
        return (exit.reason, exit.address) == (uapi.KVM_EXIT_MMIO, SYSTEM_GPA + DOORBELL)

    def complete(self) -> None:
        """Let KVM end an access to where no memory is: it does so at the start of the next KVM_RUN."""
        self.vcpu.set_immediate_exit(True)
        try:
            self.vcpu.run()
        except CallError as error:
            if error.errno != errno.EINTR:
                raise
        finally:
            self.vcpu.set_immediate_exit(False)

    def close(self) -> None:
        """Close the vCPU and unmap its memory; the VM stays open.  Raises nothing."""
        self.vcpu.close()
        self._memory.close()
