# SPDX-License-Identifier: Apache-2.0
"""The real kernel as a host of the contract, through the bindings of ``guestmem.linux``.

It takes the signals SIGBUS and SIGSEGV of its process and leaves memory mapped where it likes, so it belongs into a
process of its own: see ``worker``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap as mmaps
import os
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from guestmem.contract.host import NO_MAPPING, PAGE_SIZE, Host, Missing, Result, Signal, Spans, Stat, page_end
from guestmem.contract.kernel.access import Access, Fault
from guestmem.contract.kernel.cgroup import MemoryCgroup
from guestmem.contract.kernel.files import PERFORM
from guestmem.contract.kernel.guest import ContractGuest
from guestmem.linux import calls, uapi
from guestmem.linux.calls import iovec, libc, syscall
from guestmem.linux.kvm import KVM_SET_MEMORY_ATTRIBUTES2, Kvm, kvm_memory_attributes2, statistics_table
from guestmem.linux.process import Lost, in_child

__all__ = ["KernelHost"]

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1
MREMAP_MAYMOVE = 1
CAP_IPC_LOCK = 14  # include/uapi/linux/capability.h
UFFD_API, UFFD_USER_MODE_ONLY = 0xAA, 1  # include/uapi/linux/userfaultfd.h, as the two below
UFFDIO_API, UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00
IORING_REGISTER_BUFFERS, IORING_UNREGISTER_BUFFERS = 0, 1
KEEP, PUNCH = uapi.FALLOC_FL_KEEP_SIZE, uapi.FALLOC_FL_KEEP_SIZE | uapi.FALLOC_FL_PUNCH_HOLE


class Kept:
    """What is kept for the descriptors of one open file description, until the last of them is closed."""

    uses = 0

    def let_go(self) -> None:
        """The last descriptor goes."""


class KeptVm(Kept):
    """Of a VM: its vCPU, and its statistics."""

    vcpu: KeptVcpu | None = None
    stats: StatsFile | None = None

    def let_go(self) -> None:
        if self.stats is not None:
            self.stats.close()


class KeptVcpu(Kept):
    """Of a vCPU: its guest, as long as it is open."""

    def __init__(self, guest: ContractGuest) -> None:
        self.guest: ContractGuest | None = guest

    def let_go(self) -> None:
        assert self.guest is not None
        self.guest.close()
        self.guest = None


class KeptRing(Kept):
    """Of an io_uring with a buffer: the ring, which goes back to the others of its process."""

    def __init__(self, ring: int, rings: list[int]) -> None:
        self.ring = ring
        self.rings = rings
        self.process = os.getpid()

    def let_go(self) -> None:
        if os.getpid() == self.process:
            syscall("io_uring_register", fd=self.ring, opcode=IORING_UNREGISTER_BUFFERS, argument=None, count=0)
            self.rings.append(self.ring)


class KeptPipe(Kept):
    """Of a pipe."""


class KernelHost(Host):
    """The contract's user-space interface on this kernel.

    Raises OSError when there is no KVM to open.
    """

    name = "kernel"

    def __init__(self) -> None:
        self.kvm = Kvm()
        self.access = Access()
        self.fds: dict[int, tuple[int, Kept]] = {}
        self.maps: dict[int, tuple[int, Spans]] = {}
        self.rings: list[int] = []
        self.next = 0
        self.anonymous = calls.mmap(0, PAGE_SIZE, 3, uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS)
        self.pipe = os.pipe()
        self.disk = -1
        self.can_lock = capable(CAP_IPC_LOCK)

    def finish(self) -> Result:
        for address, spans in self.maps.values():
            for start, end, _ in spans:
                calls.munmap(address + start, end - start)
        self.maps.clear()
        for handle in list(self.fds):
            self.close(handle)
        self.next = 0
        return 0

    # ---- handles

    def handle(self) -> int:
        """A new handle."""
        self.next += 1
        return self.next - 1

    def opened(self, fd: int, kept: Kept | None = None) -> int:
        """The handle of a new descriptor, of something new or of what others are descriptors of as well."""
        handle = self.handle()
        kept = kept or Kept()
        kept.uses += 1
        self.fds[handle] = fd, kept
        return handle

    def fd(self, handle: Result) -> int:
        """The descriptor, or one that is not open."""
        return self.fds[handle][0] if isinstance(handle, int) and handle in self.fds else -1

    def valid(self, handle: Result) -> tuple[int, Kept]:
        """The descriptor and what is kept for it.  Raises OSError EBADF where there is none."""
        if not isinstance(handle, int) or handle not in self.fds:
            raise OSError(errno.EBADF, "no descriptor")
        return self.fds[handle]

    def at(self, mapping: Result, offset: int, length: int = 0) -> int:
        """The address of a range of a mapping."""
        there = self.maps.get(mapping) if isinstance(mapping, int) else None
        if there is None or offset < 0 or length < 0 or not there[1].cover(offset, offset + length):
            raise Signal(NO_MAPPING)
        return there[0] + offset

    # ---- descriptors

    def create_vm(self, kind: int = 0) -> Result:
        return self.opened(calls.ioctl(self.kvm.fileno(), "KVM_CREATE_VM", uapi.KVM_CREATE_VM, kind), KeptVm())

    def create_guest_memfd(self, vm: Result, size: int, flags: int) -> Result:
        argument = uapi.kvm_create_guest_memfd(size & MASK64, flags & MASK64)
        return self.opened(calls.ioctl(self.fd(vm), "KVM_CREATE_GUEST_MEMFD", uapi.KVM_CREATE_GUEST_MEMFD, argument))

    def memfd_create(self, size: int) -> Result:
        fd = os.memfd_create("guestmem", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        return self.opened(fd)

    def memfd_secret(self, flags: int) -> Result:
        try:
            return self.opened(calls.memfd_secret(flags))
        except OSError as error:
            if error.errno == errno.ENOSYS:
                raise Missing("memfd_secret: ENOSYS (CONFIG_SECRETMEM, secretmem.enable=1)") from error
            raise

    def check_extension(self, fd: Result, capability: int) -> Result:
        return calls.ioctl(self.fd(fd), "KVM_CHECK_EXTENSION", uapi.KVM_CHECK_EXTENSION, capability)

    def guest_physical_bits(self, vm: Result) -> Result:
        for bits in range(52, 32, -1):
            with self.kvm.create_vm() as scratch, contextlib.suppress(OSError):
                scratch.set_user_memory_region2(0, (1 << bits) - PAGE_SIZE, PAGE_SIZE, self.anonymous)
                return bits
        raise Missing("a guest-physical address space of more than 32 bits")

    def dup(self, fd: Result) -> Result:
        real, kept = self.valid(fd)
        return self.opened(fcntl.fcntl(real, fcntl.F_DUPFD, 0), kept)

    def pass_descriptor(self, fd: Result) -> Result:
        real, kept = self.valid(fd)
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with left, right:
            socket.send_fds(left, [b"x"], [real])
            _, received, _, _ = socket.recv_fds(right, 1, 1)
        return self.opened(received[0], kept)

    def close(self, fd: Result) -> Result:
        real, kept = self.valid(fd)
        assert isinstance(fd, int)
        del self.fds[fd]
        kept.uses -= 1
        if not kept.uses:
            kept.let_go()
        os.close(real)
        return 0

    def in_child(self, operation: str, *arguments: Any) -> Result:
        return child(lambda: getattr(self, operation)(*arguments))

    # ---- the file

    def fstat(self, fd: Result) -> Result:
        stat = os.fstat(self.valid(fd)[0])
        return Stat(stat.st_size, stat.st_mode, stat.st_blksize, stat.st_blocks)

    def descriptor_flags(self, fd: Result) -> Result:
        real, _ = self.valid(fd)
        return fcntl.fcntl(real, fcntl.F_GETFD), fcntl.fcntl(real, fcntl.F_GETFL)

    def same_inode(self, one: Result, other: Result) -> Result:
        return int(os.path.sameopenfile(self.valid(one)[0], self.valid(other)[0]))

    def fallocate(self, fd: Result, mode: int, offset: int, length: int) -> Result:
        calls.fallocate(self.fd(fd), mode, offset, length)
        return 0

    def set_memory_attributes(self, fd: Result, offset: int, size: int, attributes: int, flags: int) -> Result:
        argument = kvm_memory_attributes2(offset, size & MASK64, attributes, flags)
        try:
            return calls.ioctl(self.fd(fd), "KVM_SET_MEMORY_ATTRIBUTES2", KVM_SET_MEMORY_ATTRIBUTES2, argument)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise Signal(f"EAGAIN +{argument.error_offset:#x}") from error
            raise

    def fallocate_signalled(self, fd: Result, length: int) -> Result:
        signal.signal(signal.SIGALRM, lambda *_: None)
        result: tuple[int, int] | None = None
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.004)
            try:
                calls.fallocate(self.fd(fd), KEEP, 0, length)
            except OSError as error:
                result = error.errno or 0, int(0 < calls.cachestat(self.fd(fd)).cache < length // PAGE_SIZE)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                calls.fallocate(self.fd(fd), PUNCH, 0, length)
            if result is not None and result[-1]:  # otherwise it came before the first page: once more
                return result
        if result is None:
            raise Missing("a kernel slow enough to be interrupted: the signal came too late")
        return result

    def cachestat(self, fd: Result, offset: int, length: int) -> Result:
        try:
            return calls.cachestat(self.fd(fd), offset, length).cache
        except OSError as error:
            if error.errno == errno.ENOSYS:
                raise Missing("cachestat(2): ENOSYS (Linux 6.5)") from error
            raise

    def file_operation(self, fd: Result, operation: str, offset: int = 0) -> Result:
        real, _ = self.valid(fd)
        return PERFORM[operation](real, offset)

    # ---- mappings

    def mmap(self, fd: Result, length: int, prot: int, flags: int, offset: int) -> Result:
        if flags & uapi.MAP_FIXED:
            raise ValueError("MAP_FIXED would replace memory of the host")
        if flags & uapi.MAP_LOCKED:
            self.may_lock()
        address = calls.mmap(0, length, prot, flags, self.fd(fd), offset)
        handle = self.handle()
        self.maps[handle] = address, Spans(page_end(length), 0)
        return handle

    def munmap(self, mapping: Result, offset: int = 0, length: int | None = None) -> Result:
        address = self.at(mapping, offset, length or 0)
        assert isinstance(mapping, int)
        _, spans = self.maps[mapping]
        if length is None:
            # What lies in the gaps is somebody else's.
            for start, end, _ in spans:
                calls.munmap(address + start, end - start)
            del self.maps[mapping]
            return 0
        calls.munmap(address, length)
        spans.remove(offset, page_end(offset + length))
        if not spans.parts:
            del self.maps[mapping]
        return 0

    def mremap(self, mapping: Result, length: int) -> Result:
        address = self.at(mapping, 0)
        assert isinstance(mapping, int)
        moved = libc("mremap", address=address, old=self.maps[mapping][1].end(), new=length, flags=MREMAP_MAYMOVE)
        self.maps[mapping] = moved, Spans(page_end(length), 0)
        return 0

    def mprotect(self, mapping: Result, offset: int, length: int, prot: int) -> Result:
        calls.mprotect(self.at(mapping, offset, length), length, prot)
        return 0

    def madvise(self, mapping: Result, offset: int, length: int, advice: int) -> Result:
        calls.madvise(self.at(mapping, offset, length), length, advice)
        return 0

    def mlock(self, mapping: Result, offset: int, length: int) -> Result:
        self.may_lock()
        calls.mlock(self.at(mapping, offset, length), length)
        return 0

    def may_lock(self) -> None:
        """Raises :class:`Missing` where locking more memory than this process may would be refused for that alone."""
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if limit != resource.RLIM_INFINITY and not self.can_lock:
            raise Missing("locked memory: CAP_IPC_LOCK, or ulimit -l unlimited")

    def munlock(self, mapping: Result, offset: int, length: int) -> Result:
        calls.munlock(self.at(mapping, offset, length), length)
        return 0

    def msync(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        calls.msync(self.at(mapping, offset, length), length, flags)
        return 0

    def userfaultfd_register(self, mapping: Result, offset: int, length: int, mode: int) -> Result:
        argument = (ctypes.c_uint64 * 4)(self.at(mapping, offset, length), length, mode)
        try:
            fd = syscall("userfaultfd", flags=os.O_CLOEXEC | UFFD_USER_MODE_ONLY)
        except OSError as error:
            raise Missing(f"userfaultfd: {os.strerror(error.errno or 0)}") from error
        with calls.Descriptor(fd):
            calls.ioctl(fd, "UFFDIO_API", UFFDIO_API, (ctypes.c_uint64 * 3)(UFFD_API))
            return calls.ioctl(fd, "UFFDIO_REGISTER", UFFDIO_REGISTER, argument)

    def load(self, mapping: Result, offset: int) -> Result:
        return self.accessed(offset, self.access.load(self.at(mapping, offset, 1)), self.at(mapping, 0))

    def store(self, mapping: Result, offset: int, value: int) -> Result:
        return self.accessed(offset, self.access.store(self.at(mapping, offset, 1), value), self.at(mapping, 0))

    def accessed(self, offset: int, result: int | Fault, start: int) -> int:
        """A byte, or the signal."""
        if isinstance(result, Fault):
            raise Signal(f"{signal.Signals(result.signal).name} {result.address - start:+#x}")
        return result

    # ---- VMs

    def set_user_memory_region2(
        self, vm: Result, slot: int, flags: int, gpa: int, size: int, address: Result | None, fd: Result, offset: int
    ) -> Result:
        if isinstance(address, str) and address.startswith("0x"):
            hva = int(address, 16)
        else:
            hva = 0 if address is None else self.at(address, 0)
        argument = uapi.kvm_userspace_memory_region2(
            slot & MASK32, flags & MASK32, gpa & MASK64, size & MASK64, hva, offset & MASK64, self.fd(fd) & MASK32
        )
        name, request = "KVM_SET_USER_MEMORY_REGION2", uapi.KVM_SET_USER_MEMORY_REGION2
        return calls.ioctl(self.fd(vm), name, request, argument)

    def set_user_memory_region(self, vm: Result, slot: int, flags: int, gpa: int, size: int) -> Result:
        argument = uapi.kvm_userspace_memory_region(slot & MASK32, flags & MASK32, gpa & MASK64, size & MASK64, 0)
        name, request = "KVM_SET_USER_MEMORY_REGION", uapi.KVM_SET_USER_MEMORY_REGION
        return calls.ioctl(self.fd(vm), name, request, argument)

    def create_vcpu(self, vm: Result) -> Result:
        guest = ContractGuest(self.kvm, self.fd(vm))
        kept = KeptVcpu(guest)
        _, owner = self.valid(vm)
        assert isinstance(owner, KeptVm)
        owner.vcpu = kept
        return self.opened(guest.descriptor(), kept)

    def guest(self, vcpu: Result) -> ContractGuest:
        """The guest of a vCPU."""
        real, kept = self.valid(vcpu)
        if not isinstance(kept, KeptVcpu) or kept.guest is None:
            calls.ioctl(real, "KVM_RUN", uapi.KVM_RUN)
            raise OSError(errno.ENOTTY, "no vCPU")
        return kept.guest

    def guest_load(self, vcpu: Result, gpa: int) -> Result:
        return self.guest(vcpu).load(gpa)

    def guest_store(self, vcpu: Result, gpa: int, value: int) -> Result:
        return self.guest(vcpu).store(gpa, value)

    def pages_4k(self, vm: Result) -> Result:
        real, kept = self.valid(vm)
        if not isinstance(kept, KeptVm):
            calls.ioctl(real, "KVM_GET_STATS_FD", uapi.KVM_GET_STATS_FD)
            raise OSError(errno.ENOTTY, "no VM")
        if kept.stats is None:
            kept.stats = StatsFile(calls.ioctl(real, "KVM_GET_STATS_FD", uapi.KVM_GET_STATS_FD))
        guest = kept.vcpu.guest if kept.vcpu else None
        if guest is None:
            return kept.stats.pages_4k()
        guest.idle()
        return kept.stats.pages_4k() - guest.program_pages

    # ---- users through GUP, and copies of the kernel

    def process_vm_readv(self, mapping: Result, offset: int, length: int) -> Result:
        remote = iovec(self.at(mapping, offset, length), length)
        buffer = ctypes.create_string_buffer(length or 1)
        local = iovec(ctypes.addressof(buffer), length)
        done = libc("process_vm_readv", pid=os.getpid(), local=local, locals=1, remote=remote, remotes=1, flags=0)
        return buffer.raw[:done]

    def process_vm_writev(self, mapping: Result, offset: int, data: bytes) -> Result:
        remote = iovec(self.at(mapping, offset, len(data)), len(data))
        buffer = ctypes.create_string_buffer(data, len(data) or 1)
        local = iovec(ctypes.addressof(buffer), len(data))
        return libc("process_vm_writev", pid=os.getpid(), local=local, locals=1, remote=remote, remotes=1, flags=0)

    def proc_mem_read(self, mapping: Result, offset: int, length: int) -> Result:
        address = self.at(mapping, offset, length)
        fd = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, length, address)
        finally:
            os.close(fd)

    def write_pipe(self, mapping: Result, offset: int, length: int) -> Result:
        libc("write", fd=self.pipe[1], address=self.at(mapping, offset, length), count=length)
        return os.read(self.pipe[0], length) if length else b""

    def read_pipe(self, mapping: Result, offset: int, data: bytes) -> Result:
        address = self.at(mapping, offset, len(data))
        if not data:
            return 0
        os.write(self.pipe[1], data)
        try:
            return libc("read", fd=self.pipe[0], address=address, count=len(data))
        except OSError:
            os.read(self.pipe[0], len(data))
            raise

    def scratch(self) -> int:
        """A file without a name on a disk, for direct I/O."""
        if self.disk < 0:
            where = os.environ.get("TMPDIR", "/var/tmp")
            try:
                self.disk = os.open(where, os.O_TMPFILE | os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise Missing(f"O_DIRECT: {where}: {error.strerror} (set TMPDIR to a disk)") from error
        return self.disk

    def direct_write(self, mapping: Result, offset: int) -> Result:
        address = self.at(mapping, offset, PAGE_SIZE)
        fd = self.scratch()
        libc("pwrite", fd=fd, address=address, count=PAGE_SIZE, offset=0)
        with mmaps.mmap(-1, PAGE_SIZE) as page:
            os.preadv(fd, [page], 0)
            return bytes(page[:8])

    def direct_read(self, mapping: Result, offset: int, value: int) -> Result:
        address = self.at(mapping, offset, PAGE_SIZE)
        fd = self.scratch()
        with mmaps.mmap(-1, PAGE_SIZE) as page:
            page[:] = bytes([value]) * PAGE_SIZE
            os.pwritev(fd, [page], 0)
        return libc("pread", fd=fd, address=address, count=PAGE_SIZE, offset=0)

    def vmsplice(self, mapping: Result, offset: int, length: int) -> Result:
        vector = iovec(self.at(mapping, offset, length), length)
        reading, writing = os.pipe()
        try:
            libc("vmsplice", fd=writing, vector=vector, count=1, flags=0)
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return self.opened(reading, KeptPipe())

    def read_spliced(self, pipe: Result, length: int) -> Result:
        real, kept = self.valid(pipe)
        if not isinstance(kept, KeptPipe):
            raise OSError(errno.EBADF, "no pipe")
        return os.read(real, length)

    def io_uring_register(self, mapping: Result, offset: int, length: int) -> Result:
        vector = iovec(self.at(mapping, offset, length), length)
        ring = self.rings.pop() if self.rings else self.io_uring()
        try:
            syscall("io_uring_register", fd=ring, opcode=IORING_REGISTER_BUFFERS, argument=vector, count=1)
        except OSError:
            self.rings.append(ring)
            raise
        return self.opened(os.dup(ring), KeptRing(ring, self.rings))

    def io_uring(self) -> int:
        """A ring.  It is kept: work after closing one ends system calls of this process with EINTR, without a signal."""
        parameters = ctypes.create_string_buffer(120)
        try:
            return syscall("io_uring_setup", entries=1, parameters=parameters)
        except OSError as error:
            raise Missing(f"io_uring: {os.strerror(error.errno or 0)} (kernel.io_uring_disabled)") from error

    def futex_wake(self, mapping: Result, offset: int) -> Result:
        return syscall("futex", address=self.at(mapping, offset, 4), operation=1, value=1, timeout=None, other=None, value3=0)

    # ---- limits and concurrency

    def allocate_limited(self, limit: int, length: int) -> Result:
        with MemoryCgroup(limit) as group:

            def allocate() -> Result:
                fd = self.create_guest_memfd(self.create_vm(), length, 0)
                group.enter()
                return self.fallocate(fd, KEEP, 0, length)

            return child(allocate)

    def race_punch(self, vcpu: Result, fd: Result, mapping: Result, pages: int) -> Result:
        guest = self.guest(vcpu) if isinstance(vcpu, int) else None
        stop = time.monotonic() + 0.3
        wrong: list[str] = []

        def worker(step: int, turn: Callable[[int], bool]) -> threading.Thread:
            """A thread that takes its turn at one page after another; a turn says whether all was as it should be."""

            def work() -> None:
                page = turns = 0
                try:
                    while time.monotonic() < stop:
                        if not turn(page * PAGE_SIZE):
                            wrong.append(f"page {page}")
                        page, turns = (page + step) % pages, turns + 1
                except Exception as error:
                    wrong.append(str(error))
                if not turns:
                    wrong.append("a thread that did nothing")

            return threading.Thread(target=work)

        def host(at: int) -> bool:
            return all([self.store(mapping, at, 1) == 0, self.load(mapping, at) in (0, 1, 2)])

        def run(at: int) -> bool:
            assert guest is not None
            return all([guest.store(at, 2) == 0, guest.load(at) in (0, 1, 2)])

        def punch(at: int) -> bool:
            return self.fallocate(fd, PUNCH, at, PAGE_SIZE) == 0

        threads = [worker(5, host), worker(7, punch), *([worker(3, run)] if guest else [])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        calls.fallocate(self.fd(fd), PUNCH, 0, pages * PAGE_SIZE)
        return len(wrong), calls.cachestat(self.fd(fd), 0, pages * PAGE_SIZE).cache


def capable(capability: int) -> bool:
    """Whether this process has a capability."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
        return any(line.startswith("CapEff:") and int(line.split()[1], 16) >> capability & 1 for line in lines)


def child(function: Callable[[], Result]) -> Result:
    """What a function returns or raises in a child; the name of the signal that ends it."""
    try:
        return in_child(function)
    except Lost as lost:
        return signal.Signals(lost.signal).name


class StatsFile:
    """A VM's binary statistics, of which one number is read."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        entry = statistics_table(fd).get("pages_4k")
        if entry is None:
            raise Missing("KVM statistics without pages_4k (x86)")
        self.offset = entry.offset

    def pages_4k(self) -> int:
        """Live 4 KiB stage-2 entries."""
        value: int = struct.unpack("<Q", os.pread(self.fd, 8, self.offset))[0]
        return value

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)
