# SPDX-License-Identifier: Apache-2.0
"""memfd_secret(2), mm/secretmem.c: memory that the kernel itself has no mapping of.

Be gentle: the first page in a 2 MiB block of the direct map splits it into 4 KiB entries, until the next boot.
"""

from __future__ import annotations

import os

from guestmem.linux import uapi
from guestmem.linux.calls import Descriptor, Mapping, Residency, cachestat, memfd_secret, mmap, posix

__all__ = ["SecretMem"]


class SecretMem(Descriptor):
    """A file of secret memory; its pages live as long as the file (nothing punches holes).

    Raises :class:`~guestmem.linux.calls.CallError`: ENOSYS without CONFIG_SECRETMEM or with secretmem.enable=0.
    """

    def __init__(self, flags: int = os.O_CLOEXEC) -> None:
        super().__init__(memfd_secret(flags))

    def truncate(self, size: int) -> None:
        """ftruncate(2), once.  Raises CallError: EINVAL when the file has a size."""
        posix(os.ftruncate, "ftruncate", fd=self.fileno(), size=size)

    def mmap(
        self, length: int, offset: int = 0, prot: int = uapi.PROT_READ | uapi.PROT_WRITE, flags: int = uapi.MAP_SHARED
    ) -> Mapping:
        """mmap(2).  Raises CallError: EAGAIN over RLIMIT_MEMLOCK, EINVAL for MAP_PRIVATE."""
        return Mapping(mmap(0, length, prot, flags, self.fileno(), offset), length)

    def cachestat(self, offset: int = 0, length: int = 0) -> Residency:
        """cachestat(2): the pages that are there."""
        return cachestat(self.fileno(), offset, length)
