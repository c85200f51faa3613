# SPDX-License-Identifier: Apache-2.0
"""Small guests under KVM_RUN: one that loads and stores bytes, on x86-64 and arm64, and one in real mode.

The guest in long mode runs at privilege level 3: KVM_PVM executes that natively and emulates everything else, and only
native execution takes guest_memfd's fault path (kvm_gmem_get_pfn) there.  It needs no interrupt, no clock and no device.
"""

from __future__ import annotations

import platform
import struct
from typing import Self

from guestmem.linux import uapi
from guestmem.linux.calls import PAGE_SIZE, Mapping, mmap
from guestmem.linux.exception_level1 import ExceptionLevel1
from guestmem.linux.kvm import RW, Exit, GuestMemfd, Kvm, Vm
from guestmem.linux.system import BLOCK, DOORBELL, GIB, REACHED, SYSTEM_GPA, SYSTEM_SIZE, SYSTEM_SLOT, System

__all__ = [
    "DATA",
    "MAX_PAGES",
    "SYSTEM_GPA",
    "SYSTEM_SIZE",
    "SYSTEM_SLOT",
    "Guest",
    "GuestError",
    "LongMode",
    "NoGuest",
    "real_mode",
    "system",
]

PML4, PDPT, HIGH, LOW = 1, 2, 3, 4  # pages of the program's slot; HIGH maps this slot and the doorbell
LOWS = len(REACHED)  # LOW and the pages after it map a GiB each
PROGRAM = GIB  # the guest's virtual address of SYSTEM_GPA
DATA, DATA_SLOT = BLOCK, 1
"""Where the pages of :class:`Guest` begin in guest physical memory, in bytes, and their slot."""
MAX_PAGES = (GIB - DATA) // PAGE_SIZE

# rsi: address, rdx: distance, rcx: how many, rdi: the doorbell; rax: what is stored; rbx: the sum of what is read
STORE = bytes.fromhex("8806 4801d6 48ffc9 75f6 8907 ebfe")  # 1: mov [rsi], al; add rsi, rdx; dec rcx; jnz 1b; mov [rdi], eax
LOAD = bytes.fromhex("0fb606 4801c3 4801d6 48ffc9 75f2 8907 ebfe")  # 1: movzx eax, byte [rsi]; add rbx, rax; ...
CODE = 8 * PAGE_SIZE  # by itself: KVM maps neighbours that are there along with a page, eight at a time
STORE_AT, LOAD_AT = CODE, CODE + 64

PRESENT, WRITABLE, USER, ACCESSED, DIRTY, LARGE = 1, 2, 4, 0x20, 0x40, 0x80
TABLE = PRESENT | WRITABLE | USER | ACCESSED
LEAF = TABLE | DIRTY | LARGE
GIBS = {PROGRAM // GIB: HIGH} | {gib: LOW + number for number, gib in enumerate(REACHED)}  # virtual, and their pages
TABLES = {
    PML4: [SYSTEM_GPA + PDPT * PAGE_SIZE | TABLE],
    PDPT: [SYSTEM_GPA + GIBS[gib] * PAGE_SIZE | TABLE if gib in GIBS else 0 for gib in range(max(GIBS) + 1)],
    HIGH: [SYSTEM_GPA | LEAF, SYSTEM_GPA + DOORBELL | LEAF],
    **{GIBS[gib]: [gib * GIB + block * BLOCK | LEAF for block in range(512)] for gib in REACHED},
}
CODE_SEGMENT = uapi.kvm_segment(base=0, limit=0xFFFFFFFF, selector=0x33, type=11, present=1, dpl=3, s=1, l=1, g=1)
DATA_SEGMENT = uapi.kvm_segment(base=0, limit=0xFFFFFFFF, selector=0x2B, type=3, present=1, dpl=3, db=1, s=1, g=1)
CR0 = 0x80010033  # PG WP NE ET MP PE
CR4_PAE = 0x20
EFER_LMA_LME = 0x500
IOPL_3 = 3 << 12
REAL_MODE_CODE = 0x1000


class NoGuest(RuntimeError):
    """There is no guest for this machine; the text says for which there is."""


class GuestError(RuntimeError):
    """A guest came back for another reason than it should; ``exit`` is what KVM said."""

    def __init__(self, exit: Exit) -> None:
        super().__init__(f"the guest came back with exit reason {exit.reason}, errno {exit.errno}, at {exit.address:#x}")
        self.exit = exit


class LongMode(System):
    """The guest on x86-64."""

    def _contents(self) -> dict[int, bytes]:
        tables = {page * PAGE_SIZE: struct.pack(f"<{len(entries)}Q", *entries) for page, entries in TABLES.items()}
        return tables | {STORE_AT: STORE, LOAD_AT: LOAD}

    def _boot(self, kvm: Kvm, vm: Vm) -> None:
        self.vcpu.set_cpuid(kvm.supported_cpuid())
        sregs = self.vcpu.sregs()
        sregs.cs = CODE_SEGMENT
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = DATA_SEGMENT
        sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = CR0, SYSTEM_GPA + PML4 * PAGE_SIZE, CR4_PAE, EFER_LMA_LME
        self.vcpu.set_sregs(sregs)

    def store(self, address: int, value: int, count: int = 1, step: int = PAGE_SIZE) -> Exit:
        return self._run(STORE_AT, address, value, count, step)

    def load(self, address: int, count: int = 1, step: int = PAGE_SIZE) -> Exit:
        return self._run(LOAD_AT, address, 0, count, step)

    def idle(self) -> Exit:
        return self.load(PROGRAM + LOW * PAGE_SIZE, LOWS)

    def sum(self) -> int:
        return self.vcpu.regs().rbx

    def _run(self, program: int, address: int, value: int, count: int, step: int) -> Exit:
        regs = uapi.kvm_regs(rax=value, rsi=address, rdx=step & (1 << 64) - 1, rcx=count)
        regs.rip, regs.rdi, regs.rflags = PROGRAM + program, PROGRAM + DOORBELL, 2 | IOPL_3
        self.vcpu.set_regs(regs)
        return self.vcpu.run()


GUESTS: dict[str, type[System]] = {"x86_64": LongMode, "aarch64": ExceptionLevel1}


def system(kvm: Kvm, vm: Vm) -> System:
    """The guest for this machine.  Raises :class:`NoGuest` and :class:`~guestmem.linux.calls.CallError`."""
    kind = GUESTS.get(platform.machine())
    if kind is None:
        raise NoGuest(f"a guest for {platform.machine()}: there is one for {' and '.join(GUESTS)}")
    return kind(kvm, vm)


class Guest:
    """A VM with one vCPU that stores to and loads from pages of its memory: page p is at DATA + p * PAGE_SIZE.

    The pages come from a guest_memfd, from a mapping, or from both, in memory slot 1; with a guest_memfd that can be
    mapped, give its own mapping as ``userspace_addr``: instructions that KVM emulates look there.
    Raises :class:`~guestmem.linux.calls.CallError`.
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
        vm.set_user_memory_region2(
            DATA_SLOT, DATA, pages * PAGE_SIZE, userspace_addr, guest_memfd=memory, guest_memfd_offset=offset
        )
        self._cpu = system(kvm, vm)
        self.vcpu = self._cpu.vcpu

    def try_store(self, first: int, count: int = 1, value: int = 0xA5, step: int = 1) -> Exit:
        """Store a byte to pages, every ``step``th, and how that ended: an MMIO exit at the doorbell if all went well."""
        return self._cpu.store(DATA + first * PAGE_SIZE, value, count, step * PAGE_SIZE)

    def store(self, first: int, count: int = 1, value: int = 0xA5, step: int = 1) -> None:
        """Store a byte to the first byte of each page.  Raises :class:`GuestError`, and CallError with EINTR after a signal."""
        self._done(self.try_store(first, count, value, step))

    def try_load(self, first: int, count: int = 1, step: int = 1) -> Exit:
        """Load a byte from pages, and how that ended: an MMIO exit at the doorbell if all went well."""
        return self._cpu.load(DATA + first * PAGE_SIZE, count, step * PAGE_SIZE)

    def load(self, first: int, count: int = 1, step: int = 1) -> int:
        """The sum of the first bytes of pages.  Raises :class:`GuestError`, and CallError with EINTR after a signal."""
        self._done(self.try_load(first, count, step))
        return self._cpu.sum()

    def mapped(self) -> int:
        """4 KiB pages that the VM's stage 2 maps, those of the program included (KVM's statistic pages_4k)."""
        return self.vm.statistics()["pages_4k"].values[0]

    def _done(self, exit: Exit) -> None:
        if not self._cpu.done(exit):
            raise GuestError(exit)

    def close(self) -> None:
        """Close the vCPU and unmap the program's memory; the VM stays open.  Raises nothing."""
        self._cpu.close()

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
        memory.write(program, REAL_MODE_CODE)
        vm.set_user_memory_region2(0, 0, memory.length, memory.address)
        with vm.create_vcpu() as vcpu:
            vcpu.set_cpuid(kvm.supported_cpuid())
            sregs = vcpu.sregs()
            sregs.cs.base = sregs.cs.selector = 0
            vcpu.set_sregs(sregs)
            vcpu.set_regs(uapi.kvm_regs(rip=REAL_MODE_CODE, rflags=2))
            while (exit := vcpu.run()).reason == uapi.KVM_EXIT_IO and exit.write:
                written += exit.data
            if exit.reason != uapi.KVM_EXIT_HLT:
                raise GuestError(exit)
    return written
