# SPDX-License-Identifier: Apache-2.0
"""Bad twins: a scenario in which one line of the library, of a driver or of the cast is wrong.

A twin is made from the good source as it stands, so it differs from it in that line and in nothing else.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from guestmem.guest_memfd.library import GuestMemfd, Pm, Protection
from guestmem.hypervisors.confidential import Confidential, ConfidentialDriver
from guestmem.hypervisors.gunyah import Gunyah, GunyahDriver
from guestmem.hypervisors.gunyah_vm import GunyahVm
from guestmem.hypervisors.kvm import KvmDriver
from guestmem.hypervisors.pkvm import Pkvm
from guestmem.machine.arch import Arch
from guestmem.mm.filemap import Pin
from guestmem.mm.hugetlb import HugetlbKernel, HugetlbPool
from guestmem.mm.lifetime import Srcu
from guestmem.mm.lru import BatchingKernel
from guestmem.mm.secretmem import Secretmem
from guestmem.model import World, part
from guestmem.model.errors import GUARDED, NO_DEADLOCK, NO_PANIC, NO_SLEEP
from guestmem.rules import (
    BROKEN_UNUSED,
    CAUSE,
    CONTENTS_SURVIVE,
    COUNTERS,
    DONE_OR_NOTHING,
    FREE_FRAMES,
    FREED_UNUSED,
    GIVEN_CLEAN,
    HOST_READS_SECRET,
    HOST_WRITES_PRIVATE,
    KERNEL_INTACT,
    NO_LOCK_HELD,
    OUT_OF_SPECULATION,
    PAIRED,
    RETURNED_CLEAN,
    SINGLE_OWNER,
    UNHELD_FREE,
    UNLOADED_UNUSED,
    USED_ALIVE,
    WITHIN_FILE,
)
from guestmem.scenarios.boot import BootOnGunyah
from guestmem.scenarios.host import GuestMemory
from guestmem.scenarios.huge import HalfwayOnGunyah, HugeOnKvm, HugeOnSnp, HugeOnTdx, HugePartsOnKvm, MisalignedOnKvm
from guestmem.scenarios.hugetlb import HugetlbOnKvm
from guestmem.scenarios.hypercalls import GunyahHypercalls, PkvmHypercalls
from guestmem.scenarios.hypervisors import (
    BeyondOnKvm,
    EagerOnGunyah,
    OnGunyah,
    OnKvm,
    OnSnp,
    OnTdx,
    PartsOnKvm,
    SignalsOnKvm,
    SlotsOnGunyah,
    SlotsOnKvm,
    TwoOnKvm,
)
from guestmem.scenarios.module import ModuleUnload
from guestmem.scenarios.power import Freezable, HibernateOnGunyah, HibernateOnKvm, LiveUpdate, ReclaimOnKvm
from guestmem.scenarios.refusing import RefusingHost
from guestmem.scenarios.secretmem import SecretMemory, SizedSecret, Unsplittable
from guestmem.scenarios.users import BatchesOnKvm, BrokenMemory, Gup, HugeWithBatches, PfnCache
from guestmem.upstream.kvm_guest_memfd import Memslots

WITH_SHARED = "with self.mapping.invalidate_lock.shared:"
WITHIN_SIZE = "if start >= end or end > self.mapping.i_size:"
CLEARS = {"clears_first": True}
SCRATCH = tempfile.TemporaryDirectory(prefix="guestmem-twins-")


class Twin(NamedTuple):
    """In ``method``, as ``world`` uses it, the line ``good`` is ``bad``; so ``rule`` is broken, or that situation missed.

    ``pages`` is a size for the standard cast; other worlds have sizes of their own (0).
    """

    name: str
    world: type[World]
    method: Callable[..., Any]
    good: str
    bad: str
    rule: str
    pages: int = 1
    options: Mapping[str, Any] = {}

    def build(self, world: type[World]) -> World:
        """``world`` with this twin's sizes and options, unmapping what is private where it has a protection."""
        sizes = {"pages": self.pages, "frames": self.pages + 1} if self.pages else {}
        unmap = {"protection": Protection.UNMAP} if issubclass(world, GuestMemory) else {}
        return world(**{**sizes, **unmap, **self.options})

    def variant(self) -> type[World]:
        """The class of that world: the part with the wrong line in the place of the good one."""
        owner = _owner(self.method)
        wrong = self.wrong(owner)
        if issubclass(self.world, owner):
            return type(self.name, (wrong, self.world), {"__module__": wrong.__module__})
        field = next(f for f in self.world.fields().values() if f.kind == "part" and issubclass(_class(f.type), owner))
        if _class(field.type) is not owner:
            wrong = type(wrong.__name__, (_class(field.type),), {self.method.__name__: vars(wrong)[self.method.__name__]})
        body = {"__annotations__": {field.name: wrong}, field.name: part(), "__module__": wrong.__module__}
        return type(self.name, (self.world,), body)

    def wrong(self, owner: type[Any]) -> type[Any]:
        """A class derived from ``owner``, with the method as it stands but for that line."""
        lines = inspect.getsource(self.method).splitlines()
        (at,) = [i for i, line in enumerate(lines) if line.strip() == self.good]
        lines[at] = lines[at].replace(self.good, f"{self.bad}  # BUG: instead of {self.good}")
        text = "\n".join(["from __future__ import annotations", f"class {self.name}({owner.__name__}):", *lines, ""])
        file = Path(SCRATCH.name, f"{self.name}.py")
        file.write_text(text)
        name = f"{owner.__module__}.{self.name}"
        names = {**vars(sys.modules[owner.__module__]), "__name__": name}
        module = type(sys)(name)
        vars(module).update(names)
        sys.modules[name] = module
        exec(compile(text, str(file), "exec", dont_inherit=True), vars(module))
        made: type[Any] = vars(module)[self.name]
        return made


def _owner(method: Callable[..., Any]) -> type[Any]:
    owner: type[Any] = vars(sys.modules[method.__module__])[method.__qualname__.split(".")[0]]
    return owner


def _class(kind: Any) -> type[Any]:
    cls: type[Any] = kind.cls
    return cls


TWINS = [
    Twin(
        "NoFlush",
        OnGunyah,
        GuestMemfd.zap_direct_map,
        "flush_tlb_kernel_range(self.kernel.machine, folio.frame, folio.order)",
        "pass",
        NO_PANIC,
    ),
    Twin(
        "RestoredFirst",  # as secretmem_free_folio() does
        OnKvm,
        GuestMemfd.discard,
        "charge(Cost.PAGE_ZEROED)",
        "self.restore_direct_map(folio)",
        HOST_READS_SECRET,
    ),
    Twin("NoGuestFlush", OnKvm, KvmDriver.unmap, "guest.flush(gfn)", "pass", HOST_WRITES_PRIVATE),
    Twin(
        "NotCleared",
        OnKvm,
        GuestMemfd.initialise,
        "kernel_store(self.kernel, cpu, self.kernel.machine.frames[pfn], Content.ZERO)",
        "pass",
        GIVEN_CLEAN,
    ),
    Twin("BoundToAnother", TwoOnKvm, GuestMemfd.may_bind, "return -EBUSY", "return 0", GIVEN_CLEAN),
    Twin(
        "NotScrubbed",
        OnKvm,
        GuestMemfd.discard,
        "self.kernel.machine.store_mapped(self.kernel.machine.frames[pfn], Content.ZERO)",
        "pass",
        RETURNED_CLEAN,
    ),
    Twin(
        "NotRestored",
        OnGunyah,
        GuestMemfd.restore_direct_map,
        "set_direct_map_default_noflush(self.kernel, folio.frame, folio.order)",
        "pass",
        FREE_FRAMES,
    ),
    Twin(
        "ZeroesTheOneBefore",
        OnKvm,
        GuestMemfd.initialise,
        "for pfn in range(folio.frame.pfn, folio_end(folio)):",
        "for pfn in range(folio.frame.pfn - 1, folio_end(folio)):",
        KERNEL_INTACT,
    ),
    Twin("NothingIsPunched", PartsOnKvm, GuestMemfd.punch_hole, "if start >= end:", "if start > end:", CAUSE, pages=0),
    Twin(
        "PretendsToBeCreated",
        Unsplittable,
        GuestMemfd.create,
        "return -EOPNOTSUPP",
        "return 0",
        CAUSE,
        options={"arch": Arch.ARM64_BLOCKS},
        pages=0,
    ),
    Twin(
        "StaysPreserved",
        LiveUpdate,
        GuestMemfd.unpreserve,
        "self.preserved = False",
        "self.preserved = True",
        DONE_OR_NOTHING,
        pages=0,
    ),
    Twin(
        "DonatesWhatIsShared",
        PkvmHypercalls,
        Pkvm.host_donate_guest,
        "if not frame.stage2 or guest.entries[gfn].live or any(other.reaches(frame) for other in self.machine.guests):",
        "if not frame.stage2 or guest.entries[gfn].live:",
        CAUSE,
        pages=0,
    ),
    Twin(
        "TakesBackWhatIsMapped",
        GunyahHypercalls,
        Gunyah.donate_to_host,
        "if any(entry.live and entry.frame is frame for entry in guest.entries):",
        "if False:",
        CAUSE,
        pages=0,
    ),
    Twin(
        "NotAskedForBack",
        RefusingHost,
        GuestMemfd.make_shared,
        "err = self.give_to_host(pgoff, folio)",
        "err = 0",
        DONE_OR_NOTHING,
        pages=0,
    ),
    Twin(
        "BoundTwice",
        TwoOnKvm,
        GuestMemfd.bind,
        "err = self.may_bind(guest, pgoff, Gfn(gfn + pgoff - start))",
        "err = 0",
        SINGLE_OWNER,
    ),
    Twin(
        "NotInvalidated",
        OnKvm,
        KvmDriver.invalidate_begin,
        "for pgoff in Pgoff.span(start, end):",
        "for pgoff in Pgoff.span(start, start):",
        FREED_UNUSED,
    ),
    Twin("PunchedAnyway", OnGunyah, GuestMemfd.punch_hole, "if err == 0:", "if True:", FREED_UNUSED),
    Twin("PunchedNothing", OnGunyah, GuestMemfd.punch_hole, "return err", "return 0", DONE_OR_NOTHING),
    Twin(
        "HalfConverted",
        OnKvm,
        GuestMemfd.make_private,
        "return -EAGAIN, pgoff",
        "return -EAGAIN, pgoff\n            self.shared[pgoff] = False",
        DONE_OR_NOTHING,
        pages=2,
    ),
    Twin(
        "LockKept",
        OnKvm,
        GuestMemfd.allocate,
        "with self.mapping.invalidate_lock.shared:",
        "if self.mapping.invalidate_lock.down_read_trylock():",
        NO_LOCK_HELD,
    ),
    Twin("InterruptedUnsaid", OnKvm, GuestMemfd.allocate, "err = -EINTR", "return 0", DONE_OR_NOTHING, options={"signals": True}),
    Twin(
        "NotThawed",
        HibernateOnKvm,
        Freezable.thaw_processes,
        "self.set_frozen(False)",
        "pass",
        NO_DEADLOCK,
        0,
        {"pm": Pm.RECLAIM},
    ),
    Twin("FolioLocked", OnKvm, GuestMemfd.put_folio, "folio.lock.release()", "pass", NO_LOCK_HELD),
    Twin("ReferenceLeaked", OnKvm, GuestMemfd.put_folio, "folio_put(self.kernel, folio)", "pass", COUNTERS),
    Twin("LookedOnce", OnKvm, Pin.gup_fast, "if follow_pfnmap(mapping, pgoff) is not folio:", "if False:", NO_PANIC),
    Twin("LostForgotten", OnGunyah, GuestMemfd.lose, "folio.lost = True", "pass", COUNTERS),
    Twin("ClearedAgain", OnKvm, GuestMemfd.grab_folio, "if not folio.uptodate:", "if True:", CONTENTS_SURVIVE),
    Twin(
        "ConvertedByDiscarding",
        OnKvm,
        GuestMemfd.make_shared,
        "self.restore_direct_map(folio)",
        "self.discard(pgoff)",
        CONTENTS_SURVIVE,
    ),
    Twin("LoanForgotten", OnGunyah, GunyahDriver.reclaim_page, "if err == 0:", "if True:", NO_PANIC),
    Twin(
        "NotGivenBack",
        EagerOnGunyah,
        GuestMemfd.undo,
        "if self.driver.prepare_accessible(self, pgoff, folio) == 0:",
        "if True:",
        NO_PANIC,
        pages=2,
    ),
    Twin("PinsIgnored", Gup, GuestMemfd.make_private, "return -EAGAIN, pgoff", "pass", NO_PANIC, 0),
    *(
        Twin(name, world, GuestMemfd.make_private, "return -EAGAIN, pgoff", "pass", rule, options={"protection": Protection.NONE})
        for name, world, rule in (
            ("PinsIgnoredOnSnp", OnSnp, NO_PANIC),
            ("PinsIgnoredOnTdx", OnTdx, HOST_WRITES_PRIVATE),
        )
    ),
    Twin("NotReleased", OnSnp, ConfidentialDriver.prepare_accessible, "self.hypervisor.release(frame)", "pass", FREE_FRAMES),
    Twin("NotDestroyed", OnTdx, ConfidentialDriver.unmap, "self.hypervisor.destroy(guest, gfn)", "pass", DONE_OR_NOTHING),
    Twin("NotWiped", OnSnp, Confidential.release, "frame.content = Content.ZERO", "pass", RETURNED_CLEAN),
    Twin("NotDemoted", HugeOnTdx, Confidential.demote, "return -ENOMEM", "return 0", CONTENTS_SURVIVE, 0),
    Twin(
        "CreatedAnyway",
        OnKvm,
        GuestMemfd.create,
        "return -EOPNOTSUPP",
        "pass",
        HOST_READS_SECRET,
        options={"arch": Arch.ARM64_BLOCKS},
    ),
    Twin(
        "SpeculatedUpon",
        OnKvm,
        GuestMemfd.discard,
        "charge(Cost.PAGE_ZEROED)",
        "self.restore_direct_map(folio)",
        OUT_OF_SPECULATION,
        options={"speculation": True},
    ),
    Twin(
        "SharedWhole",
        HugeOnKvm,
        GuestMemfd.make_shared,
        "err = self.split(pgoff)",
        "err = 0",
        HOST_READS_SECRET,
        0,
    ),
    Twin(
        "SplitTooLate",
        HugeOnKvm,
        GuestMemfd.split_direct_map,
        "if folio.zapped:",
        "if False:",
        FREE_FRAMES,
        0,
        {"arch": Arch.X86},
    ),
    Twin(
        "BrokenAgain",
        BrokenMemory,
        GuestMemfd.grab_folio,
        "if has_hwpoison(self.kernel, folio):",
        "if False:",
        BROKEN_UNUSED,
        0,
    ),
    Twin(
        "CacheNotChecked",
        PfnCache,
        PfnCache.used,
        "if gpc.valid and folio is not None:",
        "if folio is not None:",
        NO_PANIC,
        0,
    ),
    Twin(
        "UsedUnloaded",
        ModuleUnload,
        GuestMemfd.create,
        "if not try_module_get(self.driver.module):",
        "if False:",
        UNLOADED_UNUSED,
        0,
    ),
    Twin("CreatedMeanwhile", HibernateOnGunyah, GuestMemfd.create, "with self.kernel.pm_lock:", "if True:", GUARDED, 0),
    Twin(
        "HibernatedMeanwhile",
        HibernateOnGunyah,
        GuestMemfd.hibernation_prepare,
        "with self.kernel.pm_lock:",
        "if True:",
        GUARDED,
        0,
    ),
    Twin("BoundUnlocked", OnKvm, GuestMemfd.bind, "with self.mapping.invalidate_lock.exclusive:", "if True:", GUARDED),
    Twin("UnboundUnlocked", OnKvm, GuestMemfd.unbind, "with self.mapping.invalidate_lock.exclusive:", "if True:", GUARDED),
    Twin("ConvertedUnlocked", OnKvm, GuestMemfd.convert, "with self.mapping.invalidate_lock.exclusive:", "if True:", GUARDED),
    Twin("ConvertedShared", OnKvm, GuestMemfd.convert, "with self.mapping.invalidate_lock.exclusive:", WITH_SHARED, GUARDED),
    Twin("PunchedShared", OnKvm, GuestMemfd.punch_hole, "with self.mapping.invalidate_lock.exclusive:", WITH_SHARED, GUARDED),
    Twin("FaultedUnlocked", OnKvm, GuestMemfd.fault, "with self.mapping.invalidate_lock.shared:", "if True:", GUARDED),
    Twin(
        "InitialisedUnlocked",
        OnKvm,
        GuestMemfd.initialise,
        "folio.uptodate = True",
        "folio.lock.release()\n        folio.uptodate = True\n        folio.lock.acquire()",
        GUARDED,
    ),
    Twin("RefreshedUnlocked", PfnCache, PfnCache.refresh, "with gpc.lock:", "if True:", GUARDED, 0),
    Twin("LostUnheard", HibernateOnGunyah, GuestMemfd.lose, "self.kernel.lost = True", "pass", NO_PANIC, 0),
    Twin(
        "NotRestoredAfterTheRace",
        SecretMemory,
        Secretmem.let_go,
        "self.restore_direct_map(folio)",
        "pass",
        FREE_FRAMES,
        0,
        {"clears_first": True},
    ),
    # ---- who asks for pages beyond the end of a file gets some, or gets another error
    Twin(
        "FaultBeyond",
        BeyondOnKvm,
        GuestMemfd.fault,
        "if pgoff >= self.mapping.i_size or not self.accessible(pgoff):",
        "if not self.accessible(pgoff):",
        WITHIN_FILE,
        0,
    ),
    Twin("AllocateBeyond", BeyondOnKvm, GuestMemfd.allocate, "if end > self.mapping.i_size:", "if False:", WITHIN_FILE, 0),
    Twin("BindBeyond", BeyondOnKvm, GuestMemfd.bind, WITHIN_SIZE, "if start >= end:", WITHIN_FILE, 0),
    Twin("ConvertBeyond", BeyondOnKvm, GuestMemfd.convert, WITHIN_SIZE, "if start >= end:", CAUSE, 0),
    Twin("PunchRefusedBeyond", BeyondOnKvm, GuestMemfd.punch_hole, "if start >= end:", WITHIN_SIZE, CAUSE, 0),
    Twin("SecretBeyond", SizedSecret, Secretmem.fault, "if pgoff >= self.mapping.i_size:", "if False:", WITHIN_FILE, 0, CLEARS),
    Twin(
        "SizeUnlocked",
        SizedSecret,
        Secretmem.setattr,
        "with self.mapping.invalidate_lock.exclusive:",
        "if True:",
        NO_PANIC,
        0,
        CLEARS,
    ),
    Twin("SizedAgain", SizedSecret, Secretmem.setattr, "if self.mapping.i_size != 0:", "if False:", NO_PANIC, 0, CLEARS),
    # ---- nothing succeeds, or fails for no reason
    Twin("PunchRefused", OnKvm, GuestMemfd.punch_hole, "return err", "return -EBUSY", CAUSE),
    Twin("UnbindRefused", OnKvm, GuestMemfd.unbind, "err = self.take_back(pgoff)", "err = -EBUSY", CAUSE),
    Twin(
        "NothingReclaimed",
        ReclaimOnKvm,
        GuestMemfd.discard_unbound,
        "self.discard(pgoff)",
        "pass",
        CAUSE,
        0,
        {"pm": Pm.RECLAIM},
    ),
    Twin("GivenUp", OnGunyah, GuestMemfd.release, "if self.take_back_folio(pgoff, folio) == 0:", "if False:", CAUSE),
    Twin("WrongError", PartsOnKvm, GuestMemfd.may_bind, "return -EEXIST", "return -EBUSY", CAUSE, 0),
    Twin("NoPage", PartsOnKvm, GuestMemfd.guest_fault, "return -EFAULT", "return 0", DONE_OR_NOTHING, 0),
    Twin(
        "NoMemory",
        SecretMemory,
        Secretmem.add_page,
        "return -ENOMEM, None",
        "return 0, None",
        DONE_OR_NOTHING,
        0,
        {"clears_first": True},
    ),
    Twin("SharedAtFirst", OnKvm, GuestMemfd.release, "self.shared[pgoff] = False", "pass", DONE_OR_NOTHING),
    # ---- what the hypervisor never does: the rules hold, and the situation is missed
    Twin(
        "NeverGivenBack",
        OnGunyah,
        Gunyah.donate_to_host,
        'if may("memextent_donate from the guest is refused"):',
        "if True:",
        "a guest's pages come back when it is torn down",
    ),
    Twin(
        "NeverMerged",
        HugeOnKvm,
        GuestMemfd.merge,
        "merge_folios(self.kernel, self.mapping, Pgoff(first), self.order)",
        "pass",
        "pages are merged into a large folio",
        0,
    ),
    Twin(
        "NoSignals",
        SignalsOnKvm,
        GuestMemfd.allocate,
        "if err == 0 and signal_pending(self.kernel):",
        "if False:",
        "a signal ends an allocation",
        options={"signals": True},
    ),
    # ---- counters, and what belongs together
    Twin(
        "NeverFreed",
        OnKvm,
        GuestMemfd.discard,
        "folio_put_refs(self.kernel, folio, 1 << folio.order)",
        "folio.refcount -= 1 << folio.order",
        UNHELD_FREE,
    ),
    Twin("UsersLeaked", OnKvm, GuestMemfd.release, "self.kernel.guest_memfd_users -= 1", "pass", COUNTERS),
    Twin("ModuleLeaked", ModuleUnload, GuestMemfd.release, "module_put(self.driver.module)", "pass", COUNTERS, 0),
    Twin(
        "SecretsLeaked",
        SecretMemory,
        Secretmem.release,
        "self.kernel.secretmem_users -= 1",
        "pass",
        COUNTERS,
        0,
        {"clears_first": True},
    ),
    Twin("NotEnded", OnKvm, GuestMemfd.take_back, "self.driver.invalidate_end(self, pgoff, pgoff + 1)", "pass", PAIRED),
    Twin("NotZapped", OnKvm, KvmDriver.unmap, "guest.zap(gfn)", "pass", FREED_UNUSED),
    # ---- objects that live and die
    Twin("NoGracePeriod", Memslots, Memslots.delete, "self.srcu.synchronize()", "pass", USED_ALIVE, 0),
    Twin("WaitsForNobody", Memslots, Srcu.begin, "self.awaited[thread] = reads", "self.awaited[thread] = False", USED_ALIVE, 0),
    Twin(
        "FileNotHeld",
        Memslots,
        Memslots.get_file,
        "return slot.file and self.file.get_unless_zero()",
        "return slot.file",
        USED_ALIVE,
        0,
    ),
    Twin(
        "FaultsUnderLock",
        PfnCache,
        PfnCache.used,
        "kernel_store(self.kernel, cpu, folio.frame, Content.SHARED)",
        "self.user_fault(cpu, gpc.pgoff)",
        NO_SLEEP,
        0,
    ),
    # ---- hypercalls that fail half way
    Twin("HalfGiven", HalfwayOnGunyah, GunyahDriver.donate, "elif order > 0:", "elif False:", CAUSE, 0),
    Twin(
        "HalfForgotten",
        HalfwayOnGunyah,
        GunyahDriver.donate,
        "self.provided[pfn] = back != 0 and back != -EPERM",
        "self.provided[pfn] = False",
        CAUSE,
        0,
    ),
    # ---- parcels and notifications of Gunyah's resource manager
    Twin(
        "ParcelForgotten",
        BootOnGunyah,
        GunyahVm.fill_parcel,
        "self.driver.parcelled[frame.pfn] = True",
        "self.driver.parcelled[frame.pfn] = False",
        FREE_FRAMES,
        0,
    ),
    Twin("ParcelKept", BootOnGunyah, GunyahVm.share_parcel, "self.empty_parcel()", "pass", CAUSE, 0),
    Twin("HandleKept", BootOnGunyah, GunyahVm.start, "self.drop_parcel()", "pass", CAUSE, 0),
    Twin("StaysPaged", BootOnGunyah, GunyahVm.start, "self.paged_to_parcel()", "pass", CAUSE, 0),
    Twin(
        "ReclaimedBeforeReset",
        BootOnGunyah,
        GunyahVm.put,
        "if self.status is Status.READY or self.status is Status.INIT_FAILED:",
        "if False:",
        CAUSE,
        0,
    ),
    Twin("NeverReset", BootOnGunyah, GunyahVm.put, "if self.status is Status.EXITED:", "if False:", CAUSE, 0),
    Twin("NeverWoken", BootOnGunyah, BootOnGunyah.notifications, "self.vm.status_wait.wake_up()", "pass", NO_DEADLOCK, 0),
    Twin(
        "WakeUpLost",
        BootOnGunyah,
        GunyahVm.wait,
        "self.status_wait.schedule()",
        "self.status_wait.prepare(); self.status_wait.schedule()",
        NO_DEADLOCK,
        0,
    ),
    # ---- gfns and page offsets
    Twin(
        "GfnForPgoff",
        SlotsOnKvm,
        KvmDriver.invalidate_begin,
        "self.unmap(guest, file.gfn[pgoff])",
        "self.unmap(guest, Gfn(pgoff))",
        FREED_UNUSED,
        0,
    ),
    Twin(
        "GfnForPgoffLent",
        SlotsOnGunyah,
        GunyahDriver.prepare_accessible,
        "return self.reclaim_page(guest, file.gfn[pgoff], frame)",
        "return self.reclaim_page(guest, Gfn(pgoff), frame)",
        CAUSE,
        0,
    ),
    Twin(
        "GfnTaken", SlotsOnKvm, GuestMemfd.may_bind, "if taken or self.bound[pgoff]:", "if self.bound[pgoff]:", DONE_OR_NOTHING, 0
    ),
    Twin(
        "StaysBound",
        SlotsOnKvm,
        GuestMemfd.unbind,
        "self.bound[pgoff] = False",
        "self.bound[pgoff] = pgoff > start",
        DONE_OR_NOTHING,
        0,
    ),
    Twin(
        "MoreThanBound",
        HugePartsOnKvm,
        GuestMemfd.mapping_order,
        "if not self.bound[at] or self.owner[at] is not self.owner[pgoff] or self.gfn[at] != first + at - start:",
        "if False:",
        SINGLE_OWNER,
        0,
    ),
    Twin(
        "MisalignedBlock",
        MisalignedOnKvm,
        GuestMemfd.mapping_order,
        "if first % (1 << folio.order) != 0:",
        "if False:",
        CONTENTS_SURVIVE,
        4,
    ),
    # ---- more who act
    Twin(
        "GrabbedAnyway",
        PartsOnKvm,
        GuestMemfd.guest_fault,
        "return -EFAULT",
        "err, _ = self.grab_folio(cpu, pgoff, True)\n                return -EFAULT",
        NO_LOCK_HELD,
        0,
    ),
    Twin(
        "BoundWhole",
        PartsOnKvm,
        GuestMemfd.bind,
        "self.owner[pgoff] = guest",
        "for at in Pgoff.span(0, len(self.owner)):\n                    self.owner[at] = guest",
        DONE_OR_NOTHING,
        0,
    ),
    Twin(
        "PrivatePreserved",
        LiveUpdate,
        GuestMemfd.preserve,
        "if not self.shared[pgoff] or (folio is not None and folio.order > 0):",
        "if folio is not None and folio.order > 0:",
        HOST_READS_SECRET,
        0,
    ),
    Twin(
        "UndrainedConversion",
        BatchesOnKvm,
        GuestMemfd.in_use,
        "self.kernel.lru_add_drain_all()",
        "pass",
        CAUSE,
        pages=0,
    ),
    Twin(
        "PreparedAgain",
        HugeOnSnp,
        Confidential.assign,
        "if self.owner[pfn] is None:",
        "if True:",
        CONTENTS_SURVIVE,
        pages=0,
        options={"arch": Arch.X86},
    ),
    Twin("UndrainedSplit", HugeWithBatches, GuestMemfd.split, "self.kernel.lru_add_drain_all()", "pass", CAUSE, pages=0),
    Twin("NeverLeavesTheBatch", BatchesOnKvm, BatchingKernel.lru_add_drain_all, "self.put(before, 1)", "pass", COUNTERS, pages=0),
    # ---- huge pages of hugetlb
    Twin(
        "MergedWhileShared",
        HugetlbOnKvm,
        GuestMemfd.merge,
        "if pgoff == max(first, start) and not any(self.shared[at] for at in Pgoff.span(first, first + size)):",
        "if pgoff == max(first, start):",
        RETURNED_CLEAN,
        2,
        {"frames": 4},
    ),
    Twin("FoldedWhileSplit", HugetlbOnKvm, HugetlbPool.unfold, "self.folded[pfn] = False", "pass", USED_ALIVE, 2, {"frames": 4}),
    Twin(
        "NeverComesHome",
        HugetlbOnKvm,
        HugetlbKernel.folio_put_hugetlb,
        "self.pool.come_home(pfn)",
        "if self.pool.lent[pfn]:\n                self.pool.come_home(pfn)",
        UNHELD_FREE,
        2,
        {"frames": 4},
    ),
    Twin(
        "HomeInParts",
        HugetlbOnKvm,
        HugetlbKernel.folio_put_hugetlb,
        "if all(self.folios[at].free for at in range(pfn, pfn + (1 << self.pool.order))):",
        "if True:",
        FREE_FRAMES,
        2,
        {"frames": 4},
    ),
    Twin("HomeUnfolded", HugetlbOnKvm, HugetlbPool.come_home, "self.folded[pfn] = True", "pass", FREE_FRAMES, 2, {"frames": 4}),
    Twin("ReservationKept", HugetlbOnKvm, HugetlbPool.unreserve, "self.reserved = 0", "pass", COUNTERS, 2, {"frames": 4}),
    Twin("ReservationLost", HugetlbOnKvm, HugetlbPool.come_home, "self.reserved += 1", "pass", COUNTERS, 2, {"frames": 4}),
]
