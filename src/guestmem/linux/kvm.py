# SPDX-License-Identifier: Apache-2.0
"""KVM and guest_memfd: :class:`Kvm`, :class:`Vm`, :class:`Vcpu` and :class:`GuestMemfd`, as virt/kvm/ has them.

Each closes at the end of ``with``, in any order: the kernel keeps a VM while a vCPU, a guest_memfd or a mapping of one
is left.  Sizes, offsets and addresses are bytes.  Every failure of the kernel is a :class:`~guestmem.linux.calls.CallError`.
Documentation/virt/kvm/api.rst describes the calls.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple, TypeVar

from guestmem.linux import uapi
from guestmem.linux.calls import CallError, Descriptor, Mapping, Residency, cachestat, fallocate, ioctl, mmap, posix

__all__ = ["Exit", "GuestMemfd", "Kvm", "Statistic", "Vcpu", "Vm"]

KEEP = uapi.FALLOC_FL_KEEP_SIZE
PUNCH = uapi.FALLOC_FL_PUNCH_HOLE | uapi.FALLOC_FL_KEEP_SIZE
Filled = TypeVar("Filled", bound=ctypes.Structure)
RW = uapi.PROT_READ | uapi.PROT_WRITE


class kvm_memory_attributes2(ctypes.Structure):
    """struct kvm_memory_attributes2, of the series "guest_memfd: In-place conversion support" v8 (2026, in linux-next).

    https://lore.kernel.org/r/20260522-gmem-inplace-conversion-v7-0-2f0fae496530@google.com is the version before.
    """

    offset: int
    error_offset: int
    reserved: ctypes.Array[ctypes.c_uint64]

    _fields_ = [
        ("offset", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("attributes", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("error_offset", ctypes.c_uint64),
        ("reserved", ctypes.c_uint64 * 11),
    ]


KVM_SET_MEMORY_ATTRIBUTES2 = 3 << 30 | ctypes.sizeof(kvm_memory_attributes2) << 16 | 0xAE << 8 | 0xD2
"""_IOWR(KVMIO, 0xd2, struct kvm_memory_attributes2), on a guest_memfd, of the same series."""


def set_attributes2(fd: int, argument: kvm_memory_attributes2) -> None:
    """KVM_SET_MEMORY_ATTRIBUTES2 with any argument.  Raises :class:`CallError`: ENOTTY where the file does not know it."""
    given = {name: getattr(argument, name) for name in ("offset", "size", "attributes", "flags")}
    ioctl(fd, "KVM_SET_MEMORY_ATTRIBUTES2", KVM_SET_MEMORY_ATTRIBUTES2, argument, **given)


def filled(structure: type[Filled], **values: int) -> Filled:
    """A structure with these values; a negative one as two's complement.

    Raises OverflowError for what does not fit its field: ctypes would cut it, and slot 2^32 be slot 0.
    """
    made = structure()
    for name, value in values.items():
        bits = 8 * getattr(structure, name).size
        if not -1 << (bits - 1) <= value < 1 << bits:
            raise OverflowError(f"{name}: {value:#x} does not fit {bits} bits")
        setattr(made, name, value)
    return made


class Kvm(Descriptor):
    """/dev/kvm.  Raises :class:`CallError`: ENOENT without KVM, EACCES without permission."""

    def __init__(self, path: str = "/dev/kvm") -> None:
        super().__init__(posix(os.open, "open", path=path, flags=os.O_RDWR | os.O_CLOEXEC))

    def api_version(self) -> int:
        """KVM_GET_API_VERSION: 12."""
        return ioctl(self.fileno(), "KVM_GET_API_VERSION", uapi.KVM_GET_API_VERSION)

    def check_extension(self, capability: int) -> int:
        """KVM_CHECK_EXTENSION: 0 if it is not there."""
        return ioctl(self.fileno(), "KVM_CHECK_EXTENSION", uapi.KVM_CHECK_EXTENSION, capability, capability=capability)

    def create_vm(self, type: int = uapi.KVM_X86_DEFAULT_VM) -> Vm:
        """KVM_CREATE_VM.  Raises :class:`CallError`: EINVAL for a type that this KVM does not have."""
        return Vm(ioctl(self.fileno(), "KVM_CREATE_VM", uapi.KVM_CREATE_VM, type, type=type), self)

    def vcpu_mmap_size(self) -> int:
        """KVM_GET_VCPU_MMAP_SIZE: bytes of struct kvm_run and what follows it."""
        return ioctl(self.fileno(), "KVM_GET_VCPU_MMAP_SIZE", uapi.KVM_GET_VCPU_MMAP_SIZE)

    def supported_cpuid(self, entries: int = 256) -> ctypes.Array[ctypes.c_char]:
        """KVM_GET_SUPPORTED_CPUID: a struct kvm_cpuid2 as a buffer, for :meth:`Vcpu.set_cpuid`."""
        buffer = ctypes.create_string_buffer(8 + entries * ctypes.sizeof(uapi.kvm_cpuid_entry2))
        struct.pack_into("<I", buffer, 0, entries)
        ioctl(self.fileno(), "KVM_GET_SUPPORTED_CPUID", uapi.KVM_GET_SUPPORTED_CPUID, buffer, nent=entries)
        return buffer


class Statistic(NamedTuple):
    """One of KVM's binary statistics: its values, and ``flags`` (type, unit and base, KVM_STATS_*)."""

    values: tuple[int, ...]
    flags: int


def _read(fd: int, length: int, offset: int) -> bytes:
    return posix(os.pread, "pread", fd=fd, length=length, offset=offset)


class StatisticPlace(NamedTuple):
    """Where a statistic is in its descriptor: bytes from the start, how many values of 8 bytes, KVM_STATS_* flags."""

    offset: int
    size: int
    flags: int


def statistics_table(fd: int) -> dict[str, StatisticPlace]:
    """What a statistics descriptor (KVM_GET_STATS_FD) has, by name."""
    header = uapi.kvm_stats_header.from_buffer_copy(_read(fd, ctypes.sizeof(uapi.kvm_stats_header), 0))
    width = ctypes.sizeof(uapi.kvm_stats_desc) + header.name_size
    descriptors = _read(fd, width * header.num_desc, header.desc_offset)
    found = {}
    for start in range(0, width * header.num_desc, width):
        one = uapi.kvm_stats_desc.from_buffer_copy(descriptors, start)
        name = descriptors[start + ctypes.sizeof(uapi.kvm_stats_desc) : start + width].split(b"\0")[0].decode()
        found[name] = StatisticPlace(header.data_offset + one.offset, one.size, one.flags)
    return found


def statistics(fd: int) -> dict[str, Statistic]:
    """Everything in a statistics descriptor, by name."""
    found = {}
    for name, place in statistics_table(fd).items():
        values = struct.unpack(f"<{place.size}Q", _read(fd, 8 * place.size, place.offset))
        found[name] = Statistic(values, place.flags)
    return found


class Vm(Descriptor):
    """A virtual machine, made by :meth:`Kvm.create_vm`."""

    def __init__(self, fd: int, kvm: Kvm) -> None:
        super().__init__(fd)
        self._run_size = kvm.vcpu_mmap_size()

    def check_extension(self, capability: int) -> int:
        """KVM_CHECK_EXTENSION of this VM: capabilities may depend on its type."""
        return ioctl(self.fileno(), "KVM_CHECK_EXTENSION", uapi.KVM_CHECK_EXTENSION, capability, capability=capability)

    def create_vcpu(self, id: int = 0) -> Vcpu:
        """KVM_CREATE_VCPU.  Raises :class:`CallError`: EEXIST for an id that is there."""
        return Vcpu(ioctl(self.fileno(), "KVM_CREATE_VCPU", uapi.KVM_CREATE_VCPU, id, id=id), self._run_size)

    def create_guest_memfd(self, size: int, flags: int = 0) -> GuestMemfd:
        """KVM_CREATE_GUEST_MEMFD: a file of ``size`` bytes, a multiple of the page size, of holes.

        ``flags``: GUEST_MEMFD_FLAG_MMAP, and GUEST_MEMFD_FLAG_INIT_SHARED for memory the host may touch.
        Raises :class:`CallError`: EINVAL for a size or a flag that is not legal, EMFILE.
        """
        argument = filled(uapi.kvm_create_guest_memfd, size=size, flags=flags)
        fd = ioctl(self.fileno(), "KVM_CREATE_GUEST_MEMFD", uapi.KVM_CREATE_GUEST_MEMFD, argument, size=size, flags=flags)
        return GuestMemfd(fd)

    def set_user_memory_region2(
        self,
        slot: int,
        gpa: int,
        size: int,
        userspace_addr: int = 0,
        *,
        flags: int | None = None,
        guest_memfd: GuestMemfd | int | None = None,
        guest_memfd_offset: int = 0,
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION2: guest physical memory gpa..gpa+size from a mapping, a guest_memfd, or both.

        Without ``flags`` it is KVM_MEM_GUEST_MEMFD when a guest_memfd is given.  Size 0 deletes the slot.
        Raises :class:`CallError`: EINVAL, EBADF (descriptor), EEXIST (guest memory is taken; since commit 7ea987a90585
        ("KVM: guest_memfd: Return -EEXIST for overlapping bindings") (in v7.2) also: the range of the file is).
        """
        if flags is None:
            flags = 0 if guest_memfd is None else uapi.KVM_MEM_GUEST_MEMFD
        fd = 0 if guest_memfd is None else guest_memfd if isinstance(guest_memfd, int) else guest_memfd.fileno()
        given = {"slot": slot, "flags": flags, "userspace_addr": userspace_addr, "guest_memfd_offset": guest_memfd_offset}
        region = filled(uapi.kvm_userspace_memory_region2, guest_phys_addr=gpa, memory_size=size, guest_memfd=fd, **given)
        given |= {"gpa": gpa, "size": size, "guest_memfd": fd}
        ioctl(self.fileno(), "KVM_SET_USER_MEMORY_REGION2", uapi.KVM_SET_USER_MEMORY_REGION2, region, **given)

    def set_user_memory_region(self, slot: int, flags: int, gpa: int, size: int, userspace_addr: int) -> None:
        """KVM_SET_USER_MEMORY_REGION, which knows nothing of guest_memfd.  Raises :class:`CallError`."""
        given = {"slot": slot, "flags": flags, "userspace_addr": userspace_addr}
        region = filled(uapi.kvm_userspace_memory_region, guest_phys_addr=gpa, memory_size=size, **given)
        ioctl(self.fileno(), "KVM_SET_USER_MEMORY_REGION", uapi.KVM_SET_USER_MEMORY_REGION, region, gpa=gpa, size=size, **given)

    def delete_slot(self, slot: int) -> None:
        """Delete a memory slot.  Raises :class:`CallError`: EINVAL if there is none."""
        self.set_user_memory_region2(slot, 0, 0)

    def set_memory_attributes(self, gpa: int, size: int, attributes: int, flags: int = 0) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES: make guest memory private (KVM_MEMORY_ATTRIBUTE_PRIVATE) or shared (0).

        Raises :class:`CallError`: ENOTTY where KVM has no attributes, EINVAL.
        """
        argument = filled(uapi.kvm_memory_attributes, address=gpa, size=size, attributes=attributes, flags=flags)
        given = {"gpa": gpa, "size": size, "attributes": attributes, "flags": flags}
        ioctl(self.fileno(), "KVM_SET_MEMORY_ATTRIBUTES", uapi.KVM_SET_MEMORY_ATTRIBUTES, argument, **given)

    def set_tss_addr(self, address: int = 0xFFFBD000) -> None:
        """KVM_SET_TSS_ADDR: three pages of guest memory that Intel's real mode needs."""
        ioctl(self.fileno(), "KVM_SET_TSS_ADDR", uapi.KVM_SET_TSS_ADDR, address, address=address)

    def set_nr_mmu_pages(self, pages: int) -> None:
        """KVM_SET_NR_MMU_PAGES: how many pages shadow page tables may take (x86).  Raises :class:`CallError`: EINVAL below 64."""
        ioctl(self.fileno(), "KVM_SET_NR_MMU_PAGES", uapi.KVM_SET_NR_MMU_PAGES, pages, pages=pages)

    def statistics(self) -> dict[str, Statistic]:
        """The VM's statistics (KVM_GET_STATS_FD) by name: ``pages_4k`` counts the live 4 KiB stage-2 entries."""
        with Descriptor(ioctl(self.fileno(), "KVM_GET_STATS_FD", uapi.KVM_GET_STATS_FD)) as stats:
            return statistics(stats.fileno())


class GuestMemfd(Descriptor):
    """A guest_memfd, made by :meth:`Vm.create_guest_memfd`; it keeps its VM alive, not the other way round."""

    def size(self) -> int:
        """Bytes: fstat(2)'s st_size."""
        return self.stat().st_size

    def stat(self) -> os.stat_result:
        """fstat(2).  st_blocks is always 0: :meth:`resident` counts pages."""
        return posix(os.fstat, "fstat", fd=self.fileno())

    def allocate(self, offset: int, length: int) -> None:
        """fallocate(2) with KEEP_SIZE: pages for a range.

        Raises :class:`CallError`: EINVAL unaligned or past the end, EINTR after a signal (pages so far stay), ENOMEM.
        """
        fallocate(self.fileno(), KEEP, offset, length)

    def punch(self, offset: int, length: int) -> None:
        """fallocate(2) with PUNCH_HOLE|KEEP_SIZE: free the pages of a range, out of every mapping and every guest."""
        fallocate(self.fileno(), PUNCH, offset, length)

    def mmap(
        self, length: int | None = None, offset: int = 0, prot: int = RW, flags: int = uapi.MAP_SHARED, address: int = 0
    ) -> Mapping:
        """mmap(2); the whole file by default.

        Raises :class:`CallError`: ENODEV without GUEST_MEMFD_FLAG_MMAP, EINVAL for MAP_PRIVATE, EPERM for PROT_EXEC.
        """
        length = self.size() if length is None else length
        return Mapping(mmap(address, length, prot, flags, self.fileno(), offset), length)

    def cachestat(self, offset: int = 0, length: int = 0) -> Residency:
        """cachestat(2) of a range of bytes (length 0: to the end)."""
        return cachestat(self.fileno(), offset, length)

    def resident(self, offset: int = 0, length: int = 0) -> int:
        """Allocated pages in a range of bytes (length 0: to the end)."""
        return self.cachestat(offset, length).cache

    def set_memory_attributes(self, offset: int, size: int, attributes: int, flags: int = 0) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES2: in-place conversion of a range of the file to private or shared.

        Raises :class:`CallError`: ENOTTY where the kernel has none; EAGAIN with ``error_offset`` among its arguments,
        the first page somebody else holds.
        """
        argument = filled(kvm_memory_attributes2, offset=offset, size=size, attributes=attributes, flags=flags)
        try:
            set_attributes2(self.fileno(), argument)
        except CallError as error:
            error.arguments["error_offset"] = argument.error_offset
            raise


class Exit(NamedTuple):
    """Why KVM_RUN came back: KVM_EXIT_*, the errno it failed with (0, or EFAULT with a memory fault), and what it says.

    ``address``: of MMIO or of a memory fault; the port of an I/O exit.  ``size`` in bytes.  ``flags``: of a memory fault.
    ``write``: of MMIO and of ports; ``data``: what the guest writes, and nothing where it reads: see :meth:`Vcpu.answer`.
    """

    reason: int
    errno: int
    address: int = 0
    size: int = 0
    flags: int = 0
    write: bool = False
    data: bytes = b""


class Vcpu(Descriptor):
    """A virtual CPU, made by :meth:`Vm.create_vcpu`; one thread at a time runs it."""

    def __init__(self, fd: int, run_size: int) -> None:
        super().__init__(fd)
        self.kvm_run = Mapping(mmap(0, run_size, RW, uapi.MAP_SHARED, fd), run_size)

    def close(self) -> None:
        """Unmap struct kvm_run and close the descriptor, once."""
        super().close()
        if hasattr(self, "kvm_run"):
            self.kvm_run.close()

    def field(self, name: str) -> int:
        """A field of struct kvm_run, as "exit_reason" or "mmio.phys_addr"."""
        offset, size = uapi.KVM_RUN_LAYOUT[name]
        return int.from_bytes(self.kvm_run.read(offset, size), "little")

    def set_immediate_exit(self, on: bool) -> None:
        """Make the next KVM_RUN return at once with EINTR, or not."""
        self.kvm_run.write(bytes([on]), uapi.KVM_RUN_LAYOUT["immediate_exit"][0])

    def regs(self) -> uapi.kvm_regs:
        """KVM_GET_REGS."""
        regs = uapi.kvm_regs()
        ioctl(self.fileno(), "KVM_GET_REGS", uapi.KVM_GET_REGS, regs)
        return regs

    def set_regs(self, regs: uapi.kvm_regs) -> None:
        """KVM_SET_REGS."""
        ioctl(self.fileno(), "KVM_SET_REGS", uapi.KVM_SET_REGS, regs)

    def sregs(self) -> uapi.kvm_sregs:
        """KVM_GET_SREGS."""
        sregs = uapi.kvm_sregs()
        ioctl(self.fileno(), "KVM_GET_SREGS", uapi.KVM_GET_SREGS, sregs)
        return sregs

    def set_sregs(self, sregs: uapi.kvm_sregs) -> None:
        """KVM_SET_SREGS.  Raises :class:`CallError`: EINVAL for a state this KVM cannot run."""
        ioctl(self.fileno(), "KVM_SET_SREGS", uapi.KVM_SET_SREGS, sregs)

    def set_cpuid(self, cpuid: ctypes.Array[ctypes.c_char]) -> None:
        """KVM_SET_CPUID2, before the first KVM_RUN.  Raises :class:`CallError`: EINVAL after it."""
        ioctl(self.fileno(), "KVM_SET_CPUID2", uapi.KVM_SET_CPUID2, cpuid)

    def pre_fault(self, gpa: int, size: int, flags: int = 0) -> int:
        """KVM_PRE_FAULT_MEMORY: fill stage 2 for a range; how many bytes are left, at its end.

        Raises :class:`CallError` when no page could be filled: EINVAL where KVM has none, ENOENT without a slot, EFAULT.
        """
        argument = filled(uapi.kvm_pre_fault_memory, gpa=gpa, size=size, flags=flags)
        ioctl(self.fileno(), "KVM_PRE_FAULT_MEMORY", uapi.KVM_PRE_FAULT_MEMORY, argument, gpa=gpa, size=size, flags=flags)
        return argument.size

    def run(self) -> Exit:
        """KVM_RUN; why it came back.

        Raises :class:`CallError` except for EFAULT with a memory fault, which is an :class:`Exit` with that errno.
        """
        errno = 0
        try:
            ioctl(self.fileno(), "KVM_RUN", uapi.KVM_RUN)
        except CallError as error:
            errno = error.errno or 0
            if self.field("exit_reason") != uapi.KVM_EXIT_MEMORY_FAULT:
                raise
        reason = self.field("exit_reason")
        if reason in (uapi.KVM_EXIT_MMIO, uapi.KVM_EXIT_IO):
            at, size, write = self._access(reason)
            address = self.field("mmio.phys_addr" if reason == uapi.KVM_EXIT_MMIO else "io.port")
            return Exit(reason, errno, address, size, 0, write, self.kvm_run.read(at, size) if write else b"")
        if reason == uapi.KVM_EXIT_MEMORY_FAULT:
            gpa, size = self.field("memory_fault.gpa"), self.field("memory_fault.size")
            return Exit(reason, errno, gpa, size, self.field("memory_fault.flags"))
        return Exit(reason, errno)

    def answer(self, data: bytes) -> None:
        """What a guest that reads MMIO or a port gets when it goes on, at the next KVM_RUN; as many bytes as it reads.

        Unanswered, it gets what is in struct kvm_run.  Raises ValueError when the last exit is no read, or of another size.
        """
        reason = self.field("exit_reason")
        if reason not in (uapi.KVM_EXIT_MMIO, uapi.KVM_EXIT_IO):
            raise ValueError(f"exit reason {reason} has no answer: answer a read, KVM_EXIT_MMIO or KVM_EXIT_IO")
        at, size, write = self._access(reason)
        if write:
            raise ValueError("the guest writes: answer a read")
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes: the guest reads {size}, give as many")
        self.kvm_run.write(data, at)

    def _access(self, reason: int) -> tuple[int, int, bool]:
        """Where struct kvm_run has the data of an exit for MMIO or a port, how many bytes, and whether the guest writes them."""
        if reason == uapi.KVM_EXIT_MMIO:
            at, most = uapi.KVM_RUN_LAYOUT["mmio.data"]
            return at, min(self.field("mmio.len"), most), bool(self.field("mmio.is_write"))
        size = self.field("io.size") * self.field("io.count")
        return self.field("io.data_offset"), size, self.field("io.direction") == uapi.KVM_EXIT_IO_OUT
