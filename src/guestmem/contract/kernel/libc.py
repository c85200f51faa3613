# SPDX-License-Identifier: Apache-2.0
"""Calls of the C library, and system calls that older C libraries have no function for."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

from guestmem.contract.host import Missing

__all__ = ["iovec", "libc", "system_call"]

MASK64 = (1 << 64) - 1
RETURN_INT = {"fsync", "fdatasync", "ftruncate", "sync_file_range"}

GENERIC = {"futex": 98, "execveat": 281, "userfaultfd": 282, "io_uring_setup": 425, "io_uring_register": 427}
X86_64 = {**GENERIC, "futex": 202, "execveat": 322, "userfaultfd": 323}
NUMBERS = {"x86_64": X86_64, "aarch64": GENERIC, "riscv64": GENERIC}

_libc = ctypes.CDLL(None, use_errno=True)


def libc(name: str, *arguments: Any) -> int:
    """A function of the C library that returns -1 and sets errno; integers are passed as 64 bits.  Raises OSError."""
    function = getattr(_libc, name)
    function.restype = ctypes.c_int if name in RETURN_INT else ctypes.c_long
    result: int = function(*(ctypes.c_uint64(a & MASK64) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def system_call(name: str, *arguments: Any) -> int:
    """syscall(2) by name.  Raises OSError, and :class:`Missing` where its number is not known."""
    number = NUMBERS.get(platform.machine(), {}).get(name)
    if number is None:
        raise Missing(f"the number of {name}(2) on {platform.machine()}")
    return libc("syscall", number, *arguments)


def iovec(address: int, length: int) -> ctypes.Array[ctypes.c_uint64]:
    """struct iovec."""
    return (ctypes.c_uint64 * 2)(address, length)
