# SPDX-License-Identifier: Apache-2.0
"""System calls as the kernel has them: every argument arrives unchanged, every failure says what was asked.

The calls are made through the C library with ``ctypes``, which releases Python's lock and does not retry after a signal
(PEP 475 does not apply): a call that a signal ends raises :class:`CallError` with EINTR.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno as errnos
import os
import platform
import signal
from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar

from guestmem.linux import uapi

__all__ = [
    "MADV_GUARD_INSTALL",
    "MADV_GUARD_REMOVE",
    "PAGE_SIZE",
    "CallError",
    "Closed",
    "Descriptor",
    "Mapping",
    "NoNumber",
    "Residency",
    "cachestat",
    "die_with_parent",
    "fallocate",
    "ioctl",
    "iovec",
    "libc",
    "madvise",
    "memfd_secret",
    "mlock",
    "mmap",
    "mprotect",
    "msync",
    "munlock",
    "munmap",
    "posix",
    "sigaction",
    "syscall",
]

T = TypeVar("T")

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
MASK64 = (1 << 64) - 1
MADV_GUARD_INSTALL, MADV_GUARD_REMOVE = 102, 103  # include/uapi/asm-generic/mman-common.h
PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h

# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h; newer calls have one number everywhere.
EVERYWHERE = {
    "io_uring_setup": 425,
    "io_uring_register": 427,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "memfd_secret": uapi.NR_memfd_secret,
    "cachestat": uapi.NR_cachestat,
    "mseal": 462,
}
GENERIC = {
    "ptrace": 117,
    "mlock2": 284,
    "futex": 98,
    "mbind": 235,
    "get_mempolicy": 236,
    "finit_module": 273,
    "execveat": 281,
    "userfaultfd": 282,
}
NUMBERS = {
    "x86_64": {
        "ptrace": 101,
        "mlock2": 325,
        "futex": 202,
        "mbind": 237,
        "get_mempolicy": 239,
        "finit_module": 313,
        "execveat": 322,
        "userfaultfd": 323,
    },
    "aarch64": GENERIC,
    "riscv64": GENERIC,
}

_LONG = {"mmap", "mremap", "read", "write", "readv", "pread", "pwrite", "lseek", "readahead", "syscall"} | {
    "copy_file_range",
    "splice",
    "sendfile",
    "vmsplice",
    "process_vm_readv",
    "process_vm_writev",
}
"""The functions that return more than an int."""

_libc = ctypes.CDLL(None, use_errno=True)


class CallError(OSError):
    """A system call failed: ``errno``, the ``call`` and its ``arguments`` by name.

    Its text is one line: the call as it was made, the name of the errno, and what that means.
    """

    def __init__(self, errno: int, call: str, arguments: dict[str, Any]) -> None:
        super().__init__(errno, os.strerror(errno))
        self.call = call
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return CallError, (self.errno, self.call, self.arguments)

    def __str__(self) -> str:
        given = ", ".join(f"{name}={_shown(name, value)}" for name, value in self.arguments.items())
        return f"{self.call}({given}): {errnos.errorcode.get(self.errno or 0, self.errno)}: {self.strerror}"


class Closed(ValueError):
    """Something that was closed is used."""


def _shown(name: str, value: Any) -> str:
    """A number in hexadecimal unless it is small or counts descriptors and slots."""
    if not isinstance(value, int) or name.endswith("fd") or -10 < value < 10:
        return str(value)
    return hex(value)


class NoNumber(RuntimeError):
    """The number of a system call is not known for this machine; the text says which."""


def libc(name: str, /, **arguments: Any) -> int:
    """A function of the C library that returns -1 and sets errno; its result.

    Integers are passed as 64 bits, anything else as ctypes passes it.  Raises :class:`CallError`.
    """
    function = getattr(_libc, name)
    function.restype = ctypes.c_long if name in _LONG else ctypes.c_int
    result: int = function(*(_register(value) for value in arguments.values()))
    if result == -1:
        raise CallError(ctypes.get_errno(), name, _nameable(arguments))
    return result


def _nameable(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as an error has them: of memory, only that it was given."""
    simple = (int, str, bytes, type(None))
    return {name: value if isinstance(value, simple) else "..." for name, value in arguments.items()}


def _register(value: Any) -> Any:
    return ctypes.c_uint64(value & MASK64) if isinstance(value, int) else value


def syscall(name: str, /, **arguments: Any) -> int:
    """syscall(2) by name, its arguments as :func:`libc` has them.  Raises :class:`CallError` and :class:`NoNumber`."""
    number = EVERYWHERE.get(name) or NUMBERS.get(platform.machine(), {}).get(name)
    if number is None:
        raise NoNumber(f"the number of {name}(2) on {platform.machine()}")
    try:
        return libc("syscall", number=number, **arguments)
    except CallError as error:
        raise CallError(error.errno or 0, name, _nameable(arguments)) from None


def posix(function: Callable[..., T], call: str, /, **arguments: Any) -> T:
    """A function of ``os``, which raises OSError, with its arguments by name.  Raises :class:`CallError`."""
    try:
        return function(*arguments.values())
    except OSError as error:
        raise CallError(error.errno or 0, call, arguments) from None


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), in bytes; offset and length are 64 bits, negative or not.  Raises :class:`CallError`."""
    libc("fallocate", fd=fd, mode=mode, offset=offset, length=length)


def mmap(address: int, length: int, prot: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """mmap(2); the address.  Raises :class:`CallError`."""
    return libc("mmap", address=address, length=length, prot=prot, flags=flags, fd=fd, offset=offset)


def munmap(address: int, length: int) -> None:
    """munmap(2).  Raises :class:`CallError`."""
    libc("munmap", address=address, length=length)


def madvise(address: int, length: int, advice: int) -> None:
    """madvise(2).  Raises :class:`CallError`."""
    libc("madvise", address=address, length=length, advice=advice)


def mprotect(address: int, length: int, prot: int) -> None:
    """mprotect(2).  Raises :class:`CallError`."""
    libc("mprotect", address=address, length=length, prot=prot)


def msync(address: int, length: int, flags: int) -> None:
    """msync(2).  Raises :class:`CallError`."""
    libc("msync", address=address, length=length, flags=flags)


def mlock(address: int, length: int) -> None:
    """mlock(2).  Raises :class:`CallError`."""
    libc("mlock", address=address, length=length)


def munlock(address: int, length: int) -> None:
    """munlock(2).  Raises :class:`CallError`."""
    libc("munlock", address=address, length=length)


def ioctl(fd: int, name: str, request: int, argument: Any = 0, /, **shown: Any) -> int:
    """ioctl(2) with a number or a ctypes buffer or structure; its result.

    ``shown`` is what an error says of the argument.  Raises :class:`CallError`; the call it names is ``name``.
    """
    pointer = argument if isinstance(argument, int) else ctypes.addressof(argument)
    try:
        return libc("ioctl", fd=fd, request=request, argument=pointer)
    except CallError as error:
        raise CallError(error.errno or 0, name, {"fd": fd, **shown}) from None


class Residency(NamedTuple):
    """Pages of a file range as cachestat(2) counts them."""

    cache: int
    dirty: int
    writeback: int
    evicted: int
    recently_evicted: int


def cachestat(fd: int, offset: int = 0, length: int = 0, flags: int = 0) -> Residency:
    """cachestat(2): the pages of a range of bytes (length 0: to the end) that are in the page cache.

    Since commit cf264e1329fb ("cachestat: implement cachestat syscall") (in v6.5).

    It touches nothing, so it tells whether memory of a guest_memfd or memfd_secret is allocated.
    Raises :class:`CallError`: ENOSYS without it, EOPNOTSUPP for hugetlbfs.
    """
    asked, found = uapi.cachestat_range(offset & MASK64, length & MASK64), uapi.cachestat()
    try:
        syscall("cachestat", fd=fd, range=ctypes.byref(asked), cachestat=ctypes.byref(found), flags=flags)
    except CallError as error:
        given = {"fd": fd, "offset": offset, "length": length, "flags": flags}
        raise CallError(error.errno or 0, "cachestat", given) from None
    return Residency(found.nr_cache, found.nr_dirty, found.nr_writeback, found.nr_evicted, found.nr_recently_evicted)


def memfd_secret(flags: int = 0) -> int:
    """memfd_secret(2); the descriptor.  Raises :class:`CallError`: ENOSYS where it is not enabled.

    Since commit 1507f51255c9 ("mm: introduce memfd_secret system call to create "secret" memory areas") (in v5.14).
    """
    return syscall("memfd_secret", flags=flags)


def iovec(address: int, length: int) -> ctypes.Array[ctypes.c_uint64]:
    """struct iovec."""
    return (ctypes.c_uint64 * 2)(address, length)


def die_with_parent() -> None:
    """prctl(2) with PR_SET_PDEATHSIG: kill this process when the thread that forked it ends."""
    libc("prctl", option=PR_SET_PDEATHSIG, signal=int(signal.SIGKILL))


class _sigaction(ctypes.Structure):
    """struct sigaction as the C library has it."""

    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


def sigaction(number: int, handler: int, flags: int) -> None:
    """sigaction(2) with the address of a handler.  Raises :class:`CallError`."""
    action = _sigaction(handler=handler, flags=flags)
    libc("sigaction", number=number, action=ctypes.byref(action), old=None)


class Descriptor:
    """A file descriptor that closes itself: at the end of ``with``, by :meth:`close` (again does nothing), or when forgotten."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor.  Raises :class:`Closed` after :meth:`close`."""
        if self._fd < 0:
            raise Closed(f"{type(self).__name__} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Close the descriptor, once.

        Raises nothing: Linux frees the descriptor whatever close(2) returns.
        """
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _libc.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self._fd < 0 else f'fd {self._fd}'}>"


class Mapping:
    """A mapping made by mmap(2), addressed by offset from its start; unmapped at the end of ``with`` or by :meth:`close`.

    Unlike Python's own ``mmap`` it keeps no second descriptor of the file and does not look at the file's size, and
    the address is known.  Memory that cannot be faulted in is a SIGBUS, as in C: try such things in a child process.
    """

    def __init__(self, address: int, length: int) -> None:
        self._address = address
        self.length = length

    @property
    def address(self) -> int:
        """Where it starts.  Raises :class:`Closed` after :meth:`close`."""
        if not self._address:
            raise Closed("Mapping is closed")
        return self._address

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return not self._address

    def _at(self, offset: int, size: int) -> int:
        if offset < 0 or size < 0 or offset + size > self.length:
            raise IndexError(f"bytes {offset:#x}..{offset + size:#x} of a mapping of {self.length:#x}")
        return self.address + offset

    def read(self, offset: int = 0, size: int = 1) -> bytes:
        """Bytes of it.  Raises IndexError outside of it."""
        return ctypes.string_at(self._at(offset, size), size)

    def write(self, data: bytes, offset: int = 0) -> None:
        """Store bytes.  Raises IndexError outside of it."""
        ctypes.memmove(self._at(offset, len(data)), data, len(data))

    def fill(self, value: int, offset: int = 0, size: int | None = None) -> None:
        """Store one byte everywhere in a range.  Raises IndexError outside of the mapping."""
        size = self.length - offset if size is None else size
        ctypes.memset(self._at(offset, size), value, size)

    def madvise(self, advice: int, offset: int = 0, size: int | None = None) -> None:
        """madvise(2) on a range.  Raises :class:`CallError`."""
        madvise(self.address + offset, self.length - offset if size is None else size, advice)

    def close(self) -> None:
        """Unmap it, once.  Raises nothing."""
        address, self._address = self._address, 0
        if address:
            with contextlib.suppress(CallError):
                munmap(address, self.length)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_address", 0):
            self.close()

    def __repr__(self) -> str:
        return f"<Mapping {'closed' if self.closed else f'{self.length:#x} bytes at {self._address:#x}'}>"
