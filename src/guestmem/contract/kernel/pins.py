# SPDX-License-Identifier: Apache-2.0
"""Users of mappings on the kernel's host: other processes, pipes, direct I/O."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap as mmaps
import os
import signal
from multiprocessing.connection import Connection

from guestmem.contract.interface import PAGE_SIZE, Missing
from guestmem.contract.kernel.mappings import Mappings
from guestmem.contract.kernel.task import Open, Task
from guestmem.contract.results import EBADF, Denied, Result
from guestmem.linux import calls
from guestmem.linux.calls import CallError, iovec, libc, syscall
from guestmem.linux.process import Child

__all__ = ["Pins"]

PTRACE_TRACEME, PTRACE_PEEKDATA = 0, 2  # include/uapi/linux/ptrace.h
NO_TRACING = "a process that may trace its child"
FUTEX_WAKE = 1  # include/uapi/linux/futex.h


class OpenPipe(Open):
    """A pipe that vmsplice filled."""


def be_traced(connection: Connection) -> None:
    """Let the parent trace this process, say whether that may be, and stop."""
    try:
        syscall("ptrace", request=PTRACE_TRACEME, pid=0, address=0, data=0)
    except CallError:
        connection.send(False)
        return
    connection.send(True)
    os.kill(os.getpid(), signal.SIGSTOP)


class Pins:
    """Who gets at pages through a mapping, other than by loads and stores."""

    def __init__(self, task: Task, mappings: Mappings) -> None:
        self.task = task
        self.mappings = mappings
        self.pipe = os.pipe()
        self.disk = -1

    def process_vm_readv(self, mapping: Result, offset: int, length: int) -> Result:
        return self.read_process(os.getpid(), mapping, offset, length)

    def read_child(self, mapping: Result, offset: int, length: int) -> Result:
        with contextlib.closing(Child(lambda connection: connection.recv())) as child:
            try:
                return self.read_process(child.pid, mapping, offset, length)
            except OSError as error:
                if error.errno == errno.EPERM:
                    raise Missing(NO_TRACING) from None
                raise

    def read_process(self, pid: int, mapping: Result, offset: int, length: int) -> bytes:
        """process_vm_readv(2) of a process, at the address that a mapping has in this one."""
        remote = iovec(self.mappings.at(mapping, offset, length), length)
        buffer = ctypes.create_string_buffer(length or 1)
        local = iovec(ctypes.addressof(buffer), length)
        done = libc("process_vm_readv", pid=pid, local=local, locals=1, remote=remote, remotes=1, flags=0)
        return buffer.raw[:done]

    def peek(self, mapping: Result, offset: int) -> Result:
        word = ctypes.c_uint64()
        address = self.mappings.at(mapping, offset, 8)
        with contextlib.closing(Child(be_traced)) as child:
            if not child.receive():
                raise Missing(NO_TRACING)
            os.waitpid(child.pid, 0)
            syscall("ptrace", request=PTRACE_PEEKDATA, pid=child.pid, address=address, data=ctypes.byref(word))
        return bytes(word)

    def process_vm_writev(self, mapping: Result, offset: int, data: bytes) -> Result:
        remote = iovec(self.mappings.at(mapping, offset, len(data)), len(data))
        buffer = ctypes.create_string_buffer(data, len(data) or 1)
        local = iovec(ctypes.addressof(buffer), len(data))
        return libc("process_vm_writev", pid=os.getpid(), local=local, locals=1, remote=remote, remotes=1, flags=0)

    def proc_mem_read(self, mapping: Result, offset: int, length: int) -> Result:
        address = self.mappings.at(mapping, offset, length)
        fd = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, length, address)
        finally:
            os.close(fd)

    def write_pipe(self, mapping: Result, offset: int, length: int) -> Result:
        libc("write", fd=self.pipe[1], address=self.mappings.at(mapping, offset, length), count=length)
        return os.read(self.pipe[0], length) if length else b""

    def read_pipe(self, mapping: Result, offset: int, data: bytes) -> Result:
        address = self.mappings.at(mapping, offset, len(data))
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
        address = self.mappings.at(mapping, offset, PAGE_SIZE)
        fd = self.scratch()
        libc("pwrite", fd=fd, address=address, count=PAGE_SIZE, offset=0)
        self.was_direct(fd)
        with mmaps.mmap(-1, PAGE_SIZE) as page:
            os.preadv(fd, [page], 0)
            return bytes(page[:8])

    def direct_read(self, mapping: Result, offset: int, value: int) -> Result:
        address = self.mappings.at(mapping, offset, PAGE_SIZE)
        fd = self.scratch()
        with mmaps.mmap(-1, PAGE_SIZE) as page:
            page[:] = bytes([value]) * PAGE_SIZE
            os.pwritev(fd, [page], 0)
        done = libc("pread", fd=fd, address=address, count=PAGE_SIZE, offset=0)
        self.was_direct(fd)
        return done

    def was_direct(self, fd: int) -> None:
        """Raises :class:`Missing` where the page cache was used, and so nobody's pages were pinned."""
        if calls.cachestat(fd).cache:
            os.close(fd)
            self.disk = -1
            raise Missing("direct I/O that is not buffered in its place: set TMPDIR to a disk with another file system")

    def vmsplice(self, mapping: Result, offset: int, length: int) -> Result:
        vector = iovec(self.mappings.at(mapping, offset, length), length)
        reading, writing = os.pipe()
        try:
            libc("vmsplice", fd=writing, vector=vector, count=1, flags=0)
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return self.task.opened(reading, OpenPipe())

    def read_spliced(self, pipe: Result, length: int) -> Result:
        real, file = self.task.valid(pipe)
        if not isinstance(file, OpenPipe):
            raise Denied(EBADF)
        return os.read(real, length)

    def futex_wake(self, mapping: Result, offset: int) -> Result:
        return syscall(
            "futex",
            address=self.mappings.at(mapping, offset, 4),
            operation=FUTEX_WAKE,
            value=1,
            timeout=None,
            other=None,
            value3=0,
        )
