# SPDX-License-Identifier: Apache-2.0
"""What counted work takes on a machine that was measured: the costs of :mod:`guestmem.linux.calibrate` as prices."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from guestmem.linux import calibrate
from guestmem.model import Refused

__all__ = ["Profile", "in_words", "profile"]

#: The price of a kind of work: what one measured cost is above another, if there is another.
PRICES = {
    "block_split": ("direct_map_split", ""),
    "kernel_flush": ("memfd_secret_fault", "memfd_fault"),
    "user_flush": ("guest_memfd_punch_mapped", "guest_memfd_punch"),
    "guest_flush": ("guest_memfd_punch_guest", "guest_memfd_punch"),
    "guest_fault": ("guest_fault_allocated", ""),
    "user_fault": ("guest_memfd_refault", ""),
    "page_allocated": ("guest_memfd_allocate", ""),
}
#: What is measured together with another kind, and has its price there.
INCLUDED = {"table_page": "block_split", "descriptor_write": "kernel_flush", "page_zeroed": "page_allocated"}
#: Each kind of work in words: one of it, and many.
WORDS = {
    "block_split": ("block split", "blocks split"),
    "table_page": ("page-table page", "page-table pages"),
    "descriptor_write": ("descriptor written", "descriptors written"),
    "kernel_flush": ("kernel TLB flush", "kernel TLB flushes"),
    "user_flush": ("user TLB flush", "user TLB flushes"),
    "guest_flush": ("guest TLB flush", "guest TLB flushes"),
    "guest_fault": ("guest fault", "guest faults"),
    "user_fault": ("user fault", "user faults"),
    "hypercall": ("hypercall", "hypercalls"),
    "fixup": ("fixup", "fixups"),
    "page_zeroed": ("page zeroed", "pages zeroed"),
    "page_allocated": ("page allocated", "pages allocated"),
    "refused": ("operation refused", "operations refused"),
}


@dataclass(frozen=True)
class Profile:
    """Prices in nanoseconds by kind of work, and the machine they were measured on."""

    machine: str
    prices: Mapping[str, float]

    def nanoseconds(self, cost: Mapping[str, int]) -> float:
        """What so much work takes, as far as it has a price."""
        return sum(count * self.prices.get(kind, 0.0) for kind, count in cost.items())

    def unpriced(self, kinds: Iterable[str]) -> list[str]:
        """The kinds of work that have no price."""
        return [kind for kind in kinds if INCLUDED.get(kind, kind) not in self.prices and kind != "refused"]


def profile(file: str | os.PathLike[str] | None = None) -> Profile:
    """The prices in a file that ``guestmem calibrate`` wrote; without one, in the profile that is shipped.

    Raises :class:`Refused` for a file that is none.
    """
    measured = calibrate.default() if file is None else _read(os.fspath(file))
    costs, environment = measured["costs"], measured["environment"]
    prices = {}
    for kind, (cost, above) in PRICES.items():
        if cost in costs and (not above or above in costs):
            less = costs[above]["median"] if above else 0.0
            prices[kind] = max(costs[cost]["median"] - less, 0.0)
    return Profile(f"{environment['cpu']}, {environment['machine']}, Linux {environment['kernel']}", prices)


def _read(file: str) -> dict[str, Any]:
    instead = "name a file written by calibrate -o"
    try:
        with open(file, encoding="utf-8") as stream:
            found: dict[str, Any] = json.load(stream)
        if found["unit"] != "ns per page" or not all("median" in cost for cost in found["costs"].values()):
            raise ValueError
        if not {"cpu", "machine", "kernel"} <= found["environment"].keys():
            raise ValueError
    except OSError as error:
        raise Refused(file, f"{error.strerror}", instead) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused(file, "no profile of costs", instead) from error
    return found


def in_words(cost: Mapping[str, int]) -> str:
    """Counted work as a phrase."""
    return ", ".join(f"{count} {WORDS[kind][count != 1]}" for kind, count in cost.items())
