# SPDX-License-Identifier: Apache-2.0
"""The hosts of scenarios, and what must hold on them: a machine and its kernel; guest memory in a file on top."""

from __future__ import annotations

from typing import Any, ClassVar

from guestmem.guest_memfd.library import Driver, GuestMemfd, Pm, Protection
from guestmem.machine.arch import Arch
from guestmem.machine.frame import Content, Frame, Pfn
from guestmem.machine.guest import Expects, Gfn, Guest
from guestmem.machine.machine import Enforcement, Hypervisor, Machine
from guestmem.mm.exception import Loaded
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio, Kernel, folio_end, folio_page
from guestmem.model import Refused, World, always, array, part, reached, step
from guestmem.rules import (
    CONTENTS_SURVIVE,
    COUNTERS,
    FREE_FRAMES,
    KERNEL_INTACT,
    OUT_OF_SPECULATION,
    SINGLE_OWNER,
    UNHELD_FREE,
    WITHIN_FILE,
)

__all__ = ["CONTENTS_SURVIVE", "GuestMemory", "Host"]

SECRETS = (Content.SECRET_0, Content.SECRET_1, Content.SECRET_2, Content.SECRET_3)


class Host(World):
    """A machine, its kernel, a hypervisor, VMs.

    Sizes: ``vcpus`` are those of each VM, ``block`` is the order of the largest entries of the direct map, ``table`` the
    bits of an index into a table of it, ``order`` that of the largest folios.

    Attributes:
        arch: the architecture, as far as the direct map differs.
        speculation: it is claimed that no secret can be read by transient execution.
        signals: signals arrive at threads that are in the kernel.
    """

    geometry = {"frames": 3, "pages": 2, "cpus": 2, "vms": 1, "block": 1, "table": 1, "order": 0, "files": 2, "vcpus": 1}

    machine: Machine = part()
    kernel: Kernel = part()
    arch: Arch = Arch.ARM64
    speculation: bool = False
    signals: bool = False

    def host(self) -> Hypervisor:
        """The hypervisor, ready; called by ``setup``."""
        raise NotImplementedError

    def setup(self) -> None:
        self.machine.hypervisor = self.host()
        self.machine.wire()
        self.kernel.machine = self.machine
        self.kernel.arch = self.arch
        self.kernel.signals = self.signals
        if self.arch is not Arch.ARM64:
            for frame in self.machine.frames:
                frame.order = self.geometry["block"]
        self.kernel.wire()
        if len(self.machine.guests) > len(SECRETS):
            raise Refused(type(self).__name__, f"{len(self.machine.guests)} VMs", f"use at most {len(SECRETS)}")
        for guest, secret in zip(self.machine.guests, SECRETS, strict=False):
            guest.secret = secret

    def mapped(self, folio: Folio) -> bool:
        """Whether a process can reach a folio through its page table."""
        return False

    def at_work(self) -> bool:
        """Whether somebody works on folios, so that references are not yet, or not any more, where they are counted."""
        return self.kernel.pm_lock.holder != 0

    def met(self, frame: Frame, loaded: Loaded) -> None:
        """A load that nobody asked for, with an entry in the exception table, has met a frame."""
        if loaded is Loaded.PADDED:
            reached("an access is fixed up through the exception table")

    def holders(self, pfn: int) -> int:
        """How many hold a reference to a folio while nobody works on it."""
        folio = self.kernel.folios[pfn]
        return 1 << folio.order if pfn == 0 or folio.lost else 0

    def secret_files(self) -> int:
        """How many files of secret memory are open."""
        return 0

    def files_against_images(self) -> int:
        """How many open files of guest memory let no image of memory be made."""
        return 0

    def module_counted(self) -> bool:
        """Whether those who keep a module are as many as it says."""
        return True

    @always(FREE_FRAMES)
    def free_frames(self) -> bool:
        return all(
            not folio.free
            or (
                folio.frame.present
                and folio.frame.stage2
                and not folio.zapped
                and not folio.lost
                and not any(guest.reaches(folio.frame) for guest in self.machine.guests)
                and not self.mapped(folio)
            )
            for folio in self.kernel.folios
        )

    @always(KERNEL_INTACT)
    def kernel_intact(self) -> bool:
        return self.machine.frames[0].content is Content.HOST

    @always(SINGLE_OWNER)
    def single_owner(self) -> bool:
        return all(self.owners(pfn) <= 1 for pfn in Pfn.span(0, len(self.machine.frames)))

    def owners(self, pfn: Pfn) -> int:
        """How many guests have a frame as their private page."""
        count = 0
        for guest in self.machine.guests:
            if guest.holds_private(self.machine.frames[pfn]):
                count += 1
        return count

    @always(COUNTERS)
    def references(self) -> bool:
        return self.at_work() or (
            all(folio.refcount == self.holders(pfn) for pfn, folio in enumerate(self.kernel.folios))
            and self.kernel.secretmem_users == self.secret_files()
            and self.kernel.guest_memfd_users == self.files_against_images()
            and self.module_counted()
        )

    @always(UNHELD_FREE)
    def unheld_free(self) -> bool:
        return self.at_work() or all(
            folio.free or folio.refcount > 0 or folio.hwpoison or self.in_large(pfn)
            for pfn, folio in enumerate(self.kernel.folios)
        )

    def in_large(self, pfn: int) -> bool:
        """Whether a frame is in a large folio that somebody holds, and not its first."""
        return any(folio.refcount > 0 and folio.frame.pfn < pfn < folio_end(folio) for folio in self.kernel.folios)

    @always(OUT_OF_SPECULATION)
    def out_of_speculation(self) -> bool:
        return not self.speculation or all(
            not self.machine.exposes(frame) or not (frame.present or any(cpu.stale[frame.pfn] for cpu in self.machine.cpus))
            for frame in self.machine.frames
        )


class GuestMemory(Host):
    """A host with a file of guest memory.

    Attributes:
        protection: the library's policy.
        batched: see ``GuestMemfd``.
        shifted: a guest has the file in two slots, each page one gfn further on and the last at gfn 0.
        discarding: by page offset, the VMM is punching a hole there.
    """

    # One page is cheap; two show a wrong trim, shifted a gfn taken for a page offset, two VMs a half-done bind; only with
    # four frames do two pages of the file lie in one block entry.  What x86 splits is split alike by arm64 with BBML2, which
    # every hypervisor has.
    ladder: ClassVar[list[dict[str, Any]]] = [
        {"pages": 1, "frames": 2},
        {"pages": 1, "frames": 2, "arch": Arch.ARM64_BBML2},
        {"pages": 1, "frames": 2, "vms": 2},
        {"pages": 2, "frames": 3},
        {"pages": 2, "frames": 3, "shifted": True},
        {"pages": 2, "frames": 3, "vms": 2},
        {"pages": 2, "frames": 4, "arch": Arch.ARM64_BBML2},
        {"pages": 3, "frames": 4},
    ]

    file: GuestMemfd = part()
    protection: Protection = Protection.NONE
    batched: bool = False
    shifted: bool = False
    discarding: list[bool] = array("pages")

    def interfered(self, err: int) -> bool:
        """Whether somebody else may have been the cause of an error, and be gone by now."""
        return False

    def offered(self, pgoff: Pgoff) -> bool:
        """Whether the guest that has a page has offered it to the host."""
        guest = self.file.owner[pgoff]
        return guest is not None and self.file.bound[pgoff] and guest.gave[self.file.gfn[pgoff]]

    # ---- what a hypervisor's scenario says

    def agrees(self, guest: Guest, gfn: Gfn, shared: bool) -> bool:
        """Whether a guest has a page as the file says since a conversion, if it has it already."""
        entry = guest.entries[gfn]
        return not entry.live or entry.private != shared

    def client(self) -> Driver:
        """The driver; called by ``setup``, after the hypervisor is ready."""
        raise NotImplementedError

    def give(self, guest: Guest, gfn: Gfn) -> None:
        """The guest offers the host a page."""
        raise NotImplementedError

    @step
    def keep(self, guest: Guest, gfn: Gfn) -> None:
        """The guest takes back a page that it offered, where it can by itself."""

    def may_share(self, pgoff: Pgoff) -> bool:
        """Whether a VMM that means well makes a page shared."""
        return True

    def setup(self) -> None:
        super().setup()
        # Only do_sea() needs to learn it: the abort that pKVM injects is handled like any other.
        if self.shifted and self.geometry["pages"] < 2:
            raise Refused("shifted", "one page has nowhere to go", "use at least 2 pages")
        needs_fixup = self.machine.hypervisor.enforcement is Enforcement.SEA
        self.kernel.fixup_stage2 = needs_fixup and self.protection in (Protection.FIXUP, Protection.UNMAP_FIXUP)
        self.file.kernel = self.kernel
        self.file.driver = self.client()
        self.file.protection = self.protection
        self.file.batched = self.batched
        self.file.order = self.geometry["order"]

    def begun(self) -> bool:
        return any(guest.running for guest in self.machine.guests)

    def mapped(self, folio: Folio) -> bool:
        return any(entry.folio is folio for entry in self.file.mapping.user)

    def at_work(self) -> bool:
        return super().at_work() or self.file.mapping.invalidate_lock.busy()

    def holders(self, pfn: int) -> int:
        count = super().holders(pfn) + self.file.driver.holds(self.kernel.folios[pfn])
        for slot in self.file.mapping.slots:
            if slot is self.kernel.folios[pfn]:
                count += 1
        return count

    def files_against_images(self) -> int:
        return 1 if self.file.open and (self.file.pm is Pm.AVAILABLE or self.file.pm is Pm.REFUSE) else 0

    def module_counted(self) -> bool:
        module = self.file.driver.module
        return module is None or module.refcount == (1 if self.file.open else 0) + self.file.driver.holds_module()

    @always(WITHIN_FILE)
    def within_file(self) -> bool:
        mapping = self.file.mapping
        return mapping.within_size() and not any(
            self.file.bound[pgoff] for pgoff in Pgoff.span(mapping.i_size, len(mapping.slots))
        )

    @always(CONTENTS_SURVIVE)
    def contents(self) -> bool:
        return all(
            guest.expects[gfn] is Expects.NOTHING or self.keeps(guest, gfn)
            for guest in self.machine.guests
            for gfn in Gfn.span(0, len(guest.entries))
        )

    def file_of(self, guest: Guest) -> GuestMemfd:
        """The file that a guest has its pages in."""
        return self.file

    def keeps(self, guest: Guest, gfn: Gfn) -> bool:
        """Whether what a guest put into a page is still where it, or the host, will find it; true of what the VMM discards."""
        file = self.file_of(guest)
        found, pgoff = file.find(guest, gfn)
        folio = file.mapping.slots[pgoff]
        if found and self.discarding[pgoff]:
            return True
        if folio is None or not found:
            return False
        if guest.expects[gfn] is Expects.SECRET:
            return folio_page(self.kernel, folio, pgoff).content is guest.secret
        return folio_page(self.kernel, folio, pgoff).content is Content.SHARED
