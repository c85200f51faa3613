# SPDX-License-Identifier: Apache-2.0
"""The libraries that were posted, by name, and the worlds in which they are compared: the standard cast, with populate."""

from __future__ import annotations

from typing import Any

from guestmem.guest_memfd.library import GuestMemfd, Protection
from guestmem.machine.guest import Guest
from guestmem.mm.filemap import Pgoff
from guestmem.model import may, part, require
from guestmem.rules import CAUSE
from guestmem.scenarios.cast import Kcore, VmOwner
from guestmem.scenarios.catalogue import Scenario
from guestmem.scenarios.hugetlb import HugetlbOnKvm
from guestmem.scenarios.hypervisors import OnGunyah, OnKvm, OnPkvm
from guestmem.upstream.direct_map_series import DirectMapV7, DirectMapV12
from guestmem.upstream.hugetlb_1g import HugetlbRfc
from guestmem.upstream.in_place import InPlaceV6, InPlaceV7, InPlaceV8
from guestmem.upstream.kvm_6_18 import Kvm618, OtherMemory
from guestmem.upstream.library_rfc import RfcV1, RfcV2, ThirdDesign

__all__ = ["HOSTS", "LIBRARIES", "fits", "parts", "scenario"]

LIBRARIES: dict[str, type[GuestMemfd]] = {
    "ours": GuestMemfd,
    "rfc-v1": RfcV1,
    "rfc-v2": RfcV2,
    "third": ThirdDesign,
    "direct-map-v7": DirectMapV7,
    "direct-map-v12": DirectMapV12,
    "kvm-6.18": Kvm618,
    "hugetlb-1g": HugetlbRfc,
    "v6": InPlaceV6,
    "v7": InPlaceV7,
    "v8": InPlaceV8,
}
"""v6, v7, v8 are those of conversion in place."""


class Populates(VmOwner):
    """A VMM that may populate the first page of a VM."""

    def started(self, guest: Guest, before: Guest | None) -> None:
        if may("populate"):
            err = self.file.populate(self.machine.cpus[0], guest, Pgoff(0))
            require(self.may_fault(err, Pgoff(0), True), CAUSE)


class PopulatedKvm(Populates, OnKvm):
    """The standard cast on KVM, with populate."""


class PopulatedKvm618(OtherMemory, PopulatedKvm):
    """The standard cast on KVM 6.18, with populate."""

    file: Kvm618 = part()


class PopulatedHugetlb(HugetlbOnKvm, Populates, Kcore):
    """Huge pages of hugetlb on KVM, with populate."""

    file: HugetlbRfc = part()


class PopulatedGunyah(Populates, OnGunyah):
    """The standard cast on Gunyah, with populate."""


HOSTS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "kvm": (PopulatedKvm, {}),
    "gunyah": (PopulatedGunyah, {}),
    "pkvm-asks": (OnPkvm, {"asks": True}),
}
OWN: dict[type[GuestMemfd], dict[str, tuple[type[Any], dict[str, Any]]]] = {
    Kvm618: {"kvm": (PopulatedKvm618, {"frames": 3})},
    HugetlbRfc: {"kvm": (PopulatedHugetlb, {"pages": 2, "frames": 4})},
}
"""Libraries that are part of a hypervisor, and their hosts; a page in the file and one beside it need a frame more."""

SMALL = {"pages": 1, "frames": 2}


def fits(library: type[GuestMemfd], host: str) -> bool:
    """Whether there is such a library on a host."""
    return host in OWN.get(library, HOSTS)


def parts(library: type[GuestMemfd]) -> list[type[GuestMemfd]]:
    """What a posted library consists of: the classes that it derives from, each wrong in one way; itself if there is one."""
    bases = [base for base in library.__bases__ if base is not GuestMemfd and issubclass(base, GuestMemfd)]
    return bases if len(bases) > 1 else [library]


def scenario(name: str, library: type[GuestMemfd], host: str) -> Scenario:
    """A library on one of ``HOSTS``, where its pages leave the direct map if it knows how."""
    base, options = OWN.get(library, HOSTS)[host]
    members = {"__module__": __name__, "__annotations__": {"file": library}, "file": part()}
    world = type(f"{library.__name__}On{base.__name__}", (base,), members)
    given = {**SMALL, **options, "protection": Protection.UNMAP}
    return Scenario(f"{name} on {host}", (library.__doc__ or "").partition("\n")[0], world, given)
