# SPDX-License-Identifier: Apache-2.0
"""Signals, which may arrive at any moment and end what takes long."""

from __future__ import annotations

from guestmem.mm.folio import Kernel
from guestmem.model import may

__all__ = ["signal_pending"]


def signal_pending(kernel: Kernel) -> bool:
    """Whether the current thread is to leave what it does and return to user space."""
    return kernel.signals and may("a signal is pending")
