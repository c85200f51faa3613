# SPDX-License-Identifier: Apache-2.0
"""What a machine has that another does not: facts that decide what its kernel should do, found by trying.

None is taken from a version.  Each is found by another operation than those whose results it decides, except for what
files a slot takes and what a userfaultfd may be told of, which nothing else tells.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from guestmem.linux import uapi
from guestmem.linux.calls import (
    MADV_GUARD_INSTALL,
    PAGE_SIZE,
    CallError,
    NoNumber,
    ioctl,
    iovec,
    libc,
    madvise,
    memfd_secret,
    mmap,
    munmap,
    syscall,
)
from guestmem.linux.guest import NoGuest, system
from guestmem.linux.kvm import GuestMemfd, Kvm, Vm, kvm_memory_attributes2, set_attributes2
from guestmem.linux.liveupdate import Session
from guestmem.linux.numa import MPOL_BIND, allowed, mbind, shown_policy
from guestmem.linux.smaps import smaps
from guestmem.linux.userfaultfd import MINOR, MISSING, WP, Userfaultfd

__all__ = ["HUGE_SHIFT", "Facts", "find"]

NOWHERE = uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS | uapi.MAP_NORESERVE
FIONREAD = 0x541B  # include/uapi/asm-generic/ioctls.h
VM_TYPES = (*range(6), 99, 1 << 20, 1 << 31)
FLAG_VALUES = tuple(range(4))
HUGE_SHIFT = 58  # GUESTMEM_HUGETLB_FLAG_SHIFT, as HUGETLB_FLAG_ENCODE_SHIFT is 26
HUGE_SIZES = (16, 21, 30)  # 64 KiB, 2 MiB, 1 GiB


class Facts(NamedTuple):
    """What a machine has.  The defaults are what most x86-64 machines with a new kernel have.

    Attributes:
        machine: uname -m.
        files: the values of flags (MMAP 1, INIT_SHARED 2) with which KVM makes files of guest memory.
        bindable: those of ``files`` whose files a slot of a VM of the default type takes.
        flags: KVM_CAP_GUEST_MEMFD_FLAGS; 0 also where KVM has no such capability.
        said: KVM_CAP_GUEST_MEMFD; 0 where files can be made and not be of use to a VM of the default type.
        regions2: KVM_CAP_USER_MEMORY2.
        memory_fault: KVM_CAP_MEMORY_FAULT_INFO.
        anonymous: the VFS knows that files of guest memory have no data (S_ANON_INODE).
        no_exec: files without a name cannot be mapped executable (SB_I_NOEXEC).
        overlap_first: a range of a file that another slot has is found before a guest-physical address past the limit.
        vm_types: those of a few values that KVM_CREATE_VM takes.
        attributes: a VM knows KVM_SET_MEMORY_ATTRIBUTES.
        protected: flags of the files that slots of a SW_PROTECTED VM take, whose memory can be made private.
        pre_faults: a vCPU can pre-fault (KVM_CAP_PRE_FAULT_MEMORY).
        no_pre_fault: where it cannot, the errno of KVM_PRE_FAULT_MEMORY.
        converts: flags of the files of a SW_PROTECTED VM that take KVM_SET_MEMORY_ATTRIBUTES2.
        file_only: all memory of a slot with a file is the file's, also if this cannot be mapped (gmem_in_place_conversion).
        writes: the flag of files that take write(2), 0 where there are none.
        no_direct_map: the flag of files that the host's direct map does not have, 0 where there are none.
        huge: the flags of files of huge pages: the flag, and from bit 58 on the size, as its logarithm; 0 where there are none.
            The default is the smallest size that hugetlb has anywhere (64 KiB on arm64), which keeps the simulated host small.
        userfaults: modes of UFFDIO_REGISTER (MISSING 1, WP 2, MINOR 4) that mappings of shared guest memory take.
        slots, address_spaces: how many slots a VM has in each, and how many of these (KVM_CAP_MULTI_ADDRESS_SPACE).
        gpa_bits: of a guest-physical address (kvm_mmu_max_gfn, kvm_phys_size).
        user_bits: of a user-space address, by what may be mapped where one asks for it.
        room_bits: of the part of the address space where the kernel itself places mappings, or of what ulimit -v leaves.
        commit: bytes that a private writable mapping may have (vm.overcommit_memory); 0: that depends on the others.
        counts_entries: KVM has the statistic pages_4k.
        shadow_paging: the guest's page tables are not the hardware's, so KVM builds others (no EPT, no NPT).
        forced: /proc/PID/mem reads what its mapping forbids (proc_mem.force_override=always).
        secret_locked: mappings of memfd_secret are VM_LOCKED.
        seals: the kernel has mseal(2).
        guards: mappings of files can have guards (MADV_GUARD_INSTALL).
        nodes: those of which this process may have memory; none where there are no memory policies (mbind).
        file_policy: a memory policy of a mapping is that of the file's pages (vm_ops.set_policy).
        preserves: a session of live update takes files of guest memory that the host may use.
    """

    machine: str = "x86_64"
    files: tuple[int, ...] = FLAG_VALUES
    bindable: tuple[int, ...] = FLAG_VALUES
    flags: int = 15
    said: int = 1
    regions2: int = 1
    memory_fault: int = 1
    anonymous: bool = True
    no_exec: bool = True
    overlap_first: bool = False
    vm_types: tuple[int, ...] = (0, uapi.KVM_X86_SW_PROTECTED_VM)
    attributes: bool = True
    protected: tuple[int, ...] = (0, 1)
    pre_faults: bool = True
    no_pre_fault: int = errno.EOPNOTSUPP
    converts: tuple[int, ...] = FLAG_VALUES
    file_only: bool = False
    writes: int = 8
    no_direct_map: int = 4
    huge: int = 16 | 16 << HUGE_SHIFT
    userfaults: int = 7
    slots: int = 32764
    address_spaces: int = 2
    gpa_bits: int = 52
    user_bits: int = 47
    room_bits: int = 47
    commit: int = 1 << 40
    counts_entries: bool = True
    shadow_paging: bool = False
    forced: bool = True
    secret_locked: bool = True
    seals: bool = True
    guards: bool = True
    nodes: tuple[int, ...] = (0, 1)
    file_policy: bool = True
    preserves: bool = True

    @property
    def roomy(self) -> bool:
        """Whether only the address space limits a mapping, and not how much others may have (RLIMIT_AS)."""
        return self.room_bits > 40

    @property
    def gpa_error(self) -> int:
        """The errno for a guest-physical address past the limit (kvm_arch_prepare_memory_region)."""
        return errno.EFAULT if self.machine == "aarch64" else errno.EINVAL

    @property
    def unknown_vm_ioctl(self) -> int:
        """The errno for an ioctl that a VM does not know (kvm_arch_vm_ioctl)."""
        return errno.EINVAL if self.machine == "aarch64" else errno.ENOTTY

    @property
    def large_file(self) -> int:
        """O_LARGEFILE (include/uapi/asm-generic/fcntl.h, and arch/arm64/include/uapi/asm/fcntl.h)."""
        return 0o400000 if self.machine == "aarch64" else 0o100000

    def makes(self, protected: bool) -> tuple[int, ...]:
        """The flags of the files that a VM makes, of type SW_PROTECTED or the default one."""
        return tuple(sorted({*self.protected, *self.converts})) if protected else self.files

    def legal(self, flags: int, protected: bool) -> bool:
        """Whether a VM makes files with flags."""
        made = self.makes(protected)
        needed = uapi.GUEST_MEMFD_FLAG_INIT_SHARED if flags & self.writes else 0
        if self.of_huge(flags) and flags & uapi.GUEST_MEMFD_FLAG_INIT_SHARED:
            return False
        return self.plainly(flags) in made and (not needed or needed in made)

    def plainly(self, flags: int) -> int:
        """Flags without those of series that are not merged."""
        return flags & ~(self.writes | self.no_direct_map | (self.huge if self.of_huge(flags) else 0))

    def binds(self, protected: bool) -> tuple[int, ...]:
        """The flags of the files that a slot of a VM takes."""
        return self.makes(True) if protected else self.bindable

    def of_huge(self, flags: int) -> bool:
        """Whether files with flags are of huge pages."""
        return self.huge != 0 and flags & (self.huge | 63 << HUGE_SHIFT) == self.huge

    @property
    def huge_order(self) -> int:
        """A huge page has 2^order pages."""
        return (self.huge >> HUGE_SHIFT) - (PAGE_SIZE.bit_length() - 1) if self.huge else 0

    @property
    def plain(self) -> int:
        """The flags of the plainest file that a slot takes."""
        return min(self.bindable)


def find() -> Facts:
    """The facts of this machine.  Raises CallError when there is no KVM to ask."""
    with Kvm() as kvm, kvm.create_vm() as vm:
        files = _files(vm)
        try:
            return Facts(
                machine=platform.machine(),
                files=tuple(files),
                bindable=_bindable(vm, files),
                flags=vm.check_extension(uapi.KVM_CAP_GUEST_MEMFD_FLAGS),
                said=vm.check_extension(uapi.KVM_CAP_GUEST_MEMFD),
                regions2=vm.check_extension(uapi.KVM_CAP_USER_MEMORY2),
                memory_fault=vm.check_extension(uapi.KVM_CAP_MEMORY_FAULT_INFO),
                anonymous=not any(_works(functools.partial(_fionread, file)) for file in files.values()),
                no_exec=_no_exec(),
                overlap_first=_overlap_first(kvm),
                vm_types=tuple(kind for kind in VM_TYPES if _works(functools.partial(_make_vm, kvm, kind))),
                attributes=_knows_attributes(vm),
                protected=_of_protected(kvm, _protected),
                pre_faults=bool(vm.check_extension(uapi.KVM_CAP_PRE_FAULT_MEMORY)),
                no_pre_fault=_no_pre_fault(kvm),
                converts=_of_protected(kvm, _converts),
                file_only=any(_knows_conversion(file) for file in files.values()),
                **_series(vm),
                huge=_huge(vm),
                userfaults=_userfaults(files.get(uapi.GUEST_MEMFD_FLAG_MMAP | uapi.GUEST_MEMFD_FLAG_INIT_SHARED)),
                slots=vm.check_extension(uapi.KVM_CAP_NR_MEMSLOTS),
                address_spaces=max(1, vm.check_extension(uapi.KVM_CAP_MULTI_ADDRESS_SPACE)),
                gpa_bits=_gpa_bits(kvm),
                user_bits=_user_bits(),
                room_bits=_room_bits(),
                commit=_commit(),
                counts_entries="pages_4k" in vm.statistics(),
                shadow_paging=_shadow_paging(),
                forced=_forced(),
                secret_locked=_secret_locked(),
                seals=_seals(),
                guards=_guards(),
                nodes=(nodes := _nodes()),
                file_policy=_file_policy(files.get(uapi.GUEST_MEMFD_FLAG_MMAP), nodes),
                preserves=_preserves(files.get(uapi.GUEST_MEMFD_FLAG_MMAP | uapi.GUEST_MEMFD_FLAG_INIT_SHARED)),
            )
        finally:
            _close(files)


def _works(function: Callable[[], object]) -> bool:
    try:
        function()
    except CallError:
        return False
    return True


def _made(vm: Vm, flags: int) -> GuestMemfd | None:
    try:
        return vm.create_guest_memfd(PAGE_SIZE, flags)
    except CallError:
        return None


def _files(vm: Vm) -> dict[int, GuestMemfd]:
    """The files that a VM makes, by their flags."""
    return {flags: file for flags in FLAG_VALUES if (file := _made(vm, flags)) is not None}


def _series(vm: Vm) -> dict[str, int]:
    """What flags mean that no release has, by what files with them do: series use the same numbers."""
    found = {"writes": 0, "no_direct_map": 0}
    shared = uapi.GUEST_MEMFD_FLAG_MMAP | uapi.GUEST_MEMFD_FLAG_INIT_SHARED
    for flag in (1 << bit for bit in range(2, 64)):
        file = _made(vm, flag | shared)
        if file is not None:
            with file:
                if _works(functools.partial(_write, file)):
                    found["writes"] = flag
                elif _refuses_gup(file):
                    found["no_direct_map"] = flag
    return found


def _huge(vm: Vm) -> int:
    """By files of a huge page that can be made where files of a page cannot; some must be free (vm.nr_hugepages)."""
    for size in HUGE_SIZES:
        for flags in (1 << bit | size << HUGE_SHIFT for bit in range(2, HUGE_SHIFT)):
            if _makes(vm, 1 << size, flags) and not _makes(vm, PAGE_SIZE, flags):
                return flags
    return 0


def _makes(vm: Vm, size: int, flags: int) -> bool:
    return _works(lambda: vm.create_guest_memfd(size, flags).close())


def _write(file: GuestMemfd) -> None:
    libc("pwrite", fd=file.fileno(), buffer=bytes(PAGE_SIZE), count=PAGE_SIZE, offset=0)


def _userfaults(file: GuestMemfd | None) -> int:
    if file is None:
        return 0
    with file.mmap() as mapping:
        return sum(mode for mode in (MISSING, WP, MINOR) if _registers(mapping.address, mode))


def _registers(address: int, mode: int) -> bool:
    try:
        with Userfaultfd() as faults:
            faults.register(address, PAGE_SIZE, mode)
    except (CallError, NoNumber):
        return False
    return True


def _refuses_gup(file: GuestMemfd) -> bool:
    """By a page that nobody has touched, so that none leaves the direct map."""
    here = ctypes.create_string_buffer(1)
    with file.mmap(PAGE_SIZE) as mapping:
        local, remote = iovec(ctypes.addressof(here), 1), iovec(mapping.address, 1)
        try:
            libc("process_vm_readv", pid=os.getpid(), local=local, locals=1, remote=remote, remotes=1, flags=0)
        except CallError as error:
            return error.errno == errno.EFAULT
    return False


def _close(files: dict[int, GuestMemfd]) -> None:
    for file in files.values():
        file.close()


def _bindable(vm: Vm, files: dict[int, GuestMemfd]) -> tuple[int, ...]:
    """The flags of the files that a slot takes."""
    return tuple(flags for flags, file in files.items() if _works(functools.partial(_bind, vm, file)))


def _bind(vm: Vm, file: GuestMemfd) -> None:
    vm.set_user_memory_region2(0, 0, PAGE_SIZE, guest_memfd=file)
    vm.delete_slot(0)


def _of_protected(kvm: Kvm, find: Callable[[Vm, dict[int, GuestMemfd]], tuple[int, ...]]) -> tuple[int, ...]:
    """What is found with a VM of type SW_PROTECTED and the files that it makes; nothing where there is no such VM."""
    if platform.machine() != "x86_64":
        return ()
    try:
        vm = kvm.create_vm(uapi.KVM_X86_SW_PROTECTED_VM)
    except CallError:
        return ()
    with vm:
        files = _files(vm)
        try:
            return find(vm, files)
        finally:
            _close(files)


def _converts(vm: Vm, files: dict[int, GuestMemfd]) -> tuple[int, ...]:
    """By asking for what a page is at the beginning."""
    return tuple(flags for flags, file in files.items() if _works(functools.partial(_convert, file, flags)))


def _convert(file: GuestMemfd, flags: int) -> None:
    shared = flags & uapi.GUEST_MEMFD_FLAG_INIT_SHARED
    file.set_memory_attributes(0, PAGE_SIZE, 0 if shared else uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE)


def _knows_conversion(file: GuestMemfd) -> bool:
    """An empty range is refused by who knows the ioctl, and ENOTTY is the answer of who does not."""
    try:
        set_attributes2(file.fileno(), kvm_memory_attributes2())
    except CallError as error:
        return error.errno != errno.ENOTTY
    return True


def _knows_attributes(vm: Vm) -> bool:
    """An empty range is refused by who knows the ioctl."""
    try:
        vm.set_memory_attributes(0, 0, 0)
    except CallError as error:
        return error.errno != Facts(machine=platform.machine()).unknown_vm_ioctl
    return True


def _no_pre_fault(kvm: Kvm) -> int:
    """By a page without a slot: ENOENT where it could be."""
    with kvm.create_vm() as vm:
        try:
            with contextlib.closing(system(kvm, vm)) as guest:
                guest.vcpu.pre_fault(0, PAGE_SIZE)
        except NoGuest:
            return errno.EINVAL
        except CallError as error:
            return error.errno or 0
    return 0


def _protected(vm: Vm, files: dict[int, GuestMemfd]) -> tuple[int, ...]:
    private = vm.check_extension(uapi.KVM_CAP_MEMORY_ATTRIBUTES) & uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE
    return _bindable(vm, files) if private else ()


def _make_vm(kvm: Kvm, kind: int) -> None:
    kvm.create_vm(kind).close()


def _fionread(file: GuestMemfd) -> None:
    ioctl(file.fileno(), "FIONREAD", FIONREAD, ctypes.c_int())


def _no_exec() -> bool:
    """By an eventfd, which cannot be mapped at all: EPERM comes before ENODEV."""
    fd = os.eventfd(0)
    try:
        mmap(0, PAGE_SIZE, uapi.PROT_READ | uapi.PROT_EXEC, uapi.MAP_SHARED, fd)
    except CallError as error:
        return error.errno == errno.EPERM
    finally:
        os.close(fd)
    return False


def _overlap_first(kvm: Kvm) -> bool:
    """By the errno of a slot that is wrong in both ways."""
    flags = uapi.GUEST_MEMFD_FLAG_MMAP
    with kvm.create_vm() as vm:
        file = _made(vm, flags)
        if file is None:
            return False
        with file:
            try:
                vm.set_user_memory_region2(0, 0, PAGE_SIZE, guest_memfd=file)
                vm.set_user_memory_region2(1, 1 << 52, PAGE_SIZE, guest_memfd=file)
            except CallError as error:
                return error.errno != Facts(machine=platform.machine()).gpa_error
    return False


def _gpa_bits(kvm: Kvm) -> int:
    """By ordinary slots: what a slot with guest memory does there is for the contract to say."""
    address = mmap(0, PAGE_SIZE, uapi.PROT_NONE, NOWHERE)
    try:
        for bits in range(52, 32, -1):
            with kvm.create_vm() as vm:
                if _works(functools.partial(vm.set_user_memory_region2, 0, (1 << bits) - PAGE_SIZE, PAGE_SIZE, address)):
                    return bits
        return 32
    finally:
        munmap(address, PAGE_SIZE)


def _user_bits() -> int:
    for bits in range(57, 47, -1):
        # The last page is never a user's on x86 (TASK_SIZE_MAX).
        at = (1 << bits) - 2 * PAGE_SIZE
        with contextlib.suppress(CallError):
            address = mmap(at, PAGE_SIZE, uapi.PROT_NONE, NOWHERE | uapi.MAP_FIXED_NOREPLACE)
            munmap(address, PAGE_SIZE)
            if address == at:
                return bits
    return 47


def _room_bits() -> int:
    """Half of it is free in any process that is not full of other things."""
    for bits in range(55, 16, -1):
        with contextlib.suppress(CallError):
            munmap(mmap(0, 1 << bits, uapi.PROT_NONE, NOWHERE), 1 << bits)
            return bits + 1
    return 17


def _commit() -> int:
    """__vm_enough_memory(), mm/util.c."""
    with open("/proc/sys/vm/overcommit_memory", encoding="ascii") as mode:
        if how := int(mode.read()):
            return 1 << 63 if how == 1 else 0
    with open("/proc/meminfo", encoding="ascii") as lines:
        sizes = {name: int(value.split()[0]) << 10 for name, _, value in (line.partition(":") for line in lines)}
    return sizes["MemTotal"] + sizes.get("SwapTotal", 0)


def _shadow_paging() -> bool:
    """By the parameters of the vendor's module; one that has neither parameter has no two-dimensional paging."""
    if platform.machine() != "x86_64":
        return False
    said = [Path("/sys/module", *where) for where in (("kvm_intel", "parameters", "ept"), ("kvm_amd", "parameters", "npt"))]
    return not any(path.exists() and path.read_text(encoding="ascii").strip() in "Y1" for path in said)


def _forced() -> bool:
    """By memory that is not a file's."""
    address = mmap(0, PAGE_SIZE, uapi.PROT_NONE, NOWHERE)
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            return len(os.pread(memory.fileno(), 1, address)) == 1
    except OSError:
        return False
    finally:
        munmap(address, PAGE_SIZE)


def _seals() -> bool:
    """By a flag that there is not."""
    try:
        syscall("mseal", start=0, length=0, flags=1)
    except CallError as error:
        return error.errno != errno.ENOSYS
    return True


def _guards() -> bool:
    """By a mapping of an ordinary memfd."""
    fd = os.memfd_create("guestmem", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, PAGE_SIZE)
        address = mmap(0, PAGE_SIZE, uapi.PROT_READ | uapi.PROT_WRITE, uapi.MAP_SHARED, fd)
        try:
            return _works(functools.partial(madvise, address, PAGE_SIZE, MADV_GUARD_INSTALL))
        finally:
            munmap(address, PAGE_SIZE)
    finally:
        os.close(fd)


def _nodes() -> tuple[int, ...]:
    """None where the kernel has no policies."""
    nodes = allowed()
    address = mmap(0, PAGE_SIZE, uapi.PROT_NONE, NOWHERE)
    try:
        return nodes if nodes and _works(functools.partial(mbind, address, PAGE_SIZE, MPOL_BIND, 1 << nodes[0])) else ()
    finally:
        munmap(address, PAGE_SIZE)


def _file_policy(file: GuestMemfd | None, nodes: tuple[int, ...]) -> bool:
    """By what numa_maps shows of another mapping, with nothing in the file."""
    if file is None or not nodes:
        return False
    with file.mmap() as one, file.mmap() as other:
        mbind(one.address, PAGE_SIZE, MPOL_BIND, 1 << nodes[0])
        return shown_policy(other.address).startswith("bind")


def _preserves(file: GuestMemfd | None) -> bool:
    """By a session that ends at once."""
    if file is None:
        return False
    try:
        with Session(f"guestmem-{os.getpid()}-facts") as session:
            session.preserve(file.fileno(), 0)
    except CallError:
        return False
    return True


def _secret_locked() -> bool:
    """By smaps, of a mapping that nobody touches."""
    try:
        fd = memfd_secret(os.O_CLOEXEC)
    except (CallError, NoNumber):
        return False
    address = 0
    try:
        os.ftruncate(fd, PAGE_SIZE)
        address = mmap(0, PAGE_SIZE, uapi.PROT_READ, uapi.MAP_SHARED, fd)
        return any("lo" in vma.said["VmFlags"].split() for vma in smaps() if vma.start == address)
    except OSError:
        return False
    finally:
        if address:
            munmap(address, PAGE_SIZE)
        os.close(fd)
