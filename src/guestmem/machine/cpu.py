# SPDX-License-Identifier: Apache-2.0
"""CPUs of the host, with what their TLBs may still hold.

While an entry of the direct map is valid, any CPU may load it into its TLB at any time, so the state of a TLB is the
set of entries that have become invalid and were not flushed since: each may be there or not, decided when it matters.
"""

from guestmem.model import Record, array


class Cpu(Record):
    """One CPU.  ``stale[pfn]``: its TLB may hold a stage-1 translation that the tables no longer have."""

    stale: list[bool] = array("frames")
