# SPDX-License-Identifier: Apache-2.0
"""Numbers as a machine has them: what does not fit is cut off, and nothing says so."""

from guestmem.model import Index

__all__ = ["U32", "U64", "u32", "u64"]


class U32(Index, below=1 << 32):
    """An unsigned number of 32 bits (u32)."""


def u32(value: int) -> U32:
    """What 32 bits keep of a number; of one below 0, what is left when it has gone round."""
    return U32(value % (1 << 32))


class U64(Index, below=1 << 64):
    """An unsigned number of 64 bits (u64, and the kernel's unsigned long and pgoff_t)."""


def u64(value: int) -> U64:
    """What 64 bits keep of a number; of one below 0, what is left when it has gone round."""
    return U64(value % (1 << 64))
