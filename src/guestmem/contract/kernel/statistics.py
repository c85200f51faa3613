# SPDX-License-Identifier: Apache-2.0
"""The binary statistics of a VM, of which the contract knows a few numbers."""

from __future__ import annotations

import os
import struct

from guestmem.contract.interface import Missing
from guestmem.linux.kvm import statistics_table

__all__ = ["StatsFile"]


class StatsFile:
    """A VM's binary statistics."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.table = statistics_table(fd)

    def value(self, name: str) -> int:
        """A statistic that is one number.  Raises Missing where KVM does not have it."""
        entry = self.table.get(name)
        if entry is None:
            raise Missing(f"the KVM statistic {name}")
        value: int = struct.unpack("<Q", os.pread(self.fd, 8, entry.offset))[0]
        return value

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)
