# SPDX-License-Identifier: Apache-2.0
"""Files of the kernel's host, and how each of FILE_OPERATIONS is performed."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import select
import struct
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from guestmem.contract.interface import PAGE_SIZE, Missing
from guestmem.contract.kernel.task import Task
from guestmem.contract.results import Denied, Errno, Other, Result, Stat
from guestmem.linux import calls
from guestmem.linux.calls import MASK64, iovec, libc, syscall
from guestmem.linux.kvm import kvm_memory_attributes2, set_attributes2

__all__ = ["PERFORM", "Files"]

SPLICE_F_NONBLOCK, SYNC_FILE_RANGE_WRITE = 2, 2  # include/linux/splice.h, include/uapi/linux/fs.h
NOWHERE = 1  # what error_offset is before, and no page is at
AT_EMPTY_PATH, FIONREAD = 0x1000, 0x541B  # include/uapi/linux/fcntl.h, include/uapi/asm-generic/ioctls.h


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


def with_buffer(name: str) -> Callable[[int, int], Result]:
    """read(2) and relatives, of 16 bytes."""

    def operation(fd: int, offset: int) -> Result:
        buffer = ctypes.create_string_buffer(16)
        if name in ("pread", "pwrite"):
            return libc(name, fd=fd, buffer=buffer, count=16, offset=offset)
        if name == "readv":
            return libc(name, fd=fd, vector=iovec(ctypes.addressof(buffer), 16), count=1)
        return libc(name.split()[0], fd=fd, buffer=buffer, count=0 if name.endswith(" 0") else 16)

    return operation


def through(name: str) -> Callable[[int, int], Result]:
    """copy_file_range(2), splice(2), sendfile(2), either way."""
    call, way, *at = name.split()

    def operation(fd: int, offset: int) -> Result:
        if call == "splice":
            with full_pipe() as (reading, writing):
                pair = (fd, writing) if way == "from" else (reading, fd)
                return libc("splice", in_fd=pair[0], in_at=None, out_fd=pair[1], out_at=None, length=16, flags=SPLICE_F_NONBLOCK)
        with other_file() as other:
            if call == "copy_file_range":
                pair = (fd, other) if way == "from" else (other, fd)
                return libc("copy_file_range", in_fd=pair[0], in_at=None, out_fd=pair[1], out_at=None, length=16, flags=0)
            pair = (other, fd) if way == "from" else (fd, other)
            offset_at = ctypes.byref(ctypes.c_long(0)) if at else None
            return libc("sendfile", out_fd=pair[0], in_fd=pair[1], offset=offset_at, count=16)

    return operation


def seek(whence: int) -> Callable[[int, int], Result]:
    """lseek(2)."""
    return lambda fd, offset: libc("lseek", fd=fd, offset=offset, whence=whence)


def poll(fd: int, offset: int) -> Result:
    """poll(2)."""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLOUT)
    return next((events for _, events in poller.poll(0)), 0)


def epoll_add(fd: int, offset: int) -> Result:
    """epoll_ctl(2)."""
    with select.epoll() as epoll:
        epoll.register(fd)
    return 0


def lock_file(fd: int, offset: int) -> Result:
    """fcntl(2), F_SETLK."""
    fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    return 0


def done(function: Callable[[int], Any]) -> Callable[[int, int], Result]:
    """A call whose result is None or an empty list."""

    def operation(fd: int, offset: int) -> Result:
        function(fd)
        return 0

    return operation


def reopen(fd: int, offset: int) -> Result:
    """open(2) of the link in /proc."""
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
    return 0


def link(fd: int, offset: int) -> Result:
    """linkat(2) to a name among temporary files."""
    name = os.path.join(tempfile.gettempdir(), f"guestmem-{os.getpid()}")
    os.link(f"/proc/self/fd/{fd}", name, follow_symlinks=True)
    os.unlink(name)
    return 0


def execute(fd: int, offset: int) -> Result:
    """execveat(2) with AT_EMPTY_PATH; it does not succeed."""
    arguments = (ctypes.c_char_p * 1)(None)
    return syscall("execveat", fd=fd, path=b"", argv=arguments, envp=arguments, flags=AT_EMPTY_PATH)


def ioctl_unknown(fd: int, offset: int) -> Result:
    """FIONREAD."""
    fcntl.ioctl(fd, FIONREAD, array.array("i", [0]))
    return 0


PERFORM: dict[str, Callable[[int, int], Result]] = {
    **{name: with_buffer(name) for name in ("read", "write", "readv", "read 0", "write 0", "pread", "pwrite")},
    **{f"lseek {name}": seek(whence) for name, whence in (("set", 0), ("cur", 1), ("end", 2), ("data", 3), ("hole", 4))},
    "ftruncate": lambda fd, offset: libc("ftruncate", fd=fd, length=offset),
    "fsync": lambda fd, offset: libc("fsync", fd=fd),
    "fdatasync": lambda fd, offset: libc("fdatasync", fd=fd),
    "readahead": lambda fd, offset: libc("readahead", fd=fd, offset=0, count=PAGE_SIZE),
    "sync_file_range": lambda fd, offset: libc("sync_file_range", fd=fd, offset=0, count=PAGE_SIZE, flags=SYNC_FILE_RANGE_WRITE),
    "fadvise dontneed": done(lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)),
    "flock": done(lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)),
    "lockf": lock_file,
    "fchmod": done(lambda fd: os.fchmod(fd, 0o600)),
    "fchown": done(lambda fd: os.fchown(fd, os.getuid(), os.getgid())),
    "futimens": done(lambda fd: os.utime(fd)),
    "get seals": lambda fd, offset: fcntl.fcntl(fd, fcntl.F_GET_SEALS),
    "add seals": lambda fd, offset: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK),
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


class Files:
    """System calls on files."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def memfd_create(self, size: int) -> Result:
        fd = os.memfd_create("guestmem", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        return self.task.opened(fd)

    def memfd_secret(self, flags: int) -> Result:
        try:
            return self.task.opened(calls.memfd_secret(flags))
        except OSError as error:
            if error.errno == errno.ENOSYS:
                raise Missing("memfd_secret: ENOSYS (CONFIG_SECRETMEM, secretmem.enable=1)") from error
            raise

    def fstat(self, fd: Result) -> Result:
        stat = os.fstat(self.task.valid(fd)[0])
        return Stat(stat.st_size, stat.st_mode, stat.st_blksize, stat.st_blocks)

    def descriptor_flags(self, fd: Result) -> Result:
        real, _ = self.task.valid(fd)
        return fcntl.fcntl(real, fcntl.F_GETFD), fcntl.fcntl(real, fcntl.F_GETFL)

    def same_inode(self, one: Result, other: Result) -> Result:
        return int(os.path.sameopenfile(self.task.valid(one)[0], self.task.valid(other)[0]))

    def fallocate(self, fd: Result, mode: int, offset: int, length: int) -> Result:
        calls.fallocate(self.task.fd(fd), mode, offset, length)
        return 0

    def set_memory_attributes(
        self, fd: Result, offset: int, size: int, attributes: int, flags: int, reserved: int | None = None
    ) -> Result:
        argument = kvm_memory_attributes2(offset, size & MASK64, attributes, flags, NOWHERE)
        if reserved is not None:
            argument.reserved[reserved] = 1
        try:
            set_attributes2(self.task.fd(fd), argument)
        except OSError as error:
            if argument.error_offset != NOWHERE:
                raise Denied(Errno(error.errno or 0, argument.error_offset)) from error
            raise
        if argument.error_offset != NOWHERE:
            raise Denied(Other(f"success, and error_offset {argument.error_offset:#x}"))
        return 0

    def write(self, fd: Result, length: int, value: int) -> Result:
        return libc("write", fd=self.task.fd(fd), buffer=bytes([value]) * length, count=length)

    def pwrite(self, fd: Result, offset: int, length: int, value: int) -> Result:
        return libc("pwrite", fd=self.task.fd(fd), buffer=bytes([value]) * length, count=length, offset=offset)

    def cachestat(self, fd: Result, offset: int, length: int) -> Result:
        try:
            return calls.cachestat(self.task.fd(fd), offset, length).cache
        except OSError as error:
            if error.errno == errno.ENOSYS:
                raise Missing("cachestat(2): ENOSYS (Linux 6.5)") from error
            raise

    def file_operation(self, fd: Result, operation: str, offset: int = 0) -> Result:
        real, _ = self.task.valid(fd)
        return PERFORM[operation](real, offset)
