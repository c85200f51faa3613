# SPDX-License-Identifier: Apache-2.0
"""VMs of the simulated host: their ioctls, memory slots, and guests that load and store."""

from __future__ import annotations

from guestmem.contract.interface import GUEST_GPA, GUEST_SIZE, GUEST_SLOT, PAGE_SIZE, U64, Unmodelled
from guestmem.contract.results import EEXIST, EFAULT, EINVAL, ENOENT, MMIO, NO_FAULT, Denied, Errno, Result
from guestmem.contract.syscalls.files import INSIDE, MAX_LFS_FILESIZE, WHOLE_PAGES, aligned, signed
from guestmem.contract.syscalls.hugetlb import HugetlbMemfd
from guestmem.contract.syscalls.mappings import NOT_FAULTABLE
from guestmem.contract.syscalls.objects import Gmem, HugeGmem, Kvm, Slot, Vcpu, Vm
from guestmem.contract.syscalls.task import NOT_ITS_IOCTL, Task
from guestmem.contract.syscalls.users import Users
from guestmem.linux.system import GIB, REACHED
from guestmem.linux.uapi import (
    GUEST_MEMFD_FLAG_INIT_SHARED,
    GUEST_MEMFD_FLAG_MMAP,
    KVM_CAP_GUEST_MEMFD,
    KVM_CAP_GUEST_MEMFD_FLAGS,
    KVM_CAP_MEMORY_FAULT_INFO,
    KVM_CAP_MULTI_ADDRESS_SPACE,
    KVM_CAP_NR_MEMSLOTS,
    KVM_CAP_USER_MEMORY2,
    KVM_EXIT_INTERNAL_ERROR,
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
    KVM_MEMORY_ATTRIBUTE_PRIVATE,
    KVM_MEMORY_EXIT_FLAG_PRIVATE,
    KVM_X86_SW_PROTECTED_VM,
)
from guestmem.machine.guest import Gfn

__all__ = ["Vms"]

MODELLED_FLAGS = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED

ADDRESS_SPACE = 1 << 16  # numbers of slots below are of the one in which vCPUs are unless in SMM
RESET = 0xFFFFFFF0  # where a vCPU of x86 begins
MAX_SLOT_PAGES = (1 << 31) - 1
LARGE_SLOT = 1 << 18

PRIVATE_OF_FILE = "private memory is of a file"
FILE_CLOSED = "a slot whose file was closed has no memory"
MEMORY_FAULTS = {PRIVATE_OF_FILE, FILE_CLOSED}
"""Of which an exit says where; of what is not mapped at userspace_addr it does not (kvm_handle_error_pfn)."""
END_BELOW = "the range of a slot ends below 2^63"
SLOT_ARGUMENTS = "a slot's flags, number, size and addresses are legal"
IMMUTABLE = "a slot with guest memory can only be deleted"
GPA_TAKEN = "guest-physical memory is in one slot"
RANGE_BOUND = "a range of a file has one slot"
BINDABLE = "a slot takes files that its VM can use"
OF_THIS_VM = "a slot takes a file of guest memory of its own VM"
FLAGS_KNOWN = "only flags that the VM supports are legal"
SIZE_WHOLE_PAGES = "the size of a file is positive and whole pages"


class Vms:
    """VMs, memory slots, vCPUs, stage 2."""

    def __init__(self, task: Task, users: Users) -> None:
        self.task = task
        self.users = users
        self.facts = facts = task.facts
        self.task_size = (1 << facts.user_bits) - (PAGE_SIZE if facts.machine == "x86_64" else 0)
        self.capabilities = {
            KVM_CAP_NR_MEMSLOTS: facts.slots,
            KVM_CAP_MULTI_ADDRESS_SPACE: facts.address_spaces if facts.address_spaces > 1 else 0,
            KVM_CAP_USER_MEMORY2: facts.regions2,
            KVM_CAP_MEMORY_FAULT_INFO: facts.memory_fault,
            KVM_CAP_GUEST_MEMFD: facts.said,
            KVM_CAP_GUEST_MEMFD_FLAGS: facts.flags,
        }
        self.kernel = task.kernel

    def create_vm(self, kind: int = 0) -> Result:
        self.task.room()
        if kind not in self.facts.vm_types:
            raise Denied(EINVAL, "KVM has the type of VM")
        if kind and kind != KVM_X86_SW_PROTECTED_VM:
            raise Unmodelled("other types of VM")
        return self.task.opened(Vm(bool(kind)))

    def create_guest_memfd(self, vm: Result, size: int, flags: int) -> Result:
        owner = self.task.vm(vm)
        if not self.facts.legal(flags & (U64 - 1), owner.protected):
            raise Denied(EINVAL, FLAGS_KNOWN)
        order = self.facts.huge_order if self.facts.of_huge(flags) else 0
        if signed(size) <= 0 or not aligned(size, order=order):
            raise Denied(EINVAL, SIZE_WHOLE_PAGES)
        self.task.room()
        return self.task.opened(self.new_file(owner, size, flags))

    def new_file(self, owner: Vm, size: int, flags: int) -> Gmem:
        """__kvm_gmem_create()."""
        world, huge = self.kernel.world, self.facts.of_huge(flags)
        if huge and not any(size // PAGE_SIZE <= len(file.shared) for file in world.huge):
            raise Unmodelled("a file of more huge pages than the simulated host has")
        pairs = zip((*world.files, *world.huge), world.machine.guests, strict=True)
        found = ((f, g) for f, g in pairs if not f.open and isinstance(f, HugetlbMemfd) == huge)
        file, guest = next(found, (None, None))
        if file is None or guest is None:
            raise Unmodelled("more open files than the simulated host has")
        err = file.create()
        if err:
            raise Denied(Errno(-err), "the protection can be had")
        gmem = (HugeGmem if huge else Gmem)(owner, file, guest, size, flags)
        gmem.no_direct_map = bool(flags & self.facts.no_direct_map)
        owner.files.append(gmem)
        owner.uses += 1
        return gmem

    def open_kvm(self) -> Result:
        return self.task.opened(Kvm())

    def create_guest_memfd_reserved(self, vm: Result, size: int, flags: int, word: int) -> Result:
        """kvm_gmem_create() does not look at them."""
        return self.create_guest_memfd(vm, size, flags)

    def unmapped_argument(self, vm: Result, ioctl: str) -> Result:
        self.task.vm(vm)
        raise Denied(EFAULT, "an argument can be read")

    def check_extension(self, fd: Result, capability: int) -> Result:
        self.task.vm(fd)
        return self.capabilities.get(capability, 0)

    def set_user_memory_region2(
        self, vm: Result, slot: int, flags: int, gpa: int, size: int, address: Result | str | None, fd: Result, offset: int
    ) -> Result:
        """kvm_set_memory_region()."""
        hva = self.address(address, size)
        owner = self.task.vm(vm)
        slot, flags = slot & 0xFFFFFFFF, flags & 0xFFFFFFFF
        gmem = bool(flags & KVM_MEM_GUEST_MEMFD)
        bindable = self.facts.binds(owner.protected)
        if gmem and not bindable:
            raise Denied(EINVAL, BINDABLE)
        if flags & ~(KVM_MEM_GUEST_MEMFD if gmem else KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY):
            raise Denied(EINVAL, SLOT_ARGUMENTS)
        if not aligned(size, gpa, hva) or hva + size > self.task_size:
            raise Denied(EINVAL, SLOT_ARGUMENTS)
        if gmem and (not aligned(offset) or offset + size >= U64):
            raise Denied(EINVAL, WHOLE_PAGES)
        if (
            slot >> 16 >= self.facts.address_spaces
            or slot & 0xFFFF >= self.facts.slots
            or gpa + size >= U64
            or size // PAGE_SIZE > MAX_SLOT_PAGES
        ):
            raise Denied(EINVAL, SLOT_ARGUMENTS)
        old = owner.slots.get(slot)
        with self.kernel.running():
            if size == 0:
                return self.delete_slot(owner, slot)
            new = Slot(flags, gpa, size // PAGE_SIZE, address)
            move = old is not None and old.gpa != gpa
            if old is not None:
                if gmem or old.flags & KVM_MEM_GUEST_MEMFD:
                    raise Denied(EINVAL, IMMUTABLE)
                if (old.address, old.pages, old.flags & KVM_MEM_READONLY) != (address, new.pages, flags & KVM_MEM_READONLY):
                    raise Denied(EINVAL, "an ordinary slot can only be moved")
            others = (o for number, o in owner.slots.items() if number != slot and number >> 16 == slot >> 16)
            if (old is None or move) and any(other.overlaps(gpa, new.pages) for other in others):
                raise Denied(EEXIST, GPA_TAKEN)
            if gmem:
                self.gmem_bind(owner, new, fd, offset)
                if self.facts.overlap_first:
                    self.may_bind(new)
            if new.pages > LARGE_SLOT:
                raise Unmodelled("slots so large that KVM takes much memory for them")
            if gpa + size > 1 << self.facts.gpa_bits and (old is None or move):
                raise Denied(Errno(self.facts.gpa_error), SLOT_ARGUMENTS)
            if new.file is not None and self.facts.plainly(new.file.flags) not in bindable:
                raise Denied(EINVAL, BINDABLE)
            if new.file is not None:
                self.may_bind(new)
                new.file.bind(new)
            if move:
                self.zap_all(owner)
            owner.slots[slot] = new
        return 0

    def address(self, address: Result | str | None, size: int) -> int:
        """userspace_addr as a number, where it matters which it is."""
        if address is None:
            return 0
        if isinstance(address, str) and address.startswith("0x"):
            return int(address, 16)
        mapping = self.task.mapping(address)
        if not mapping.spans.cover(0, size):
            raise Unmodelled("a slot larger than its mapping")
        return 0

    def gmem_bind(self, vm: Vm, slot: Slot, fd: Result, offset: int) -> None:
        """kvm_gmem_bind(): the checks."""
        gmem = self.task.of_kind(fd, Gmem, EINVAL, OF_THIS_VM)
        if gmem.vm is not vm:
            raise Denied(EINVAL, OF_THIS_VM)
        if 0 <= signed(offset) <= MAX_LFS_FILESIZE < offset + slot.pages * PAGE_SIZE:
            raise Denied(EINVAL, END_BELOW)
        if signed(offset) < 0 or offset + slot.pages * PAGE_SIZE > gmem.size:
            raise Denied(EINVAL, INSIDE)
        pgoff = offset // PAGE_SIZE
        slot.file, slot.pgoff = gmem, pgoff
        slot.gmem_only = self.facts.file_only or bool(gmem.flags & GUEST_MEMFD_FLAG_MMAP)

    def may_bind(self, slot: Slot) -> None:
        """Whether no other slot has the range of the file."""
        assert slot.file is not None
        err = slot.file.may_bind(slot.pgoff, slot.pgoff + slot.pages)
        if err:
            raise Denied(Errno(-err), RANGE_BOUND)

    def delete_slot(self, vm: Vm, number: int) -> int:
        """KVM_MR_DELETE: everything goes from the VM's stage 2 (KVM_X86_QUIRK_SLOT_ZAP_ALL)."""
        slot = vm.slots.get(number)
        if slot is None:
            raise Denied(EINVAL, "only a slot that is there can be deleted")
        del vm.slots[number]
        self.zap_all(vm)
        if slot.file is not None:
            slot.file.unbind(slot)
        return 0

    def zap_all(self, vm: Vm) -> None:
        """Empty the VM's stage 2."""
        for gmem in vm.files:
            gmem.zap()

    def set_user_memory_region(self, vm: Result, slot: int, flags: int, gpa: int, size: int) -> Result:
        self.task.vm(vm)
        if flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY):
            raise Denied(EINVAL, "KVM_SET_USER_MEMORY_REGION knows nothing of guest_memfd")
        return self.set_user_memory_region2(vm, slot, flags, gpa, size, None, -1, 0)

    def create_vcpu(self, vm: Result) -> Result:
        owner = self.task.vm(vm)
        if owner.has_vcpu:
            raise Denied(EEXIST, "a vCPU number is used once")
        slots = (slot for number, slot in owner.slots.items() if number < ADDRESS_SPACE)
        taken = any(slot.overlaps(GUEST_GPA, GUEST_SIZE // PAGE_SIZE) for slot in slots)
        if taken or GUEST_SLOT in owner.slots:
            raise Unmodelled("a VM without room for the guest's program")
        owner.slots[GUEST_SLOT] = Slot(0, GUEST_GPA, GUEST_SIZE // PAGE_SIZE, "program")
        owner.has_vcpu = True
        owner.uses += 1
        return self.task.opened(Vcpu(owner))

    def run_bare(self, vm: Result) -> Result:
        """There is nothing where the first instruction should be, and what is not there cannot be emulated."""
        owner = self.task.vm(vm)
        if owner.has_vcpu:
            raise Denied(EEXIST, "a vCPU number is used once")
        if any(slot.overlaps(RESET & -PAGE_SIZE, 1) for slot in owner.slots.values()):
            raise Unmodelled("what a vCPU does with what it finds in memory")
        owner.has_vcpu = True
        return KVM_EXIT_INTERNAL_ERROR

    def guest_load(self, vcpu: Result, gpa: int) -> Result:
        return self.guest_access(vcpu, gpa, None)

    def guest_store(self, vcpu: Result, gpa: int, value: int) -> Result:
        self.guest_access(vcpu, gpa, value)
        return 0

    def guest_access(self, fd: Result, gpa: int, value: int | None) -> int:
        """The guest's stage 2 has the page, or the host provides it (kvm_gmem_get_pfn)."""
        vcpu = self.task.vcpu(fd)
        if gpa // GIB not in REACHED:
            raise Unmodelled("guest memory that the guest's page tables do not reach")
        vcpu.fault = None
        private = bool(vcpu.vm.private.at(gpa // PAGE_SIZE))
        try:
            return self.faulted_in(vcpu.vm, gpa, value, private)
        except Denied as denied:
            if denied.failure == EFAULT and denied.rule in MEMORY_FAULTS:
                vcpu.fault = gpa & -PAGE_SIZE, PAGE_SIZE, KVM_MEMORY_EXIT_FLAG_PRIVATE if private else 0
            raise

    def faulted_in(self, vm: Vm, gpa: int, value: int | None, private: bool) -> int:
        """kvm_mmu_faultin_pfn(), and the access."""
        slots = (slot for number, slot in vm.slots.items() if number < ADDRESS_SPACE)
        slot = next((slot for slot in slots if slot.overlaps(gpa & -PAGE_SIZE, 1)), None)
        if private and (slot is None or not slot.flags & KVM_MEM_GUEST_MEMFD):
            raise Denied(EFAULT, PRIVATE_OF_FILE)
        if slot is None:
            raise Denied(MMIO)
        if not private and not slot.gmem_only:
            return self.through_userspace(slot, gpa - slot.gpa, value)
        gmem = slot.file
        if gmem is None:
            raise Denied(EFAULT, FILE_CLOSED)
        if not aligned(slot.gpa - slot.pgoff * PAGE_SIZE, order=gmem.order):
            raise Unmodelled("huge pages in a slot where they are not aligned")
        place = gmem.at(slot.pgoff + (gpa - slot.gpa) // PAGE_SIZE)
        gfn = Gfn(place)
        with self.kernel.running():
            entry = gmem.guest.entries[gfn]
            if not entry.live:
                err = gmem.file.guest_fault(self.kernel.cpu, gmem.guest, gfn)
                if err:
                    raise Denied(Errno(-err), "a bound page can be faulted in")
            assert entry.frame is not None
            cells = self.kernel.cells(entry.frame)
            if value is not None:
                gmem.guest.touch(gfn)
                cells[gpa % PAGE_SIZE] = value & 0xFF
        return cells.get(gpa % PAGE_SIZE, 0)

    def through_userspace(self, slot: Slot, offset: int, value: int | None) -> int:
        """The guest's memory is what is mapped at userspace_addr (hva_to_pfn)."""
        if slot.flags & KVM_MEM_READONLY and value is not None:
            raise Denied(MMIO)
        if slot.address is None:
            raise Denied(EFAULT, "nothing is mapped at userspace_addr")
        mapping = self.task.maps.get(slot.address) if isinstance(slot.address, int) else None
        if mapping is None or not mapping.spans.cover(offset, offset + 1):
            raise Unmodelled("what else is mapped at a userspace_addr")
        with self.kernel.running():
            for cells, at, _ in self.users.gup(mapping, offset, 1, value is not None):
                if value is not None:
                    cells[at] = value & 0xFF
                return cells.get(at, 0)
        raise Denied(EFAULT, NOT_FAULTABLE)

    def vm_memory_attributes(self, vm: Result, gpa: int, size: int, attributes: int, flags: int) -> Result:
        """kvm_vm_ioctl_set_mem_attributes()."""
        owner = self.task.vm(vm)
        if not self.facts.attributes:
            raise Denied(Errno(self.facts.unknown_vm_ioctl), NOT_ITS_IOCTL)
        if flags or attributes & ~(KVM_MEMORY_ATTRIBUTE_PRIVATE if owner.protected and self.facts.protected else 0):
            raise Denied(EINVAL, "there is one attribute, of VMs with private memory, and no flag")
        if not size or gpa + size >= U64 or not aligned(gpa, size):
            raise Denied(EINVAL, WHOLE_PAGES)
        if size > 1 << 30:
            raise Unmodelled("ranges so large that KVM takes much memory for their attributes")
        first, last = gpa // PAGE_SIZE, (gpa + size) // PAGE_SIZE
        changed = any(start < last and end > first and was != attributes for start, end, was in owner.private)
        owner.private.set(first, last, attributes)
        with self.kernel.running():
            for slot in owner.slots.values() if changed else ():
                start, end = max(first, slot.gpa // PAGE_SIZE), min(last, slot.gpa // PAGE_SIZE + slot.pages)
                if slot.file is not None and start < end:
                    slot.file.zap_range(*(slot.pgoff + page - slot.gpa // PAGE_SIZE for page in (start, end)))
        return 0

    def memory_fault(self, fd: Result) -> Result:
        if not self.facts.memory_fault:
            raise Unmodelled("what an exit says where KVM has no KVM_CAP_MEMORY_FAULT_INFO")
        fault = self.task.vcpu(fd).fault
        if fault is None:
            raise Denied(NO_FAULT)
        return fault

    def pre_fault(self, fd: Result, gpa: int, size: int, flags: int) -> Result:
        """kvm_vcpu_pre_fault_memory(): a page that cannot be had ends it, and is an error only if it is the first."""
        vcpu = self.task.vcpu(fd)
        if flags or not aligned(gpa, size) or not gpa < (gpa + size) % U64:
            raise Denied(EINVAL, "the range is whole pages, and not empty")
        if not self.facts.pre_faults:
            raise Denied(Errno(self.facts.no_pre_fault), "KVM can pre-fault")
        for done in range(0, size, PAGE_SIZE):
            if (gpa + done) // GIB not in REACHED:
                raise Unmodelled("guest memory that the guest's page tables do not reach")
            try:
                self.faulted_in(vcpu.vm, gpa + done, None, bool(vcpu.vm.private.at((gpa + done) // PAGE_SIZE)))
            except Denied as denied:
                if done:
                    return size - done
                raise Denied(ENOENT if denied.failure == MMIO else denied.failure, denied.rule) from None
        return 0

    def pages_4k(self, vm: Result) -> Result:
        return sum(gmem.live() for gmem in self.counted(vm).files)

    def pages_huge(self, vm: Result) -> Result:
        return sum(gmem.blocks() for gmem in self.counted(vm).files)

    def counted(self, vm: Result) -> Vm:
        """A VM whose stage-2 entries can be told."""
        if isinstance(self.task.file(vm), Vcpu):
            raise Unmodelled("the statistics of a vCPU")
        owner = self.task.vm(vm)
        if any(isinstance(slot.address, int) for slot in owner.slots.values()):
            raise Unmodelled("entries that MMU notifiers of userspace_addr take away as well")
        return owner
