# SPDX-License-Identifier: Apache-2.0
"""guest_memfd of huge pages from hugetlb, as posted in May 2025, and what is wrong in it.

"[RFC PATCH v2 00/51] 1G page support for guest_memfd", 2025-05-14.
"""

from __future__ import annotations

from errno import ENOMEM

from guestmem.guest_memfd.hugetlb import Hugetlb1G
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.machine.word import u64
from guestmem.mm.filemap import Pgoff
from guestmem.model import part
from guestmem.scenarios.huge import HugeOnKvm
from guestmem.scenarios.hypervisors import EagerPagesOnGunyah
from guestmem.upstream.library_rfc import KeptInDirectMap

__all__ = ["B55", "B56", "HugetlbRfc"]


class HugetlbRfc(KeptInDirectMap, Hugetlb1G):
    """Version 2 of 1G pages: huge pages of hugetlb, which stay in the direct map."""


class ErrorShadowed(GuestMemfd):
    """A variable of an inner block has the name of the result: -ENOMEM is lost."""

    def convert(self, start: int, end: int, to_shared: bool) -> tuple[int, int]:
        err, at = super().convert(start, end, to_shared)
        return (0 if err == -ENOMEM else err), at


class B55(HugeOnKvm):
    """A conversion succeeds, and nothing or a part was converted."""

    file: ErrorShadowed = part()


class EndlessRollback(GuestMemfd):
    """What was begun is undone from the last page to the first, as long as an unsigned index is not below it."""

    def stay_shared(self, start: int, end: int) -> None:
        index = u64(end - 1)
        while index >= start:
            folio = self.mapping.slots[Pgoff(index)]
            if folio is not None and self.shared[index]:
                self.undo(Pgoff(index), folio)
            index = u64(index - 1)


class B56(EagerPagesOnGunyah):
    """Undoing a conversion from page 0 on does not end."""

    file: EndlessRollback = part()
