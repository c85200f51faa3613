# SPDX-License-Identifier: Apache-2.0
"""The defects of posted series by number, and the rule that finds each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guestmem.guest_memfd.library import Protection
from guestmem.machine.arch import Arch
from guestmem.model import World
from guestmem.scenarios.catalogue import Scenario
from guestmem.upstream import (
    direct_map_series,
    gunyah_v17,
    hugetlb_1g,
    kvm_guest_memfd,
    library_rfc,
    pkvm_mem_protect,
    secretmem_before,
)

__all__ = ["DEFECTS", "Defect"]

RFC_V1 = "RFC v1 of the library, 2024-08-05"
RFC_V2 = "RFC v2 of the library, 2024-08-29: mm/guest_memfd.c"
GUNYAH = "CodeLinaro-mirror/linux-kernel_gunyah-linux: drivers/virt/gunyah"


@dataclass(frozen=True)
class Defect:
    """A defect of a posted series, as a scenario in which it happens.

    Attributes:
        scenario: the world, its options and sizes; its name is the number, its text what goes wrong.
        source: where it was seen.
        cured: the same without the defect, in which no rule is broken.
        innocent: why it is no defect; the empty string if it is one.
    """

    scenario: Scenario
    source: str
    cured: Scenario
    innocent: str = ""


def _defect(
    world: type[World], source: str, small: Mapping[str, int] = {}, cure: Mapping[str, Any] = {}, **options: Any
) -> Defect:
    """A world that differs in the defect from the world it derives from; ``cure``: options that the latter has beside."""
    if "protection" in world.fields():
        options.setdefault("protection", Protection.UNMAP)
    text = (world.__doc__ or "").partition("\n")[0]
    cured = Scenario(f"{world.__name__}-cured", f"cured: {text}", world.__bases__[0], {**options, **cure}, small=small)
    return Defect(Scenario(world.__name__, text, world, options, small=small), source, cured)


ONE, TWO = {"pages": 1, "frames": 2}, {"pages": 2, "frames": 3}

DEFECTS = {
    defect.scenario.name: defect
    for defect in (
        _defect(library_rfc.B1, f"{RFC_V1}: guest_memfd_punch_hole() and kvm_gmem_invalidate_begin()", TWO),
        _defect(library_rfc.B3, f"{RFC_V1}: guest_memfd_punch_hole()", ONE),
        _defect(library_rfc.B5, f"Hildenbrand's answers to {RFC_V1}"),
        _defect(library_rfc.B6, f"Rapoport's answer to {RFC_V1}", ONE),
        _defect(library_rfc.B11, f"{RFC_V2}, guest_memfd_grab_folio()"),
        _defect(library_rfc.B12, f"{RFC_V2}, guest_memfd_grab_folio()", ONE),
        _defect(library_rfc.B13, f"{RFC_V2}, guest_memfd_make_accessible()", ONE),
        _defect(library_rfc.B15, f"{RFC_V2}, guest_memfd_grab_folio()", ONE, arch=Arch.ARM64_BBML2),
        _defect(library_rfc.B17, f"{RFC_V2}, guest_memfd_release_folio()", ONE),
        _defect(gunyah_v17.B22, f"{GUNYAH}/vm_mgr_mem.c, reclaim_range", ONE),
        _defect(gunyah_v17.B23, f"{GUNYAH}/guest_memfd.c, the invalidate callback", ONE),
        _defect(gunyah_v17.B24, f"{GUNYAH}/guest_memfd.c, the accessible callback"),
        _defect(gunyah_v17.B26, f"{GUNYAH}/guest_memfd.c, gunyah_gmem_demand_page()", ONE),
        _defect(gunyah_v17.B31, "jglathe/linux_ms_dev_kit: drivers/virt/gunyah/guest_memfd.c"),
        _defect(direct_map_series.B34, "Jackman, 2025-11-07, on version 7 of direct map removal", ONE),
        _defect(direct_map_series.B38, "Hansen and Edgecombe on direct map removal (083750)", arch=Arch.X86, block=2),
        _defect(direct_map_series.B41, "kalyazin/linux: virt/kvm/guest_memfd.c, where it is mended"),
        _defect(secretmem_before.B44, "6f86d0534fdd, which mends it", clears_first=True),
        _defect(secretmem_before.B46, "dd085fe9a8eb, which mends it"),
        _defect(kvm_guest_memfd.B48, "syzbot; ae431059e75d, which mends it"),
        _defect(kvm_guest_memfd.B49, "virt/kvm/guest_memfd.c, kvm_gmem_populate()"),
        _defect(hugetlb_1g.B55, "RFC v2 of 1G pages, 2025-05-14", arch=Arch.X86, block=2),
        _defect(hugetlb_1g.B56, "RFC v2 of 1G pages, 2025-05-14"),
        _defect(pkvm_mem_protect.B60, "8234409ffb65 and effc0a39b8e0, which mend it", ONE, asks=True),
        _defect(
            pkvm_mem_protect.B62,
            "arch/arm64/kvm/hyp/nvhe/mem_protect.c of Linux 6.12",
            ONE,
            {"protection": Protection.UNMAP},
            asks=True,
            el2_panics=True,
            protection=Protection.NONE,
        ),
        _defect(pkvm_mem_protect.B63, "arch/arm64/kvm/hyp/nvhe/mem_protect.c, host_stage2_force_pte_cb()", asks=True),
        _defect(secretmem_before.B65, "f9b141f93659, which mends it", clears_first=True),
        _defect(secretmem_before.B66, "84ac013046cc, which mends it; syzbot 9bd2b7adbd34b30b87e4", clears_first=True),
    )
}
