# SPDX-License-Identifier: Apache-2.0
"""The guest of the contract on a real kernel: one instruction at a time, on any byte of the first GiB.

Its program and page tables lie far above, in a slot of their own, so that programs have the slots and addresses below.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from guestmem.contract.host import GUEST_GPA, GUEST_SIZE, GUEST_SLOT, PAGE_SIZE, Missing, Result, Signal
from guestmem.linux import calls, uapi
from guestmem.linux.guest import CR0, CR4_PAE, EFER_LMA_LME, IOPL_3
from guestmem.linux.kvm import Exit, Kvm, Vcpu, statistics

__all__ = ["ContractGuest"]

BLOCK = 1 << 21
LOW = 3  # the page that maps the first GiB
TABLE, LEAF = 0x27, 0xE7  # present, writable, user, accessed; and dirty, large
PROGRAM = 1 << 30  # the guest's virtual address of GUEST_GPA
DOORBELL = PROGRAM + BLOCK  # no memory is there: a store leaves the guest
ENTRIES = "<512Q"

# rsi: address, al: the byte, rdi: the doorbell
LOAD = bytes.fromhex("8a06 8907 ebfe")  # mov al, [rsi]; mov [rdi], eax; jmp .
STORE = bytes.fromhex("8806 8907 ebfe")  # mov [rsi], al; mov [rdi], eax; jmp .
CODE = 8 * PAGE_SIZE  # by itself: KVM maps neighbours that are there along with a page, eight at a time
LOAD_AT, STORE_AT = (PROGRAM + CODE + at for at in (0, 64))


class ContractGuest:
    """A vCPU number 0 in a VM, with its program in GUEST_SLOT.

    Attributes:
        program_pages: live stage-2 entries that are the program's.
    """

    def __init__(self, kvm: Kvm, vm: int) -> None:
        if platform.machine() != "x86_64":
            raise Missing(f"a guest for {platform.machine()}: there is one for x86-64")
        descriptor = calls.ioctl(vm, "KVM_CREATE_VCPU", uapi.KVM_CREATE_VCPU, 0)
        self.vcpu = Vcpu(descriptor, kvm.vcpu_mmap_size())
        self.memory = calls.mmap(0, GUEST_SIZE, 3, uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS)
        self.fill()
        region = uapi.kvm_userspace_memory_region2(GUEST_SLOT, 0, GUEST_GPA, GUEST_SIZE, self.memory)
        calls.ioctl(vm, "KVM_SET_USER_MEMORY_REGION2", uapi.KVM_SET_USER_MEMORY_REGION2, region)
        self.vcpu.set_cpuid(kvm.supported_cpuid())
        self.enter_long_mode()
        self.program_pages = 0
        self.idle()
        self.idle()
        with calls.Descriptor(calls.ioctl(vm, "KVM_GET_STATS_FD", uapi.KVM_GET_STATS_FD)) as stats:
            self.program_pages = statistics(stats.fileno())["pages_4k"].values[0]

    def fill(self) -> None:
        """Pages 1: PML4; 2: PDPT; 3: the first GiB, as it is; 4: this memory and the doorbell; 8: the program."""
        pdpt, low, high = (GUEST_GPA + n * PAGE_SIZE for n in range(2, 5))
        tables = {
            1: [pdpt | TABLE],
            2: [low | TABLE, high | TABLE],
            LOW: [block * BLOCK | LEAF for block in range(512)],
            4: [GUEST_GPA | LEAF, (GUEST_GPA + BLOCK) | LEAF],
        }
        for page, entries in tables.items():
            table = struct.pack(ENTRIES, *entries, *[0] * (512 - len(entries)))
            ctypes.memmove(self.memory + page * PAGE_SIZE, table, PAGE_SIZE)
        for code, at in ((LOAD, LOAD_AT), (STORE, STORE_AT)):
            ctypes.memmove(self.memory + at - PROGRAM, code, len(code))

    def enter_long_mode(self) -> None:
        """64-bit code at privilege level 3, which every KVM executes natively."""
        sregs = self.vcpu.sregs()
        sregs.cs = uapi.kvm_segment(base=0, limit=0xFFFFFFFF, selector=0x33, type=11, present=1, dpl=3, s=1, l=1, g=1)
        data = uapi.kvm_segment(base=0, limit=0xFFFFFFFF, selector=0x2B, type=3, present=1, dpl=3, db=1, s=1, g=1)
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data
        sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = CR0, GUEST_GPA + PAGE_SIZE, CR4_PAE, EFER_LMA_LME
        self.vcpu.set_sregs(sregs)

    def descriptor(self) -> int:
        """Another descriptor of the vCPU."""
        return os.dup(self.vcpu.fileno())

    def run(self, program: int, gpa: int = 0, value: int = 0) -> int:
        """Run a program; what it leaves in al.

        Raises OSError EFAULT where KVM_RUN exits with a memory fault, Signal "MMIO" where there is no memory.
        """
        regs = uapi.kvm_regs(rip=program, rsi=gpa, rdi=DOORBELL, rax=value, rflags=2 | IOPL_3)
        self.vcpu.set_regs(regs)
        exit = self.enter()
        if exit.errno == errno.EFAULT:
            raise OSError(errno.EFAULT, "KVM_EXIT_MEMORY_FAULT")
        if exit.reason == uapi.KVM_EXIT_MMIO and exit.address == GUEST_GPA + BLOCK:
            return exit.data[0]
        if exit.reason == uapi.KVM_EXIT_MMIO:
            self.complete()
        raise Signal("MMIO" if exit.reason == uapi.KVM_EXIT_MMIO else f"KVM_EXIT {exit.reason}")

    def enter(self) -> Exit:
        """KVM_RUN, again after EINTR."""
        while True:
            try:
                return self.vcpu.run()
            except calls.CallError as error:
                if error.errno != errno.EINTR:
                    raise

    def complete(self) -> None:
        """Let KVM end an access to where no memory is: it does so at the start of the next KVM_RUN."""
        self.vcpu.set_immediate_exit(True)
        try:
            self.vcpu.run()
        except calls.CallError as error:
            if error.errno != errno.EINTR:
                raise
        finally:
            self.vcpu.set_immediate_exit(False)

    def load(self, gpa: int) -> Result:
        """Load a byte."""
        return self.run(LOAD_AT, gpa)

    def store(self, gpa: int, value: int) -> Result:
        """Store a byte."""
        self.run(STORE_AT, gpa, value)
        return 0

    def idle(self) -> None:
        """Run, and touch nothing but the program, with the page table that loads and stores will need."""
        self.run(LOAD_AT, PROGRAM + LOW * PAGE_SIZE)

    def close(self) -> None:
        """Give back the vCPU and its memory."""
        self.vcpu.close()
        calls.munmap(self.memory, GUEST_SIZE)
