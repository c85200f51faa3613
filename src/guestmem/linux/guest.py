# SPDX-License-Identifier: Apache-2.0
"""Small guests under KVM_RUN, for x86-64: one that touches pages in long mode, and one in real mode.

:class:`Guest` runs at privilege level 3: KVM_PVM executes that natively and emulates everything else, and only native
execution takes guest_memfd's fault path (kvm_gmem_get_pfn) there.  It needs no interrupt, no clock and no device.
"""

from __future__ import annotations

import struct
from typing import Self

from guestmem.linux import uapi
from guestmem.linux.calls import PAGE_SIZE, Mapping, mmap
from guestmem.linux.kvm import RW, Exit, GuestMemfd, Kvm, Vm

__all__ = ["DATA", "MAX_PAGES", "Guest", "GuestError", "real_mode"]

CODE, TABLES, SYSTEM_SIZE = 0x1000, 0x2000, 0x5000
BLOCK = 1 << 21
DATA = BLOCK
"""Where the pages begin in guest physical memory, in bytes; guest virtual memory is the same."""
DOORBELL = 511 * BLOCK
"""No memory is here: a store to it leaves the guest."""
MAX_PAGES = (DOORBELL - DATA) // PAGE_SIZE
SYSTEM_SLOT, DATA_SLOT = 0, 1

# rsi: address, rdx: distance, rcx: how many, rdi: the doorbell; rax: what is stored; rbx: the sum of what is read
STORE = bytes.fromhex("8806 4801d6 48ffc9 75f6 8907 ebfe")  # 1: mov [rsi], al; add rsi, rdx; dec rcx; jnz 1b; mov [rdi], eax
LOAD = bytes.fromhex("0fb606 4801c3 4801d6 48ffc9 75f2 8907 ebfe")  # 1: movzx eax, byte [rsi]; add rbx, rax; ...
LOAD_AT = CODE + 64

PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
TABLE_ENTRY = PRESENT | WRITABLE | USER | ACCESSED
CR0 = 0x80010033  # PG WP NE ET MP PE
CR4_PAE = 0x20
EFER_LMA_LME = 0x500
IOPL_3 = 3 << 12


class GuestError(RuntimeError):
    """A guest came back for another reason than it should; ``exit`` is what KVM said."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(f"the guest came back with exit reason {exit.reason}, errno {exit.errno}, at {exit.address:#x}")
        self.exit = exit


class Guest:
    """A VM with one vCPU that stores to and loads from pages of its memory: page p is at DATA + p * PAGE_SIZE.

    The pages come from a guest_memfd, from a mapping, or from both, in memory slot 1; with a guest_memfd that can be
    mapped, give its own mapping as ``userspace_addr``: instructions that KVM emulates look there.
    Slot 0 is ordinary memory with the program and its page tables.  Raises :class:`~guestmem.linux.calls.CallError`.
    """

    def __init__(
        self,
        kvm: Kvm,
        vm: Vm,
        pages: int,
        *,
        memory: GuestMemfd | None = None,
        offset: int = 0,
        userspace_addr: int = 0,
    ) -> None:
        if not 0 < pages <= MAX_PAGES:
            raise ValueError(f"{pages} pages: a guest has 1 to {MAX_PAGES}")
        self.vm = vm
        anonymous = uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS
        self._system = Mapping(mmap(0, SYSTEM_SIZE, RW, anonymous), SYSTEM_SIZE)
        self._system.write(STORE, CODE)
        self._system.write(LOAD, LOAD_AT)
        self._system.write(struct.pack("<Q", TABLES + PAGE_SIZE | TABLE_ENTRY), TABLES)
        self._system.write(struct.pack("<Q", TABLES + 2 * PAGE_SIZE | TABLE_ENTRY), TABLES + PAGE_SIZE)
        for block in range(512):
            entry = block * BLOCK | TABLE_ENTRY | DIRTY | LARGE
            self._system.write(struct.pack("<Q", entry), TABLES + 2 * PAGE_SIZE + 8 * block)
        vm.set_user_memory_region2(SYSTEM_SLOT, 0, SYSTEM_SIZE, self._system.address)
        vm.set_user_memory_region2(
            DATA_SLOT, DATA, pages * PAGE_SIZE, userspace_addr, guest_memfd=memory, guest_memfd_offset=offset
        )
        self.vcpu = vm.create_vcpu()
        self.vcpu.set_cpuid(kvm.supported_cpuid())
        sregs = self.vcpu.sregs()
        code = uapi.kvm_segment(base=0, limit=0xFFFFFFFF, selector=0x33, type=11, present=1, dpl=3, s=1, l=1, g=1)
        data = uapi.kvm_segment(base=0, limit=0xFFFFFFFF, selector=0x2B, type=3, present=1, dpl=3, db=1, s=1, g=1)
        sregs.cs = code
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data
        sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = CR0, TABLES, CR4_PAE, EFER_LMA_LME
        self.vcpu.set_sregs(sregs)

    def prepare(self, program: int, first: int, count: int, value: int = 0, step: int = 1) -> None:
        """Set the registers for a run of the program at an address over ``count`` pages, every ``step``th from ``first``."""
        regs = uapi.kvm_regs(rax=value, rsi=DATA + first * PAGE_SIZE, rdx=step * PAGE_SIZE & (1 << 64) - 1, rcx=count)
        regs.rip, regs.rdi, regs.rflags = program, DOORBELL, 2 | IOPL_3
        self.vcpu.set_regs(regs)

    def try_store(self, first: int, count: int = 1, value: int = 0xA5, step: int = 1) -> Exit:
        """Store a byte to pages, and how that ended: an MMIO exit at DOORBELL if all went well."""
        self.prepare(CODE, first, count, value, step)
        return self.vcpu.run()

    def store(self, first: int, count: int = 1, value: int = 0xA5, step: int = 1) -> None:
        """Store a byte to the first byte of each page.  Raises :class:`GuestError`, and CallError with EINTR after a signal."""
        self._done(self.try_store(first, count, value, step))

    def try_load(self, first: int, count: int = 1, step: int = 1) -> Exit:
        """Load a byte from pages, and how that ended: an MMIO exit at DOORBELL if all went well."""
        self.prepare(LOAD_AT, first, count, 0, step)
        return self.vcpu.run()

    def load(self, first: int, count: int = 1, step: int = 1) -> int:
        """The sum of the first bytes of pages.  Raises :class:`GuestError`, and CallError with EINTR after a signal."""
        self._done(self.try_load(first, count, step))
        return self.vcpu.regs().rbx

    def mapped(self) -> int:
        """4 KiB pages that the VM's stage 2 maps, those of the program included (KVM's statistic pages_4k)."""
        return self.vm.statistics()["pages_4k"].values[0]

    def _done(self, exit: Exit) -> None:
        if (exit.reason, exit.address) != (uapi.KVM_EXIT_MMIO, DOORBELL):
            raise GuestError(exit)

    def close(self) -> None:
        """Close the vCPU and unmap slot 0's memory; the VM stays open.  Raises nothing."""
        self.vcpu.close()
        self._system.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def real_mode(kvm: Kvm) -> bytes:
    """Run a guest in real mode that writes b"AB" to port 0xe9 and halts; what it wrote.

    Raises :class:`~guestmem.linux.calls.CallError` or :class:`GuestError`.
    """
    program = bytes.fromhex("b041 e6e9 b042 e6e9 f4")  # mov al, 'A'; out 0xe9, al; mov al, 'B'; out 0xe9, al; hlt
    written = b""
    anonymous = uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS
    with kvm.create_vm() as vm, Mapping(mmap(0, 2 * PAGE_SIZE, RW, anonymous), 2 * PAGE_SIZE) as memory:
        vm.set_tss_addr()
        memory.write(program, CODE)
        vm.set_user_memory_region2(0, 0, memory.length, memory.address)
        with vm.create_vcpu() as vcpu:
            vcpu.set_cpuid(kvm.supported_cpuid())
            sregs = vcpu.sregs()
            sregs.cs.base = sregs.cs.selector = 0
            vcpu.set_sregs(sregs)
            vcpu.set_regs(uapi.kvm_regs(rip=CODE, rflags=2))
            while (exit := vcpu.run()).reason == uapi.KVM_EXIT_IO and exit.write:
                written += exit.data
            if exit.reason != uapi.KVM_EXIT_HLT:
                raise GuestError(exit)
    return written
