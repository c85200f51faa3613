# SPDX-License-Identifier: Apache-2.0
"""What work costs, by kind: counted while running, no part of a checked state."""

from enum import Enum


class Cost(Enum):
    """Kinds of work that a protection adds or saves."""

    BLOCK_SPLIT = "block entries of the direct map split into page entries"
    TABLE_PAGE = "page-table pages allocated for splits"
    DESCRIPTOR_WRITE = "direct-map page descriptors written"
    KERNEL_FLUSH = "TLB flushes of a kernel range, on all CPUs"
    USER_FLUSH = "TLB flushes of a user mapping, on all CPUs"
    GUEST_FLUSH = "TLB flushes of a guest's stage 2"
    GUEST_FAULT = "stage-2 faults of the guest that the host handled"
    USER_FAULT = "page faults of the VMM's mapping"
    HYPERCALL = "hypercalls of the host"
    FIXUP = "faulting accesses fixed up through the exception table"
    PAGE_ZEROED = "pages zeroed"
    PAGE_ALLOCATED = "pages allocated"
