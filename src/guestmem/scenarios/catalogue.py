# SPDX-License-Identifier: Apache-2.0
"""The scenarios by name, and what is expected of each under each protection."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guestmem.guest_memfd.library import Pm, Protection
from guestmem.machine.arch import Arch
from guestmem.model import Refused, Verdict, World
from guestmem.model.errors import NO_DEADLOCK, NO_PANIC
from guestmem.rules import CONTENTS_SURVIVE, DONE_OR_NOTHING, HOST_READS_SECRET, HOST_WRITES_PRIVATE
from guestmem.scenarios.boot import BootOnGunyah
from guestmem.scenarios.huge import (
    HalfwayOnGunyah,
    HugeOnCca,
    HugeOnGunyah,
    HugeOnKvm,
    HugeOnSnp,
    HugeOnTdx,
    HugePartsOnKvm,
    HugeWithReferences,
    MisalignedOnKvm,
)
from guestmem.scenarios.hugetlb import HugetlbOnKvm
from guestmem.scenarios.hypercalls import GunyahHypercalls, PkvmHypercalls
from guestmem.scenarios.hypervisors import (
    BeyondOnKvm,
    BlocksOnKvm,
    EagerOnGunyah,
    EagerPagesOnGunyah,
    FixedUpOnGunyah,
    ForcedOnPkvm,
    OnCca,
    OnGunyah,
    OnKvm,
    OnPkvm,
    OnSnp,
    OnTdx,
    PaddedOnKvm,
    PartsOnKvm,
    SignalsOnKvm,
    SlotsOnGunyah,
    SlotsOnKvm,
    TwoOnGunyah,
    TwoOnKvm,
    TwoThreadsOnGunyah,
    TwoThreadsOnKvm,
    WalkedOnGunyah,
    WalkedOnKvm,
    WalkedOnPkvm,
)
from guestmem.scenarios.module import ModuleUnload
from guestmem.scenarios.power import HibernateOnGunyah, HibernateOnKvm, HibernateOnPkvm, KexecOnGunyah, LiveUpdate, ReclaimOnKvm
from guestmem.scenarios.refusing import RefusingHost
from guestmem.scenarios.secretmem import SecretMemory, SizedSecret, Unsplittable
from guestmem.scenarios.story import Story
from guestmem.scenarios.users import BatchesOnKvm, BrokenMemory, BrokenOnGunyah, Gup, HugeWithBatches, PfnCache

__all__ = ["ARCHES", "PROTECTIONS", "SCENARIOS", "Scenario", "find"]

PROTECTIONS = {p.name.lower().replace("_", "+"): p for p in Protection}
ARCHES = {a.name.lower().replace("_", "-"): a for a in Arch}
HOLDS = ""


@dataclass(frozen=True)
class Scenario:
    """A world with a name.

    ``expected`` maps a protection, or the empty string in a world that has none, to the rule that is broken first; to the
    empty string where all rules hold.  ``arch`` is what the names of the architectures begin with on which there is such
    a host.  ``small`` has sizes at which it is explored in a second or two.
    """

    name: str
    text: str
    world: type[World]
    options: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)
    arch: str = "arm64"
    small: Mapping[str, int] = field(default_factory=dict)

    def build(self, **options: Any) -> World:
        """The world, with sizes and options over the scenario's own.  Raises :class:`Refused`, for errors of its own too."""
        try:
            return self.world(**{**self.options, **options})
        except (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError, Verdict) as error:
            raise Refused(self.name, f"{type(error).__name__} while it is built: {error}", "correct its setup()") from error

    def ladder(self, **given: Any) -> list[dict[str, Any]]:
        """The options to build it with, rung by rung, the cheapest first: those of its world, its own, and those given."""
        rungs: list[dict[str, Any]] = []
        for rung in self.world.ladder:
            options = {**rung, **self.options, **given}
            if options not in rungs:
                rungs.append(options)
        return rungs

    @property
    def file(self) -> str:
        """The user's file that it is from; the empty string if it is one of the project's."""
        file, colon, _ = self.name.rpartition(":")
        return os.path.abspath(file) if colon else ""

    @property
    def base(self) -> Scenario | None:
        """The project's scenario that a user's world derives from: the nearest, without options if there is such a one."""
        if not self.file:
            return None
        derived = (
            s for cls in self.world.__mro__ for s in sorted(SCENARIOS.values(), key=lambda s: len(s.options)) if s.world is cls
        )
        return next(derived, None)

    @property
    def sizes(self) -> set[str]:
        """The names of the sizes of its world."""
        return {name for cls in self.world.__mro__ for name in vars(cls).get("geometry", {})}

    def known_to_break(self, given: Mapping[str, Any]) -> Scenario | None:
        """The project's scenario that a user's world derives from, if it breaks a rule with what is given."""
        protection = next((name for name, value in PROTECTIONS.items() if value is given.get("protection")), "")
        return self.base if self.base and self.base.expected.get(protection) else None

    @property
    def protection(self) -> Protection | None:
        """The protection under which it is expected to hold, unmap before others and in doubt; None: it has none."""
        if "protection" not in self.world.fields():
            return None
        expected = (self.base or self).expected
        safe = [name for name in ("unmap", "fixup", "unmap+fixup") if expected.get(name) == HOLDS]
        return PROTECTIONS[safe[0] if safe else "unmap"]


def _each(none: str, unmap: str, fixup: str, both: str) -> dict[str, str]:
    return dict(zip(PROTECTIONS, (none, unmap, fixup, both), strict=True))


SMALL = {"pages": 1, "frames": 2}
ON_X86 = {"arch": Arch.X86}
ON_KVM = _each(HOST_READS_SECRET, HOLDS, HOST_READS_SECRET, HOLDS)
ON_GUNYAH = _each(NO_PANIC, HOLDS, NO_PANIC, HOLDS)
ALWAYS = _each(HOLDS, HOLDS, HOLDS, HOLDS)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        # ---- the standard cast
        Scenario("kvm", "plain KVM: nothing but the direct map keeps the host out", OnKvm, {}, ON_KVM, "", SMALL),
        Scenario(
            "pkvm",
            "pKVM of Linux 7.3: a stage-2 abort is injected; guests take pages back without asking",
            OnPkvm,
            expected=_each(*[CONTENTS_SURVIVE] * 4),
            small=SMALL,
        ),
        Scenario(
            "gunyah",
            "Gunyah: the host gets a synchronous external abort for a lent page",
            OnGunyah,
            expected=ON_GUNYAH,
            small=SMALL,
        ),
        Scenario(
            "pkvm-asks",
            "pKVM whose guests wait for the host's answer before they take a page back",
            OnPkvm,
            {"asks": True},
            _each(CONTENTS_SURVIVE, HOLDS, CONTENTS_SURVIVE, HOLDS),
            small=SMALL,
        ),
        Scenario(
            "pkvm-forced",
            "pKVM whose guests may lose a page to an access of the host, and then end",
            ForcedOnPkvm,
            {"asks": True},
            {"none": HOLDS, "fixup": HOLDS},
        ),
        Scenario(
            "pkvm-forced-unasked",
            "the same where a guest takes back without an answer: each time that the host tries again it faults again",
            ForcedOnPkvm,
            {},
            {"none": NO_DEADLOCK, "fixup": NO_DEADLOCK},
        ),
        Scenario(
            "pkvm-6.12",
            "pKVM of Linux 6.12: a host access to a guest's page is a bug at EL2",
            OnPkvm,
            {"el2_panics": True, "asks": True},
            ON_GUNYAH,
            small=SMALL,
        ),
        Scenario(
            "pkvm-6.12-unasked",
            "pKVM of Linux 6.12 whose guests take pages back without asking: the VMM touches one that it has mapped",
            OnPkvm,
            {"el2_panics": True},
            _each(*[NO_PANIC] * 4),
            small=SMALL,
        ),
        Scenario(
            "gunyah-bbml2",
            "Gunyah on a direct map of block entries, split when a page leaves it, which may fail",
            OnGunyah,
            {"arch": Arch.ARM64_BBML2},
            ON_GUNYAH,
            small=SMALL,
        ),
        Scenario(
            "bbm-split",
            "KVM on a direct map of block entries that are split by break-before-make while in use",
            OnKvm,
            {"arch": Arch.ARM64_BBM},
            _each(HOST_READS_SECRET, NO_PANIC, HOST_READS_SECRET, NO_PANIC),
            small=SMALL,
        ),
        Scenario(
            "bbm-zeropad",
            "names looked up on KVM while block entries are split by break-before-make: the fixup reads without one",
            PaddedOnKvm,
            {"arch": Arch.ARM64_BBM},
            {"unmap": NO_PANIC, "unmap+fixup": NO_PANIC},
            "",
        ),
        Scenario(
            "gunyah-two-vms",
            "two VMs on Gunyah that have the same page of a file, one after the other",
            TwoOnGunyah,
            expected=ON_GUNYAH,
            small=SMALL,
        ),
        Scenario(
            "gunyah-eager",
            "Gunyah, with a driver that lends a page when it becomes private, not when the guest touches it",
            EagerOnGunyah,
            expected=ON_GUNYAH,
            small=SMALL,
        ),
        Scenario(
            "kvm-two-vms",
            "two VMs on KVM that have the same page of a file, one after the other",
            TwoOnKvm,
            expected=ON_KVM,
            arch="",
            small=SMALL,
        ),
        Scenario(
            "signals",
            "KVM, where signals end allocations: what was allocated before stays",
            SignalsOnKvm,
            {"signals": True},
            ON_KVM,
            "",
            SMALL,
        ),
        Scenario(
            "batched-flush",
            "KVM, where allocation flushes once for all its pages: in between, a guest may have one that a TLB has too",
            OnKvm,
            {"batched": True},
            _each(*[HOST_READS_SECRET] * 4),
            "",
            SMALL,
        ),
        # ---- the standard cast, and one who asks whether the direct map has a page before reading it with a plain load
        Scenario(
            "kvm-walker",
            "KVM, and a walker of memory: a page leaves the direct map between its question and its load",
            WalkedOnKvm,
            expected=_each(HOST_READS_SECRET, NO_PANIC, HOST_READS_SECRET, NO_PANIC),
            arch="",
            small=SMALL,
        ),
        Scenario(
            "gunyah-fixed-up",
            "Gunyah, where each access that nobody asked for has an exception-table entry",
            FixedUpOnGunyah,
            expected=_each(NO_PANIC, HOLDS, HOLDS, HOLDS),
            small=SMALL,
        ),
        Scenario(
            "gunyah-walker",
            "Gunyah, and a walker of memory: a page leaves the direct map between its question and its load",
            WalkedOnGunyah,
            expected=_each(*[NO_PANIC] * 4),
            small=SMALL,
        ),
        Scenario(
            "pkvm-walker",
            "pKVM whose guests wait for an answer, and a walker of memory",
            WalkedOnPkvm,
            {"asks": True},
            _each(CONTENTS_SURVIVE, NO_PANIC, CONTENTS_SURVIVE, NO_PANIC),
            small=SMALL,
        ),
        # ---- more who act
        Scenario("kvm-size", "KVM, where a VMM asks for pages beyond the end of its file", BeyondOnKvm, {}, ALWAYS, ""),
        Scenario("kvm-two-vcpus", "a VM of two vCPUs on KVM", OnKvm, {"vcpus": 2}, ON_KVM, "", SMALL),
        Scenario(
            "gunyah-two-vcpus",
            "a VM of two vCPUs on Gunyah, one of which may find that the other was faster",
            OnGunyah,
            {"vcpus": 2},
            ON_GUNYAH,
            small=SMALL,
        ),
        Scenario(
            "pkvm-two-vcpus",
            "a VM of two vCPUs on pKVM whose guests wait for an answer",
            OnPkvm,
            {"asks": True, "vcpus": 2},
            _each(CONTENTS_SURVIVE, HOLDS, CONTENTS_SURVIVE, HOLDS),
            small=SMALL,
        ),
        Scenario(
            "gunyah-eager-pages",
            "two pages on Gunyah, lent when they become private: the second may fail, and the first is not given back",
            EagerPagesOnGunyah,
            expected=ALWAYS,
        ),
        Scenario("kvm-two-threads", "a VMM of two threads on KVM, that work on one file", TwoThreadsOnKvm, {}, ALWAYS, ""),
        Scenario("gunyah-two-threads", "a VMM of two threads on Gunyah, that work on one file", TwoThreadsOnGunyah, {}, ALWAYS),
        Scenario("kvm-parts", "two VMs on KVM that have parts of one file, and touch all of it", PartsOnKvm, {}, ALWAYS, ""),
        Scenario("kvm-slots", "a VM on KVM that has parts of a file at any gfn, while it runs", SlotsOnKvm, {}, ALWAYS, ""),
        Scenario("gunyah-slots", "a VM on Gunyah that has parts of a file at any gfn, while it runs", SlotsOnGunyah, {}, ALWAYS),
        Scenario("gunyah-boot", "a VM on Gunyah that starts from a memory parcel, or does not", BootOnGunyah, {}, ALWAYS),
        Scenario("huge-parts", "two VMs on KVM, each with a page of one large folio", HugePartsOnKvm, {}, ALWAYS, ""),
        Scenario("huge-misaligned", "a large folio on KVM at a gfn where a block cannot be", MisalignedOnKvm, {}, ALWAYS, ""),
        Scenario(
            "kvm-blocks",
            "KVM on a direct map of block entries, one of which has two pages of a file",
            BlocksOnKvm,
            {"arch": Arch.X86},
            ON_KVM,
            "",
        ),
        # ---- large folios
        Scenario("huge-split", "a large folio on KVM, split when a part of it is shared", HugeOnKvm, {}, ON_KVM, ""),
        Scenario("huge-split-gunyah", "a large folio on Gunyah, split when a part of it is shared", HugeOnGunyah, {}, ON_GUNYAH),
        Scenario(
            "huge-halfway",
            "large folios on Gunyah, whose hypercalls over several pages may fail half way",
            HalfwayOnGunyah,
            {},
            ALWAYS,
        ),
        Scenario(
            "huge-split-x86",
            "a large folio on KVM that leaves the direct map as a block, whose split may fail",
            HugeOnKvm,
            {"arch": Arch.X86, "block": 2},
            ON_KVM,
            "",
        ),
        Scenario(
            "huge-split-refs",
            "a large folio on KVM, to which others take references for a moment",
            HugeWithReferences,
            {},
            ON_KVM,
            "",
        ),
        Scenario(
            "huge-lru-batches",
            "large folios on KVM, which CPUs keep in batches of the LRU for a while",
            HugeWithBatches,
            {},
            ALWAYS,
            "",
        ),
        Scenario("kvm-hugetlb", "huge pages of hugetlb on KVM, from a pool and home to it", HugetlbOnKvm, {}, ALWAYS, ""),
        # ---- confidential computing
        Scenario(
            "snp",
            "SEV-SNP: the RMP stops stores of the host, and loads show it nothing",
            OnSnp,
            ON_X86,
            ALWAYS,
            "x86",
            small=SMALL,
        ),
        Scenario(
            "tdx",
            "TDX: nothing stops the host, loads show it nothing; a zap is the end of a page",
            OnTdx,
            ON_X86,
            ALWAYS,
            "x86",
            small=SMALL,
        ),
        Scenario(
            "tdx-two-vcpus",
            "a VM of two vCPUs on TDX, one of which may find that the other was faster",
            OnTdx,
            {**ON_X86, "vcpus": 2},
            ALWAYS,
            "x86",
            SMALL,
        ),
        Scenario("cca", "CCA: the host gets a granule protection fault for a realm's page", OnCca, {}, ON_GUNYAH, small=SMALL),
        Scenario(
            "huge-split-snp", "a large folio on SEV-SNP, zapped whole and mapped again in pages", HugeOnSnp, ON_X86, ALWAYS, "x86"
        ),
        Scenario("huge-split-tdx", "a large folio on TDX, demoted before a part of it goes", HugeOnTdx, ON_X86, ALWAYS, "x86"),
        Scenario(
            "huge-split-tdx-whole",
            "a large folio on TDX, zapped whole where a part of it is to go",
            HugeOnTdx,
            {**ON_X86, "demotes": False},
            _each(*[CONTENTS_SURVIVE] * 4),
            "x86",
        ),
        Scenario(
            "huge-split-cca", "a large folio on CCA, whose entry becomes a table before a part goes", HugeOnCca, {}, ON_GUNYAH
        ),
        # ---- other users of the direct map, and of guest memory
        Scenario(
            "secretmem",
            "memfd_secret as it is: a page returns before it is cleared",
            SecretMemory,
            {},
            {"": HOST_READS_SECRET},
            "",
        ),
        Scenario(
            "secretmem-clears-first",
            "memfd_secret, a page cleared before it returns to the direct map",
            SecretMemory,
            {"clears_first": True},
            {"": HOLDS},
            "",
        ),
        Scenario(
            "secretmem-blocks",
            "memfd_secret on a direct map of block entries, whose split may fail",
            SecretMemory,
            {"clears_first": True, "arch": Arch.ARM64_BBML2},
            {"": HOLDS},
            "",
        ),
        Scenario(
            "secretmem-size",
            "memfd_secret, whose size is set while it is used",
            SizedSecret,
            {"clears_first": True},
            {"": HOLDS},
            "",
        ),
        Scenario(
            "unsplittable",
            "files on a direct map of block entries that cannot be split: none that needs its pages out of it",
            Unsplittable,
            {"arch": Arch.ARM64_BLOCKS},
            ALWAYS,
            "",
        ),
        Scenario(
            "driver-refuses",
            "a driver that may refuse whatever it is asked; the library keeps to what it answers",
            RefusingHost,
            {"arch": Arch.ARM64_BBML2},
            ALWAYS,
            "",
        ),
        Scenario(
            "gunyah-hypercalls",
            "any hypercall of a host, right or wrong: Gunyah gives it nothing that a guest keeps",
            GunyahHypercalls,
            {},
            {"": HOLDS},
        ),
        Scenario(
            "pkvm-hypercalls",
            "the same on pKVM, whose host may take a page by force",
            PkvmHypercalls,
            {},
            {"": HOLDS},
        ),
        Scenario("lru-batches", "CPUs keep new folios in batches of the LRU for a while, on KVM", BatchesOnKvm, {}, ALWAYS, ""),
        Scenario("gup", "long-term pins of the VMM's mapping on KVM", Gup, {}, ALWAYS, ""),
        Scenario(
            "gup-uncounted",
            "one who keeps a frame of the VMM's mapping without a reference",
            Gup,
            {"counted": False},
            _each(HOST_WRITES_PRIVATE, NO_PANIC, HOST_WRITES_PRIVATE, NO_PANIC),
            "",
        ),
        Scenario(
            "pfncache", "two cached translations of a guest page, used by the kernel (gfn_to_pfn_cache)", PfnCache, {}, ALWAYS, ""
        ),
        Scenario("memory-failure", "a frame of a file breaks while it is used", BrokenMemory, {}, ON_KVM, ""),
        Scenario(
            "memory-failure-gunyah", "a frame of a file on Gunyah breaks, which its guest may keep", BrokenOnGunyah, {}, ON_GUNYAH
        ),
        # ---- power
        Scenario("hibernate", "hibernation under Gunyah; the library refuses it in time", HibernateOnGunyah, {}, ALWAYS),
        Scenario(
            "hibernate-unchecked",
            "hibernation that asks nobody",
            HibernateOnGunyah,
            {"pm": Pm.UNAWARE},
            _each(*[NO_PANIC] * 4),
        ),
        Scenario(
            "hibernate-available",
            "hibernation that asks once, as for secretmem: before processes are frozen it may not be true any more",
            HibernateOnGunyah,
            {"pm": Pm.AVAILABLE},
            _each(*[NO_PANIC] * 4),
        ),
        Scenario(
            "hibernate-freeze",
            "hibernation with files open that have no private page, and get none",
            HibernateOnGunyah,
            {"pm": Pm.FREEZE},
            ALWAYS,
        ),
        Scenario(
            "hibernate-reclaim",
            "hibernation on KVM; what is private and has no guest is discarded first",
            ReclaimOnKvm,
            {"pm": Pm.RECLAIM},
            ALWAYS,
            "",
        ),
        Scenario(
            "hibernate-kvm-unchecked",
            "an image of memory with a guest's secrets",
            HibernateOnKvm,
            {"pm": Pm.UNAWARE},
            _each(*[HOST_READS_SECRET] * 4),
            "",
        ),
        Scenario(
            "hibernate-pkvm-unchecked",
            "an image for which pKVM takes guests their pages",
            HibernateOnPkvm,
            {"pm": Pm.UNAWARE},
            _each(*[CONTENTS_SURVIVE] * 4),
        ),
        Scenario("kexec", "another kernel, started when everything is back", KexecOnGunyah, {}, ALWAYS),
        Scenario(
            "kexec-unnotified",
            "another kernel, started while pages are lent",
            KexecOnGunyah,
            {"notified": False},
            _each(*[NO_PANIC] * 4),
        ),
        Scenario("live-update", "a file that is all shared is handed to the next kernel", LiveUpdate, {}, ON_KVM, ""),
        Scenario(
            "live-update-unreserved",
            "a next kernel that allocates what it was handed",
            LiveUpdate,
            {"reserves": False},
            _each(HOST_READS_SECRET, DONE_OR_NOTHING, HOST_READS_SECRET, DONE_OR_NOTHING),
            "",
        ),
        # ---- drivers
        Scenario("module-unload", "Gunyah's driver as a module, unloaded when no file is its own", ModuleUnload, {}, ALWAYS),
        Scenario(
            "thread",
            "everything once, on one host, while another CPU looks names up",
            Story,
            {},
            _each(NO_PANIC, HOLDS, HOST_READS_SECRET, HOLDS),
        ),
    )
}


def find(name: str) -> Scenario:
    """The scenario with a name, or the world ``file.py:name`` of a user's file.  Raises :class:`Refused`."""
    if name in SCENARIOS:
        return SCENARIOS[name]
    file, colon, attribute = (name, ":", "") if name.endswith(".py") else name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise Refused(name, "no such scenario", f"use one of {', '.join(SCENARIOS)}; or file.py:name, a World in a file of yours")
    path = Path(file)
    if not path.is_file():
        raise Refused(name, f"there is no file {file}", "name a Python file with a World in it")
    module_name = path.stem
    while module_name in sys.modules:  # which may be one that we need
        module_name += "_"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        at = _line_in(error, path)
        raise Refused(f"{file}{at}", f"{type(error).__name__}: {error}", "correct the file") from error
    mine = {n: v for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, World) and v.__module__ == module_name}
    if not attribute:
        last = [n for n, world in mine.items() if not any(world in other.__mro__[1:] for other in mine.values())]
        if not last:
            raise Refused(name, "it has no worlds", "write a class that derives from a World, as OnKvm")
        if len(last) > 1:
            raise Refused(name, f"it has {len(last)} worlds", f"name one: {', '.join(f'{file}:{n}' for n in last)}")
        attribute = last[0]
        name = f"{file}:{attribute}"
    world = getattr(module, attribute, None)
    if not (isinstance(world, type) and issubclass(world, World)):
        raise Refused(name, f"{attribute!r} is no World of {file}", f"it has: {', '.join(mine) or 'none'}")
    return Scenario(name, (world.__doc__ or "").partition("\n")[0], world)


def _line_in(error: BaseException, path: Path) -> str:
    """The line of a file at which an error arose, as ``:line``."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == os.path.abspath(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f":{lines[-1]}" if lines else ""
