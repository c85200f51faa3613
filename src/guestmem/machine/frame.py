# SPDX-License-Identifier: Apache-2.0
"""Page frames, and what is in them.

Content is a label: reading a frame is seeing its label.  A guest's secret stays a secret wherever it lies, until it is
overwritten or the guest itself shares it.
"""

from enum import Enum

from guestmem.model import Index, Record, bounded

__all__ = ["Content", "Frame", "Pfn", "is_secret"]


class Pfn(Index, below="frames"):
    """Page frame number."""


class Content(Enum):
    """What a frame holds."""

    ZERO = 0
    HOST = 1  # data of the host kernel or of some process
    SHARED = 2  # data a guest chose to share, or that was written to it through a shared page
    SECRET_0 = 3  # data of VM 0 that nobody else may see
    SECRET_1 = 4
    SECRET_2 = 5
    SECRET_3 = 6


class Frame(Record):
    """One page frame, with the two entries through which the host reaches it.

    Attributes:
        pfn: its number.
        next: the frame after it, into which a load at its end can run.
        content: what it holds.
        order: the entry of the host's stage 1 (its direct map) that is for it is for 2^order frames.
        present: that entry is valid.
        stage2: the host's stage 2 maps it.  Only a hypervisor changes this.
    """

    pfn: Pfn = Pfn(0)
    next: "Frame | None" = None
    content: Content = Content.ZERO
    order: int = bounded("block")
    present: bool = True
    stage2: bool = True


def is_secret(content: Content) -> bool:
    """Whether only one guest may see this content."""
    return content is not Content.ZERO and content is not Content.HOST and content is not Content.SHARED
