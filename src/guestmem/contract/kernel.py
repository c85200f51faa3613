# SPDX-License-Identifier: Apache-2.0
"""The real kernel as a host of the contract, through the bindings of ``guestmem.linux``.

It takes the signals SIGBUS and SIGSEGV of its process and leaves memory mapped where it likes, so it belongs into a
process of its own: see ``worker``.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import mmap as mmaps
import os
import pickle
import select
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from guestmem.contract.access import Access, Fault
from guestmem.contract.cgroup import MemoryCgroup
from guestmem.contract.guest import ContractGuest
from guestmem.contract.host import NO_MAPPING, PAGE_SIZE, Host, Missing, Result, Signal, Spans, Stat, page_end
from guestmem.linux import calls, uapi
from guestmem.linux.kvm import Kvm

__all__ = ["KernelHost"]

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1
# System calls without a function in older C libraries: the first three of x86-64, the others everywhere.
NR_futex, NR_execveat, NR_userfaultfd, NR_io_uring_setup, NR_io_uring_register = 202, 322, 323, 425, 427
MREMAP_MAYMOVE = 1
UFFD_API, UFFD_USER_MODE_ONLY = 0xAA, 1  # include/uapi/linux/userfaultfd.h, as the two below
UFFDIO_API, UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00
IORING_REGISTER_BUFFERS, IORING_UNREGISTER_BUFFERS = 0, 1
KEEP, PUNCH = uapi.FALLOC_FL_KEEP_SIZE, uapi.FALLOC_FL_KEEP_SIZE | uapi.FALLOC_FL_PUNCH_HOLE

_libc = ctypes.CDLL(None, use_errno=True)


RETURN_INT = {"fsync", "fdatasync", "ftruncate", "prctl", "sync_file_range"}


def libc(name: str, *arguments: Any) -> int:
    """A function of the C library that returns -1 and sets errno; integers are passed as 64 bits."""
    function = getattr(_libc, name)
    function.restype = ctypes.c_int if name in RETURN_INT else ctypes.c_long
    result: int = function(*(ctypes.c_uint64(a & MASK64) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def iovec(address: int, length: int) -> ctypes.Array[ctypes.c_uint64]:
    """struct iovec."""
    return (ctypes.c_uint64 * 2)(address, length)


class KernelHost(Host):
    """The contract's user-space interface on this kernel.

    Raises OSError when there is no KVM to open.
    """

    name = "kernel"

    def __init__(self) -> None:
        self.kvm = Kvm()
        self.access = Access()
        self.process = os.getpid()
        self.fds: dict[int, int] = {}
        self.kinds: dict[int, str] = {}
        self.maps: dict[int, tuple[int, Spans]] = {}
        self.guests: dict[int, ContractGuest] = {}
        self.rings: list[int] = []
        self.ring_of: dict[int, int] = {}
        self.stats: dict[int, StatsFile] = {}
        self.origin: dict[int, int] = {}
        self.vcpu_of: dict[int, int] = {}
        self.next = 0
        self.anonymous = calls.mmap(0, PAGE_SIZE, 3, uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS)
        self.pipe = os.pipe()
        self.disk = -1

    def finish(self) -> None:
        for address, spans in self.maps.values():
            for start, end, _ in spans:
                calls.munmap(address + start, end - start)
        for guest in self.guests.values():
            guest.close()
        for stats in self.stats.values():
            stats.close()
        for handle in list(self.ring_of):
            self.unregister(handle)
        for fd in self.fds.values():
            os.close(fd)
        for state in (self.fds, self.kinds, self.maps, self.guests, self.stats, self.origin, self.vcpu_of):
            state.clear()
        self.next = 0

    # ---- handles

    def handle(self) -> int:
        """A new handle."""
        self.next += 1
        return self.next - 1

    def opened(self, fd: int) -> int:
        """The handle of a new descriptor."""
        handle = self.handle()
        self.fds[handle] = fd
        return handle

    def fd(self, handle: Result) -> int:
        """The descriptor, or one that is not open."""
        return self.fds.get(handle, -1) if isinstance(handle, int) else -1

    def at(self, mapping: Result, offset: int, length: int = 0) -> int:
        """The address of a range of a mapping."""
        there = self.maps.get(mapping) if isinstance(mapping, int) else None
        if there is None or offset < 0 or length < 0 or not there[1].cover(offset, offset + length):
            raise Signal(NO_MAPPING)
        return there[0] + offset

    # ---- descriptors

    def create_vm(self, kind: int = 0) -> Result:
        return self.opened(calls.ioctl(self.kvm.fileno(), "KVM_CREATE_VM", uapi.KVM_CREATE_VM, kind))

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

    def dup(self, fd: Result) -> Result:
        return self.again(fd, fcntl.fcntl(self.valid(fd), fcntl.F_DUPFD, 0))

    def again(self, handle: Result, fd: int) -> int:
        """The handle of another descriptor for the same thing."""
        other = self.opened(fd)
        assert isinstance(handle, int)
        self.origin[other] = self.origin.get(handle, handle)
        return other

    def valid(self, handle: Result) -> int:
        """The descriptor, which Python's wrappers want to be positive."""
        fd = self.fd(handle)
        if fd < 0:
            raise OSError(errno.EBADF, "no descriptor")
        return fd

    def pass_descriptor(self, fd: Result) -> Result:
        real = self.valid(fd)
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with left, right:
            socket.send_fds(left, [b"x"], [real])
            _, received, _, _ = socket.recv_fds(right, 1, 1)
        return self.again(fd, received[0])

    def close(self, fd: Result) -> Result:
        real = self.valid(fd)
        assert isinstance(fd, int)
        del self.fds[fd]
        origin = self.origin.get(fd, fd)
        if not any(self.origin.get(other, other) == origin for other in self.fds):
            if origin in self.guests:
                self.guests.pop(origin).close()
            if origin in self.ring_of:
                self.unregister(origin)
        if fd in self.stats:
            self.stats.pop(fd).close()
        os.close(real)
        return 0

    def in_child(self, operation: str, *arguments: Any) -> Result:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                die_with_parent()
                os.write(writing, pickle.dumps(getattr(self, operation)(*arguments)))
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as stream:
            data = stream.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return signal.Signals(os.WTERMSIG(status)).name
        result: Result = pickle.loads(data)
        return result

    # ---- the file

    def fstat(self, fd: Result) -> Result:
        stat = os.fstat(self.valid(fd))
        return Stat(stat.st_size, stat.st_mode, stat.st_blksize, stat.st_blocks)

    def descriptor_flags(self, fd: Result) -> Result:
        real = self.valid(fd)
        return fcntl.fcntl(real, fcntl.F_GETFD), fcntl.fcntl(real, fcntl.F_GETFL)

    def same_inode(self, one: Result, other: Result) -> Result:
        return int(os.path.sameopenfile(self.valid(one), self.valid(other)))

    def fallocate(self, fd: Result, mode: int, offset: int, length: int) -> Result:
        calls.fallocate(self.fd(fd), mode, offset, length)
        return 0

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

    def file_operation(self, fd: Result, operation: str, offset: int = 0, length: int = 0) -> Result:
        real = self.valid(fd)
        return FILE_OPERATIONS[operation](real, offset, length)

    # ---- mappings

    def mmap(self, fd: Result, length: int, prot: int, flags: int, offset: int) -> Result:
        if flags & uapi.MAP_FIXED:
            raise ValueError("MAP_FIXED would replace memory of the host")
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
        moved = libc("mremap", address, self.maps[mapping][1].end(), length, MREMAP_MAYMOVE)
        self.maps[mapping] = moved, Spans(page_end(length), 0)
        return 0

    def mprotect(self, mapping: Result, offset: int, length: int, prot: int) -> Result:
        calls.mprotect(self.at(mapping, offset, length), length, prot)
        return 0

    def madvise(self, mapping: Result, offset: int, length: int, advice: int) -> Result:
        calls.madvise(self.at(mapping, offset, length), length, advice)
        return 0

    def mlock(self, mapping: Result, offset: int, length: int) -> Result:
        calls.mlock(self.at(mapping, offset, length), length)
        return 0

    def munlock(self, mapping: Result, offset: int, length: int) -> Result:
        calls.munlock(self.at(mapping, offset, length), length)
        return 0

    def msync(self, mapping: Result, offset: int, length: int, flags: int) -> Result:
        calls.msync(self.at(mapping, offset, length), length, flags)
        return 0

    def userfaultfd_register(self, mapping: Result, offset: int, length: int, mode: int) -> Result:
        argument = (ctypes.c_uint64 * 4)(self.at(mapping, offset, length), length, mode)
        try:
            fd = libc("syscall", NR_userfaultfd, os.O_CLOEXEC | UFFD_USER_MODE_ONLY)
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
        assert isinstance(vm, int)
        handle = self.opened(guest.descriptor())
        self.guests[handle] = guest
        self.vcpu_of[self.origin.get(vm, vm)] = handle
        return handle

    def guest(self, vcpu: Result) -> ContractGuest:
        """The guest of a vCPU."""
        real = self.valid(vcpu)
        assert isinstance(vcpu, int)
        guest = self.guests.get(self.origin.get(vcpu, vcpu))
        if guest is None:
            calls.ioctl(real, "KVM_RUN", uapi.KVM_RUN)
            raise OSError(errno.ENOTTY, "no vCPU")
        return guest

    def guest_load(self, vcpu: Result, gpa: int) -> Result:
        return self.guest(vcpu).load(gpa)

    def guest_store(self, vcpu: Result, gpa: int, value: int) -> Result:
        return self.guest(vcpu).store(gpa, value)

    def pages_4k(self, vm: Result) -> Result:
        real = self.valid(vm)
        assert isinstance(vm, int)
        origin = self.origin.get(vm, vm)
        if origin not in self.stats:
            self.stats[origin] = StatsFile(calls.ioctl(real, "KVM_GET_STATS_FD", uapi.KVM_GET_STATS_FD))
        guest = self.guests.get(self.vcpu_of.get(origin, -1))
        if guest is None:
            return self.stats[origin].pages_4k()
        guest.idle()
        return self.stats[origin].pages_4k() - guest.program_pages

    # ---- users through GUP, and copies of the kernel

    def process_vm_readv(self, mapping: Result, offset: int, length: int) -> Result:
        remote = iovec(self.at(mapping, offset, length), length)
        buffer = ctypes.create_string_buffer(length or 1)
        local = iovec(ctypes.addressof(buffer), length)
        done = libc("process_vm_readv", os.getpid(), local, 1, remote, 1, 0)
        return buffer.raw[:done]

    def process_vm_writev(self, mapping: Result, offset: int, data: bytes) -> Result:
        remote = iovec(self.at(mapping, offset, len(data)), len(data))
        buffer = ctypes.create_string_buffer(data, len(data) or 1)
        return libc("process_vm_writev", os.getpid(), iovec(ctypes.addressof(buffer), len(data)), 1, remote, 1, 0)

    def proc_mem_read(self, mapping: Result, offset: int, length: int) -> Result:
        address = self.at(mapping, offset, length)
        fd = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, length, address)
        finally:
            os.close(fd)

    def write_pipe(self, mapping: Result, offset: int, length: int) -> Result:
        libc("write", self.pipe[1], self.at(mapping, offset, length), length)
        return os.read(self.pipe[0], length) if length else b""

    def read_pipe(self, mapping: Result, offset: int, data: bytes) -> Result:
        address = self.at(mapping, offset, len(data))
        if not data:
            return 0
        os.write(self.pipe[1], data)
        try:
            return libc("read", self.pipe[0], address, len(data))
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
        libc("pwrite", fd, address, PAGE_SIZE, 0)
        with mmaps.mmap(-1, PAGE_SIZE) as page:
            os.preadv(fd, [page], 0)
            return bytes(page[:8])

    def direct_read(self, mapping: Result, offset: int, value: int) -> Result:
        address = self.at(mapping, offset, PAGE_SIZE)
        fd = self.scratch()
        with mmaps.mmap(-1, PAGE_SIZE) as page:
            page[:] = bytes([value]) * PAGE_SIZE
            os.pwritev(fd, [page], 0)
        return libc("pread", fd, address, PAGE_SIZE, 0)

    def vmsplice(self, mapping: Result, offset: int, length: int) -> Result:
        vector = iovec(self.at(mapping, offset, length), length)
        reading, writing = os.pipe()
        try:
            libc("vmsplice", writing, vector, 1, 0)
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        handle = self.opened(reading)
        self.kinds[handle] = "pipe"
        return handle

    def read_spliced(self, pipe: Result, length: int) -> Result:
        if not isinstance(pipe, int) or self.kinds.get(pipe) != "pipe":
            raise OSError(errno.EBADF, "no pipe")
        return os.read(self.valid(pipe), length)

    def io_uring_register(self, mapping: Result, offset: int, length: int) -> Result:
        vector = iovec(self.at(mapping, offset, length), length)
        ring = self.rings.pop() if self.rings else self.io_uring()
        try:
            libc("syscall", NR_io_uring_register, ring, IORING_REGISTER_BUFFERS, vector, 1)
        except OSError:
            self.rings.append(ring)
            raise
        handle = self.opened(os.dup(ring))
        self.ring_of[handle] = ring
        return handle

    def io_uring(self) -> int:
        """A ring.  It is kept: work after closing one ends system calls of this process with EINTR, without a signal."""
        parameters = ctypes.create_string_buffer(120)
        try:
            return libc("syscall", NR_io_uring_setup, 1, parameters)
        except OSError as error:
            raise Missing(f"io_uring: {os.strerror(error.errno or 0)} (kernel.io_uring_disabled)") from error

    def unregister(self, handle: int) -> None:
        """Have the ring of a handle let go of its buffer."""
        ring = self.ring_of.pop(handle)
        if os.getpid() == self.process:
            libc("syscall", NR_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, 0, 0)
            self.rings.append(ring)

    def futex_wake(self, mapping: Result, offset: int) -> Result:
        return libc("syscall", NR_futex, self.at(mapping, offset, 4), 1, 1, 0, 0, 0)

    # ---- limits and concurrency

    def allocate_limited(self, limit: int, length: int) -> Result:
        with MemoryCgroup(limit) as group:
            child = os.fork()
            if child == 0:
                try:
                    die_with_parent()
                    vm = self.create_vm()
                    fd = self.create_guest_memfd(vm, length, 0)
                    group.enter()
                    for offset in range(0, length, 1 << 20):
                        self.fallocate(fd, KEEP, offset, min(1 << 20, length - offset))
                finally:
                    os._exit(0)
            _, status = os.waitpid(child, 0)
        return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else 0

    def race_punch(self, vcpu: Result, fd: Result, mapping: Result, pages: int) -> Result:
        guest = self.guests.get(vcpu) if isinstance(vcpu, int) else None
        stop = time.monotonic() + 0.3
        wrong: list[Result] = []

        def host() -> None:
            page = 0
            while time.monotonic() < stop:
                page = (page + 5) % pages
                wrong.extend(r for r in (self.store(mapping, page * PAGE_SIZE, 1),) if r != 0)
                wrong.extend(r for r in (self.load(mapping, page * PAGE_SIZE),) if r not in (0, 1, 2))

        def run() -> None:
            page = 0
            while guest is not None and time.monotonic() < stop:
                page = (page + 3) % pages
                wrong.extend(r for r in (guest.store(page * PAGE_SIZE, 2),) if r != 0)
                wrong.extend(r for r in (guest.load(page * PAGE_SIZE),) if r not in (0, 1, 2))

        def punch() -> None:
            page = 0
            while time.monotonic() < stop:
                page = (page + 7) % pages
                calls.fallocate(self.fd(fd), PUNCH, page * PAGE_SIZE, PAGE_SIZE)

        threads = [threading.Thread(target=work) for work in (host, run, punch)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        calls.fallocate(self.fd(fd), PUNCH, 0, pages * PAGE_SIZE)
        return len(wrong), calls.cachestat(self.fd(fd), 0, pages * PAGE_SIZE).cache


class StatsFile:
    """A VM's binary statistics, of which one number is read."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        header = uapi.kvm_stats_header.from_buffer_copy(os.pread(fd, ctypes.sizeof(uapi.kvm_stats_header), 0))
        width = ctypes.sizeof(uapi.kvm_stats_desc) + header.name_size
        table = os.pread(fd, width * header.num_desc, header.desc_offset)
        for start in range(0, len(table), width):
            one = uapi.kvm_stats_desc.from_buffer_copy(table, start)
            if table[start + ctypes.sizeof(uapi.kvm_stats_desc) : start + width].startswith(b"pages_4k\0"):
                self.offset = header.data_offset + one.offset
                return
        raise Missing("KVM statistics without pages_4k (x86)")

    def pages_4k(self) -> int:
        """Live 4 KiB stage-2 entries."""
        value: int = struct.unpack("<Q", os.pread(self.fd, 8, self.offset))[0]
        return value

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone: PR_SET_PDEATHSIG."""
    libc("prctl", 1, int(signal.SIGKILL), 0, 0, 0)


# ---- operations of a file


@contextlib.contextmanager
def other_file() -> Iterator[int]:
    """A memfd of four pages."""
    fd = os.memfd_create("guestmem", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, 4 * PAGE_SIZE)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe with some bytes in it."""
    reading, writing = os.pipe()
    try:
        os.write(writing, bytes(64))
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def with_buffer(name: str) -> Callable[[int, int, int], Result]:
    """read(2) and relatives, of 16 bytes."""

    def operation(fd: int, offset: int, length: int) -> Result:
        buffer = ctypes.create_string_buffer(16)
        if name in ("pread", "pwrite"):
            return libc(name, fd, buffer, 16, offset)
        if name == "readv":
            return libc(name, fd, iovec(ctypes.addressof(buffer), 16), 1)
        return libc(name.split()[0], fd, buffer, 0 if name.endswith(" 0") else 16)

    return operation


def through(name: str) -> Callable[[int, int, int], Result]:
    """copy_file_range(2), splice(2), sendfile(2), either way."""
    call, way, *at = name.split()

    def operation(fd: int, offset: int, length: int) -> Result:
        if call == "splice":
            with full_pipe() as (reading, writing):
                pair = (fd, writing) if way == "from" else (reading, fd)
                return libc("splice", pair[0], 0, pair[1], 0, 16, 2)
        with other_file() as other:
            if call == "copy_file_range":
                pair = (fd, other) if way == "from" else (other, fd)
                return libc("copy_file_range", pair[0], 0, pair[1], 0, 16, 0)
            pair = (other, fd) if way == "from" else (fd, other)
            return libc("sendfile", *pair, ctypes.byref(ctypes.c_long(0)) if at else 0, 16)

    return operation


def seek(whence: int) -> Callable[[int, int, int], Result]:
    """lseek(2)."""
    return lambda fd, offset, length: libc("lseek", fd, offset, whence)


def poll(fd: int, offset: int, length: int) -> Result:
    """poll(2)."""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLOUT)
    return next((events for _, events in poller.poll(0)), 0)


def epoll_add(fd: int, offset: int, length: int) -> Result:
    """epoll_ctl(2)."""
    with select.epoll() as epoll:
        epoll.register(fd)
    return 0


def lock_file(fd: int, offset: int, length: int) -> Result:
    """fcntl(2), F_SETLK."""
    fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    return 0


def done(function: Callable[[int], Any]) -> Callable[[int, int, int], Result]:
    """A call whose result is None or an empty list."""

    def operation(fd: int, offset: int, length: int) -> Result:
        function(fd)
        return 0

    return operation


def reopen(fd: int, offset: int, length: int) -> Result:
    """open(2) of the link in /proc."""
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
    return 0


def link(fd: int, offset: int, length: int) -> Result:
    """linkat(2) to a name among temporary files."""
    name = os.path.join(tempfile.gettempdir(), f"guestmem-{os.getpid()}")
    os.link(f"/proc/self/fd/{fd}", name, follow_symlinks=True)
    os.unlink(name)
    return 0


def execute(fd: int, offset: int, length: int) -> Result:
    """execveat(2) with AT_EMPTY_PATH; it does not succeed."""
    arguments = (ctypes.c_char_p * 1)(None)
    return libc("syscall", NR_execveat, fd, b"", arguments, arguments, 0x1000)


def ioctl_unknown(fd: int, offset: int, length: int) -> Result:
    """FIONREAD."""
    fcntl.ioctl(fd, 0x541B, array.array("i", [0]))
    return 0


FILE_OPERATIONS: dict[str, Callable[[int, int, int], Result]] = {
    **{name: with_buffer(name) for name in ("read", "write", "readv", "read 0", "write 0", "pread", "pwrite")},
    **{f"lseek {name}": seek(whence) for name, whence in (("set", 0), ("cur", 1), ("end", 2), ("data", 3), ("hole", 4))},
    "ftruncate": lambda fd, offset, length: libc("ftruncate", fd, offset),
    "fsync": lambda fd, offset, length: libc("fsync", fd),
    "fdatasync": lambda fd, offset, length: libc("fdatasync", fd),
    "readahead": lambda fd, offset, length: libc("readahead", fd, 0, PAGE_SIZE),
    "sync_file_range": lambda fd, offset, length: libc("sync_file_range", fd, 0, PAGE_SIZE, 2),
    "fadvise dontneed": done(lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)),
    "flock": done(lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
    "lockf": lock_file,
    "fchmod": done(lambda fd: os.fchmod(fd, 0o600)),
    "fchown": done(lambda fd: os.fchown(fd, os.getuid(), os.getgid())),
    "futimens": done(lambda fd: os.utime(fd)),
    "get seals": lambda fd, offset, length: fcntl.fcntl(fd, fcntl.F_GET_SEALS),
    "add seals": lambda fd, offset, length: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK),
    "fsetxattr": done(lambda fd: os.setxattr(fd, "user.x", b"")),
    "flistxattr": done(os.listxattr),
    **{f"{call} {way}": through(f"{call} {way}") for call in ("copy_file_range", "splice", "sendfile") for way in ("from", "to")},
    "sendfile from offset": through("sendfile from offset"),
    "poll": poll,
    "epoll add": epoll_add,
    "ioctl": ioctl_unknown,
    "fchdir": done(os.fchdir),
    "execveat": execute,
    "reopen": reopen,
    "linkat": link,
}
