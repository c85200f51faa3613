# SPDX-License-Identifier: Apache-2.0
"""Boot a guest in real mode on guest_memfd, answer what it reads, and print what it stored.  x86-64, /dev/kvm."""

from guestmem.linux import uapi
from guestmem.linux.calls import PAGE_SIZE
from guestmem.linux.kvm import Kvm

CODE, STORED, DEVICE, PORT = 0x1000, 0x2000, 0x8000, 0x60
PROGRAM = bytes.fromhex(
    "e460"  # in al, PORT
    "a20020"  # mov [STORED], al
    "a10080"  # mov ax, [DEVICE]: no memory is there
    "a30220"  # mov [STORED + 2], ax
    "f4"  # hlt
)
ANSWERS = {(uapi.KVM_EXIT_IO, PORT): b"\x42", (uapi.KVM_EXIT_MMIO, DEVICE): b"\xcd\xab"}
SHARED = uapi.GUEST_MEMFD_FLAG_MMAP | uapi.GUEST_MEMFD_FLAG_INIT_SHARED


def main() -> None:
    """Boot it."""
    with Kvm() as kvm, kvm.create_vm() as vm, vm.create_guest_memfd(4 * PAGE_SIZE, SHARED) as file, file.mmap() as memory:
        memory.write(PROGRAM, CODE)
        vm.set_tss_addr()
        # Where KVM emulates instructions, it looks at userspace_addr: let that be the same memory.
        vm.set_user_memory_region2(0, 0, file.size(), memory.address, guest_memfd=file)
        with vm.create_vcpu() as vcpu:
            vcpu.set_cpuid(kvm.supported_cpuid())
            sregs = vcpu.sregs()
            sregs.cs.base = sregs.cs.selector = 0
            vcpu.set_sregs(sregs)
            vcpu.set_regs(uapi.kvm_regs(rip=CODE, rflags=2))
            while (exit := vcpu.run()).reason != uapi.KVM_EXIT_HLT:
                if exit.write or (exit.reason, exit.address) not in ANSWERS:
                    raise SystemExit(f"not expected: {exit}")
                print(f"the guest reads {exit.size} bytes at {exit.address:#x}, exit reason {exit.reason}")
                vcpu.answer(ANSWERS[exit.reason, exit.address])
        print("the guest stored", memory.read(STORED, 4).hex(" "), "in", file.resident(), "pages")


if __name__ == "__main__":
    main()
