# SPDX-License-Identifier: Apache-2.0
"""A small guest for arm64 under KVM_RUN: at EL1, with caches, so that it and the host see the same bytes on any machine.

Without the MMU its accesses were not cached, and without FEAT_S2FWB the host's cache would hide them.
"""

from __future__ import annotations

import ctypes
import struct

from guestmem.linux import uapi_arm64 as uapi
from guestmem.linux.calls import PAGE_SIZE, ioctl
from guestmem.linux.kvm import Exit, Kvm, Vm
from guestmem.linux.system import DOORBELL, GIB, SYSTEM_GPA, System
from guestmem.linux.uapi import KVM_EXIT_MMIO

__all__ = ["ExceptionLevel1"]

# x1: address, x2: distance, x3: how many, x4: the doorbell; w0: what is stored; x5: the sum of what is read
# 1: strb w0, [x1]; add x1, x1, x2; subs x3, x3, #1; b.ne 1b; str w0, [x4]; b .
STORE = (0x39000020, 0x8B020021, 0xF1000463, 0x54FFFFA1, 0xB9000080, 0x14000000)
# 1: ldrb w0, [x1]; add x5, x5, x0; add x1, x1, x2; ...
LOAD = (0x39400020, 0x8B0000A5, 0x8B020021, 0xF1000463, 0x54FFFF81, 0xB9000080, 0x14000000)
TABLE, CODE = PAGE_SIZE, 8 * PAGE_SIZE
STORE_AT, LOAD_AT = CODE, CODE + 64

BLOCK_1G = 1 | 3 << 8 | 1 << 10  # inner shareable, accessed; memory type 0, read and write at EL1
MAIR = 0xFF  # type 0: normal memory, write-back
TCR = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32  # 39 bits, 4 KiB pages, cached walks, no TTBR1, 40 bits
SCTLR = 0x30D00800 | 1 | 1 << 2 | 1 << 12  # M, C, I
PSTATE = 0x3C5  # EL1h, nothing interrupts


def system_register(*at: int) -> int:
    """Of op0, op1, CRn, CRm, op2: the number for KVM_SET_ONE_REG."""
    op0, op1, n, m, op2 = at
    number = op0 << 14 | op1 << 11 | n << 7 | m << 3 | op2
    return uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG | number


def core_register(at: int) -> int:
    """Of a place in struct kvm_regs: the number for KVM_SET_ONE_REG."""
    return uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE | at


SYSTEM_REGISTERS = {
    system_register(3, 0, 2, 0, 0): SYSTEM_GPA + TABLE,  # TTBR0_EL1
    system_register(3, 0, 2, 0, 2): TCR,
    system_register(3, 0, 10, 2, 0): MAIR,
    system_register(3, 0, 1, 0, 0): SCTLR,
}
X = [core_register(uapi.KVM_REG_ARM_CORE_REG_REGS + 2 * number) for number in range(31)]
PC, PSTATE_REGISTER = core_register(uapi.KVM_REG_ARM_CORE_REG_PC), core_register(uapi.KVM_REG_ARM_CORE_REG_PSTATE)


class ExceptionLevel1(System):
    """The guest on arm64."""

    def _contents(self) -> dict[int, bytes]:
        blocks = [number * GIB | BLOCK_1G for number in range(512)]
        return {
            TABLE: struct.pack("<512Q", *blocks),
            STORE_AT: struct.pack(f"<{len(STORE)}I", *STORE),
            LOAD_AT: struct.pack(f"<{len(LOAD)}I", *LOAD),
        }

    def _boot(self, kvm: Kvm, vm: Vm) -> None:
        target = (ctypes.c_uint32 * 8)()
        ioctl(vm.fileno(), "KVM_ARM_PREFERRED_TARGET", uapi.KVM_ARM_PREFERRED_TARGET, target)
        ioctl(self.vcpu.fileno(), "KVM_ARM_VCPU_INIT", uapi.KVM_ARM_VCPU_INIT, target)
        for number, value in SYSTEM_REGISTERS.items():
            self._set(number, value)

    def store(self, address: int, value: int, count: int = 1, step: int = PAGE_SIZE) -> Exit:
        return self._run(STORE_AT, address, value, count, step)

    def load(self, address: int, count: int = 1, step: int = PAGE_SIZE) -> Exit:
        return self._run(LOAD_AT, address, 0, count, step)

    def idle(self) -> Exit:
        return self.load(SYSTEM_GPA)

    def sum(self) -> int:
        return self._get(X[5])

    def _run(self, program: int, address: int, value: int, count: int, step: int) -> Exit:
        # KVM ends an access by a step of the program counter, which must not be the new one (kvm_handle_mmio_return).
        if self.vcpu.field("exit_reason") == KVM_EXIT_MMIO:
            self.complete()
        for number, wanted in enumerate((value, address, step & (1 << 64) - 1, count, SYSTEM_GPA + DOORBELL, 0)):
            self._set(X[number], wanted)
        self._set(PSTATE_REGISTER, PSTATE)
        self._set(PC, SYSTEM_GPA + program)
        return self.vcpu.run()

    def _set(self, number: int, value: int) -> None:
        self._one_reg("KVM_SET_ONE_REG", uapi.KVM_SET_ONE_REG, number, ctypes.c_uint64(value))

    def _get(self, number: int) -> int:
        value = ctypes.c_uint64()
        self._one_reg("KVM_GET_ONE_REG", uapi.KVM_GET_ONE_REG, number, value)
        return value.value

    def _one_reg(self, name: str, request: int, number: int, value: ctypes.c_uint64) -> None:
        ioctl(self.vcpu.fileno(), name, request, (ctypes.c_uint64 * 2)(number, ctypes.addressof(value)), id=number)
