# SPDX-License-Identifier: Apache-2.0
"""The binary statistics of a VM, of which the contract knows one number."""

from __future__ import annotations

import os
import struct

from guestmem.contract.interface import Missing
from guestmem.linux.kvm import statistics_table

__all__ = ["StatsFile"]


class StatsFile:
    """A VM's binary statistics, of which one number is read."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        entry = statistics_table(fd).get("pages_4k")
        if entry is None:
            raise Missing("the KVM statistic pages_4k")
        self.offset = entry.offset

    def pages_4k(self) -> int:
        """Live 4 KiB stage-2 entries."""
        value: int = struct.unpack("<Q", os.pread(self.fd, 8, self.offset))[0]
        return value

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)
