# SPDX-License-Identifier: Apache-2.0
"""userfaultfd(2): page faults of a mapping that user space resolves (include/uapi/linux/userfaultfd.h)."""

from __future__ import annotations

import ctypes
import os

from guestmem.linux.calls import PAGE_SIZE, Descriptor, ioctl, syscall

__all__ = ["MINOR", "MISSING", "SIGBUS", "WP", "Userfaultfd"]

UFFD_API, UFFD_USER_MODE_ONLY = 0xAA, 1
UFFDIO_API, UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00
UFFDIO_COPY, UFFDIO_ZEROPAGE, UFFDIO_CONTINUE = 0xC028AA03, 0xC020AA04, 0xC020AA07

MISSING, WP, MINOR = 1, 2, 4
"""UFFDIO_REGISTER_MODE_*: holes, write-protected pages, pages of a file that the page table does not have."""
SIGBUS = 1 << 7
"""UFFD_FEATURE_SIGBUS: a fault is answered by SIGBUS, and nobody has to read of it."""


class Userfaultfd(Descriptor):
    """A userfaultfd for faults of user mode, with UFFD_FEATURE_*.

    Raises :class:`~guestmem.linux.calls.CallError`: EPERM where it is not allowed, ENOSYS without CONFIG_USERFAULTFD.
    """

    def __init__(self, features: int = 0) -> None:
        super().__init__(syscall("userfaultfd", flags=os.O_CLOEXEC | UFFD_USER_MODE_ONLY))
        ioctl(self.fileno(), "UFFDIO_API", UFFDIO_API, (ctypes.c_uint64 * 3)(UFFD_API, features))

    def register(self, address: int, length: int, mode: int) -> None:
        """Have faults of a range told.  Raises CallError: EINVAL where the memory does not know the mode."""
        ioctl(self.fileno(), "UFFDIO_REGISTER", UFFDIO_REGISTER, (ctypes.c_uint64 * 4)(address, length, mode))

    def copy(self, address: int, length: int, value: int) -> None:
        """Fill holes with a byte.  Raises CallError: EEXIST where a page is."""
        data = ctypes.create_string_buffer(bytes([value]) * (length + PAGE_SIZE))
        source = -(-ctypes.addressof(data) // PAGE_SIZE) * PAGE_SIZE
        ioctl(self.fileno(), "UFFDIO_COPY", UFFDIO_COPY, (ctypes.c_uint64 * 5)(address, source, length))

    def zeropage(self, address: int, length: int) -> None:
        """Fill holes with zeros.  Raises CallError: EEXIST where a page is."""
        ioctl(self.fileno(), "UFFDIO_ZEROPAGE", UFFDIO_ZEROPAGE, (ctypes.c_uint64 * 4)(address, length))

    def resume(self, address: int, length: int) -> None:
        """UFFDIO_CONTINUE: enter pages of the file into the page table.  Raises CallError: EFAULT for a hole, EEXIST."""
        ioctl(self.fileno(), "UFFDIO_CONTINUE", UFFDIO_CONTINUE, (ctypes.c_uint64 * 4)(address, length))
