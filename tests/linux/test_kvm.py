# SPDX-License-Identifier: Apache-2.0
"""The bindings: what is asked of the kernel arrives unchanged, errors say what it was, and everything closes."""

import contextlib
import errno
import gc
import os
import pickle
import platform
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from itertools import permutations

import pytest

from guestmem.linux import calls, uapi
from guestmem.linux.calls import PAGE_SIZE, CallError, Closed, Descriptor, Mapping
from guestmem.linux.guest import MAX_PAGES, Guest, real_mode
from guestmem.linux.gunyah import GH_VM_ANDROID_LEND_USER_MEM, GH_VM_SET_USER_MEM_REGION, Gunyah
from guestmem.linux.kvm import GuestMemfd, Kvm, Vcpu, Vm, filled
from guestmem.linux.secretmem import SecretMem
from requires import require

SHARED = uapi.GUEST_MEMFD_FLAG_MMAP | uapi.GUEST_MEMFD_FLAG_INIT_SHARED
TOP = 1 << 63


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"slot": 1 << 32}, "slot: 0x100000000 does not fit 32 bits"),
        ({"slot": 1, "guest_phys_addr": 1 << 64}, "guest_phys_addr: 0x10000000000000000 does not fit 64 bits"),
        ({"guest_memfd": -(1 << 31) - 1}, "guest_memfd: -0x80000001 does not fit 32 bits"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(values: dict[str, int], says: str) -> None:
    with pytest.raises(OverflowError, match=re.escape(says)):
        filled(uapi.kvm_userspace_memory_region2, **values)


def test_a_number_that_fits_arrives() -> None:
    region = filled(uapi.kvm_userspace_memory_region2, slot=(1 << 32) - 1, guest_phys_addr=-1, guest_memfd=-1)
    assert (region.slot, region.guest_phys_addr, region.guest_memfd) == ((1 << 32) - 1, (1 << 64) - 1, (1 << 32) - 1)


def descriptors() -> set[str]:
    gc.collect()
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    require("kvm")
    with Kvm() as opened:
        yield opened


@pytest.fixture
def vm(kvm: Kvm) -> Iterator[Vm]:
    with kvm.create_vm() as made:
        if not made.check_extension(uapi.KVM_CAP_GUEST_MEMFD):
            pytest.skip("KVM has no guest_memfd (KVM_CAP_GUEST_MEMFD)")
        yield made


@pytest.fixture
def shared(vm: Vm) -> Iterator[GuestMemfd]:
    """Sixteen pages that the host may touch."""
    if vm.check_extension(uapi.KVM_CAP_GUEST_MEMFD_FLAGS) & SHARED != SHARED:
        pytest.skip("guest_memfd has no flags MMAP and INIT_SHARED (KVM_CAP_GUEST_MEMFD_FLAGS)")
    with vm.create_guest_memfd(16 * PAGE_SIZE, SHARED) as file:
        yield file


def fails(number: int, call: object, *arguments: object, **more: object) -> CallError:
    assert callable(call)
    with pytest.raises(CallError) as caught:
        call(*arguments, **more)
    assert errno.errorcode[caught.value.errno or 0] == errno.errorcode[number]
    return caught.value


# ---- errors


def test_an_error_says_the_call_and_its_arguments() -> None:
    error = fails(errno.EBADF, calls.fallocate, -1, 3, TOP, 4096)
    assert isinstance(error, OSError)
    assert (error.call, error.arguments) == ("fallocate", {"fd": -1, "mode": 3, "offset": TOP, "length": 4096})
    text = "fallocate(fd=-1, mode=3, offset=0x8000000000000000, length=0x1000): EBADF: Bad file descriptor"
    assert str(error) == text
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.errno, again.arguments) == (text, errno.EBADF, error.arguments)


def test_offsets_arrive_with_all_their_64_bits() -> None:
    """The VFS tells the edges apart: a negative offset or length is EINVAL, an end past 2^63 - 1 is EFBIG."""
    with Descriptor(os.memfd_create("edges")) as file:
        fd = file.fileno()
        keep = uapi.FALLOC_FL_KEEP_SIZE
        punch = keep | uapi.FALLOC_FL_PUNCH_HOLE
        for offset, length in ((TOP, 1), (-1, 1), (0, TOP), (0, -1), (2**64 - 4096, 4096), (0, 0)):
            fails(errno.EINVAL, calls.fallocate, fd, punch, offset, length)
        fails(errno.EFBIG, calls.fallocate, fd, punch, TOP - 1, 2)
        calls.fallocate(fd, punch, TOP - 2, 1)
        assert calls.cachestat(fd, TOP - 1, 1).cache == 0


def test_memory_is_mapped_where_the_kernel_says() -> None:
    anonymous = uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS
    with Mapping(calls.mmap(0, 2 * PAGE_SIZE, 3, anonymous), 2 * PAGE_SIZE) as mapping:
        mapping.write(b"guest", PAGE_SIZE)
        assert mapping.read(PAGE_SIZE, 5) == b"guest"
        mapping.fill(7, 0, PAGE_SIZE)
        assert mapping.read(0, PAGE_SIZE) == b"\x07" * PAGE_SIZE
        mapping.madvise(uapi.MADV_DONTNEED)
        assert mapping.read(0, 2 * PAGE_SIZE) == bytes(2 * PAGE_SIZE)
        for offset, size in ((-1, 1), (0, 2 * PAGE_SIZE + 1), (2 * PAGE_SIZE, 1), (0, -1)):
            with pytest.raises(IndexError):
                mapping.read(offset, size)
        fails(errno.EINVAL, calls.madvise, mapping.address + 1, PAGE_SIZE, uapi.MADV_DONTNEED)
    with pytest.raises(Closed, match="Mapping is closed"):
        mapping.read()
    fails(errno.EINVAL, calls.mmap, 0, 0, 3, anonymous)
    fails(errno.EINVAL, calls.munmap, 1, PAGE_SIZE)
    fails(errno.ENOMEM, calls.mprotect, 0, PAGE_SIZE, 1)
    fails(errno.ENOMEM, calls.msync, 0, PAGE_SIZE, uapi.MS_SYNC)
    fails(errno.ENOMEM, calls.mlock, 0, PAGE_SIZE)
    fails(errno.ENOMEM, calls.munlock, 0, PAGE_SIZE)


def test_residency_is_counted_by_range() -> None:
    with GuestMemfd(os.memfd_create("cached")) as file:
        os.ftruncate(file.fileno(), 8 * PAGE_SIZE)
        file.allocate(0, 3 * PAGE_SIZE)
        assert (file.resident(), file.resident(PAGE_SIZE, PAGE_SIZE), file.resident(3 * PAGE_SIZE)) == (3, 1, 0)
        fails(errno.EINVAL, calls.cachestat, file.fileno(), 0, 0, 1)
    fails(errno.EBADF, calls.cachestat, 9999)


# ---- KVM


def test_a_guest_memfd_from_creation_to_a_hole(vm: Vm, shared: GuestMemfd) -> None:
    assert shared.size() == 16 * PAGE_SIZE
    assert shared.stat().st_blocks == 0
    shared.allocate(0, 4 * PAGE_SIZE)
    with shared.mmap() as mapping:
        mapping.write(b"kept", 8 * PAGE_SIZE)
        assert shared.resident() == 5
        shared.punch(0, 2 * PAGE_SIZE)
        assert (shared.resident(), shared.resident(0, 2 * PAGE_SIZE)) == (3, 0)
        assert mapping.read(8 * PAGE_SIZE, 4) == b"kept"
        shared.punch(0, 2**63 - PAGE_SIZE)
        assert shared.resident() == 0


def test_what_is_not_legal_is_refused_with_its_errno(vm: Vm, shared: GuestMemfd) -> None:
    for size in (0, 1, PAGE_SIZE + 1, TOP, 2**64 - PAGE_SIZE, -1):
        error = fails(errno.EINVAL, vm.create_guest_memfd, size)
        assert error.arguments["size"] == size
    fails(errno.EINVAL, vm.create_guest_memfd, PAGE_SIZE, TOP)
    fails(errno.EINVAL, shared.mmap, flags=uapi.MAP_PRIVATE)
    fails(errno.EINVAL, shared.allocate, 0, 1)
    with vm.create_guest_memfd(PAGE_SIZE) as private:
        fails(errno.ENODEV, private.mmap)
        fails(errno.EBADF, vm.set_user_memory_region2, 0, 0, PAGE_SIZE, guest_memfd=9999)
        vm.set_user_memory_region2(0, 0, PAGE_SIZE, guest_memfd=private)
        fails(errno.EINVAL, vm.set_user_memory_region2, 0, 0, PAGE_SIZE, guest_memfd=private)
        fails(errno.EEXIST, vm.set_user_memory_region2, 1, 0, PAGE_SIZE, guest_memfd=shared)
        vm.delete_slot(0)
        fails(errno.EINVAL, vm.delete_slot, 0)


def test_attributes_are_there_or_say_that_they_are_not(vm: Vm, shared: GuestMemfd) -> None:
    if not vm.check_extension(uapi.KVM_CAP_MEMORY_ATTRIBUTES):
        error = fails(errno.ENOTTY, vm.set_memory_attributes, 0, PAGE_SIZE, uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE)
        assert error.call == "KVM_SET_MEMORY_ATTRIBUTES"
    with pytest.raises(CallError) as caught:
        shared.set_memory_attributes(0, PAGE_SIZE + 1, 1 << 40)
    assert caught.value.errno in (errno.ENOTTY, errno.EINVAL)
    assert caught.value.arguments["error_offset"] == 0


def test_statistics_have_names_and_values(vm: Vm) -> None:
    statistics = vm.statistics()
    assert statistics["pages_4k"].values == (0,)
    assert statistics["pages_4k"].flags & uapi.KVM_STATS_TYPE_MASK == uapi.KVM_STATS_TYPE_INSTANT


def test_everything_closes_in_any_order(kvm: Kvm, vm: Vm) -> None:
    before = descriptors()
    mappings = sum("kvm-gmem" in line for line in open("/proc/self/maps"))  # noqa: SIM115
    orders = list(permutations(range(4)))
    for order in random.Random(1).sample(orders, 8):
        made = kvm.create_vm()
        file = made.create_guest_memfd(PAGE_SIZE, SHARED)
        mapping = file.mmap()
        vcpu = made.create_vcpu()
        made.set_user_memory_region2(0, 0, PAGE_SIZE, mapping.address, guest_memfd=file)
        things: list[Descriptor | Mapping] = [made, file, mapping, vcpu]
        for at in order:
            things[at].close()
            things[at].close()
            assert things[at].closed
        with pytest.raises(Closed, match="GuestMemfd is closed"):
            file.allocate(0, PAGE_SIZE)
        del made, file, mapping, vcpu, things
    assert descriptors() == before
    assert sum("kvm-gmem" in line for line in open("/proc/self/maps")) == mappings  # noqa: SIM115


def test_what_is_forgotten_is_closed(kvm: Kvm) -> None:
    before = descriptors()
    vm = kvm.create_vm()
    file = vm.create_guest_memfd(PAGE_SIZE)
    vcpu = vm.create_vcpu()
    assert len(descriptors()) == len(before) + 3
    del vm, file, vcpu
    assert descriptors() == before


def test_no_kvm_is_an_error_with_its_path() -> None:
    assert (
        str(fails(errno.ENOENT, Kvm, "/nowhere/kvm"))
        == "open(path=/nowhere/kvm, flags=0x80002): ENOENT: No such file or directory"
    )
    fails(errno.ENOTTY, lambda: Kvm("/dev/null").create_vm())


# ---- guests


def test_a_guest_in_real_mode_writes_to_a_port(kvm: Kvm) -> None:
    assert real_mode(kvm) == b"AB"


@contextlib.contextmanager
def booted(kvm: Kvm, vm: Vm, file: GuestMemfd, program: str) -> Iterator[tuple[Vcpu, Mapping]]:
    """A guest in real mode that begins with a program at 0x1000, and its memory, 0x4000 bytes."""
    with file.mmap() as memory:
        memory.write(bytes.fromhex(program), 0x1000)
        vm.set_tss_addr()
        vm.set_user_memory_region2(0, 0, 4 * PAGE_SIZE, memory.address, guest_memfd=file)
        with vm.create_vcpu() as vcpu:
            vcpu.set_cpuid(kvm.supported_cpuid())
            sregs = vcpu.sregs()
            sregs.cs.base = sregs.cs.selector = 0
            vcpu.set_sregs(sregs)
            vcpu.set_regs(uapi.kvm_regs(rip=0x1000, rflags=2))
            yield vcpu, memory


@pytest.mark.skipif(platform.machine() != "x86_64", reason="real mode is one of x86-64")
def test_a_guest_gets_what_it_reads(kvm: Kvm, vm: Vm, shared: GuestMemfd) -> None:
    """mov edi, 0x2000; mov dx, 0x60; mov cx, 3; rep insb; mov eax, [0x8000]; stosd; out 0x61, al; hlt."""
    program = "66bf00200000 ba6000 b90300 f36c 66a10080 66ab e661 f4"
    with booted(kvm, vm, shared, program) as (vcpu, memory):
        with pytest.raises(ValueError, match="exit reason 0 has no answer"):
            vcpu.answer(b"")
        port = iter(b"abc")
        while (exit := vcpu.run()).reason == uapi.KVM_EXIT_IO and not exit.write:
            assert (exit.address, exit.data) == (0x60, b"")
            vcpu.answer(bytes(next(port) for _ in range(exit.size)))
        assert (exit.reason, exit.address, exit.size, exit.write, exit.data) == (uapi.KVM_EXIT_MMIO, 0x8000, 4, False, b"")
        with pytest.raises(ValueError, match="2 bytes: the guest reads 4, give as many"):
            vcpu.answer(b"xy")
        vcpu.answer(b"ZXCV")
        exit = vcpu.run()
        assert (exit.reason, exit.address, exit.write, exit.data) == (uapi.KVM_EXIT_IO, 0x61, True, b"Z")
        with pytest.raises(ValueError, match="the guest writes: answer a read"):
            vcpu.answer(b"x")
        assert vcpu.run().reason == uapi.KVM_EXIT_HLT
        with pytest.raises(ValueError, match="exit reason 5 has no answer"):
            vcpu.answer(b"x")
        assert memory.read(0x2000, 8) == b"abcZXCV\0"


def test_a_guest_stores_to_and_loads_from_its_guest_memfd(kvm: Kvm, vm: Vm, shared: GuestMemfd) -> None:
    with shared.mmap() as mapping, Guest(kvm, vm, 16, memory=shared, userspace_addr=mapping.address) as guest:
        guest.store(0, 8, 0x5A)
        assert (shared.resident(), guest.load(0, 8), guest.load(8)) == (8, 8 * 0x5A, 0)
        assert mapping.read(7 * PAGE_SIZE) == b"\x5a"
        mapping.write(b"\x01", 3 * PAGE_SIZE)
        assert guest.load(3) == 1
        before = guest.mapped()
        shared.punch(0, 4 * PAGE_SIZE)
        assert guest.mapped() == before - 4
        assert guest.load(0, 8) == 4 * 0x5A
        guest.store(15, 4, 7, step=-1)
        assert guest.load(12, 4) == 28
    with pytest.raises(ValueError, match=f"a guest has 1 to {MAX_PAGES}"):
        Guest(kvm, vm, MAX_PAGES + 1, memory=shared)


def test_a_guest_without_its_file_comes_back_with_a_memory_fault(kvm: Kvm, vm: Vm) -> None:
    with vm.create_guest_memfd(4 * PAGE_SIZE, SHARED) as file, Guest(kvm, vm, 4, memory=file) as guest:
        file.close()
        exit = guest.try_store(1)
    assert (exit.reason, exit.errno) == (uapi.KVM_EXIT_MEMORY_FAULT, errno.EFAULT)
    assert (exit.address, exit.size, exit.flags) == (0x201000, PAGE_SIZE, 0)


def test_a_signal_or_immediate_exit_ends_a_run(kvm: Kvm, vm: Vm, shared: GuestMemfd) -> None:
    with shared.mmap() as mapping, Guest(kvm, vm, 16, memory=shared, userspace_addr=mapping.address) as guest:
        guest.vcpu.set_immediate_exit(True)
        fails(errno.EINTR, guest.store, 0)
        guest.vcpu.set_immediate_exit(False)
        old = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            fails(errno.EINTR, guest.store, 0, 1 << 40, step=0)
        finally:
            signal.signal(signal.SIGALRM, old)


def test_a_guest_runs_while_another_thread_punches(kvm: Kvm, vm: Vm, shared: GuestMemfd) -> None:
    """The bindings do not hold Python's lock while the guest runs."""
    with shared.mmap() as mapping, Guest(kvm, vm, 16, memory=shared, userspace_addr=mapping.address) as guest:
        thread = threading.Thread(target=guest.store, args=(0, 1 << 25), kwargs={"step": 0})
        thread.start()
        punches = 0
        while thread.is_alive():
            shared.punch(0, PAGE_SIZE)
            punches += 1
            time.sleep(0.0005)
        thread.join()
        assert punches > 1
        guest.store(0, 16, 3)
        assert guest.load(0, 16) == 48


def test_kvm_region_without_guest_memfd(kvm: Kvm, vm: Vm) -> None:
    anonymous = uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS
    with Mapping(calls.mmap(0, 4 * PAGE_SIZE, 3, anonymous), 4 * PAGE_SIZE) as memory:
        vm.set_user_memory_region(5, uapi.KVM_MEM_LOG_DIRTY_PAGES, 1 << 30, memory.length, memory.address)
        fails(errno.EINVAL, vm.set_user_memory_region, 6, uapi.KVM_MEM_GUEST_MEMFD, 0, PAGE_SIZE, memory.address)
        with Guest(kvm, vm, 4, userspace_addr=memory.address) as guest:
            guest.store(0, 4, 9)
            assert guest.load(0, 4) == 36
        assert memory.read(3 * PAGE_SIZE) == b"\x09"


# ---- memfd_secret, Gunyah


def test_secret_memory_has_a_size_once_and_no_page_until_it_is_touched() -> None:
    try:
        secret = SecretMem()
    except CallError as error:
        pytest.skip(str(error))
    with secret:
        secret.truncate(2 * PAGE_SIZE)
        with pytest.raises(OSError, match="Invalid argument"):
            secret.truncate(PAGE_SIZE)
        with secret.mmap(2 * PAGE_SIZE):
            assert secret.cachestat().cache == 0
        fails(errno.EINVAL, secret.mmap, PAGE_SIZE, flags=uapi.MAP_PRIVATE)
    fails(errno.EINVAL, SecretMem, 1 << 20)


def test_gunyahs_numbers_are_those_of_its_header() -> None:
    assert (GH_VM_SET_USER_MEM_REGION, GH_VM_ANDROID_LEND_USER_MEM) == (0x40204701, 0x40204111)
    if not os.path.exists("/dev/gunyah"):
        fails(errno.ENOENT, Gunyah)
