# SPDX-License-Identifier: Apache-2.0
"""What this machine has: its kernel, KVM, guest_memfd and memfd_secret, and what can be tested with them.

Everything is found by trying, gently: files of one page, no page of memfd_secret, guests in a child process with a
time limit.  Nothing needs root or /dev/kvm; what they would add is said.
"""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import guestmem
from guestmem.linux import uapi
from guestmem.linux.calls import PAGE_SIZE, CallError, cachestat, memfd_secret
from guestmem.linux.facts import Facts, find
from guestmem.linux.kvm import Kvm, Vm
from guestmem.linux.process import Lost, in_child, limited

__all__ = ["as_text", "direct_map_events", "kvm_modules", "lines", "probe", "tried"]

CAPABILITIES = (
    "USER_MEMORY2",
    "MEMORY_FAULT_INFO",
    "MEMORY_ATTRIBUTES",
    "GUEST_MEMFD",
    "VM_TYPES",
    "PRE_FAULT_MEMORY",
    "GUEST_MEMFD_FLAGS",
    "NR_MEMSLOTS",
    "MAX_VCPUS",
    "MULTI_ADDRESS_SPACE",
    "SYNC_MMU",
    "READONLY_MEM",
    "DIRTY_LOG_RING",
    "BINARY_STATS_FD",
)
VM_TYPES = {
    "x86_64": {"DEFAULT": 0, "SW_PROTECTED": 1, "SEV": 2, "SEV_ES": 3, "SNP": 4, "TDX": 5},
    "aarch64": {"DEFAULT": 0, "PROTECTED": 1 << 31},
}
GUESTS = {
    "x86_64": {"real_mode": "real mode", "long_mode_cpl3": "long mode CPL 3"},
    "aarch64": {"el1": "EL1"},
}
FLAGS = {0: "MMAP", 1: "INIT_SHARED", 2: "NO_DIRECT_MAP"}  # bit 2 is proposed, and in no release
SECONDS = 10


def probe() -> dict[str, Any]:
    """Everything, as one JSON object."""
    kvm = _kvm()
    found: dict[str, Any] = {
        "schema": 1,
        "guestmem": guestmem.__version__,
        "kernel": _kernel(),
        "kvm": kvm,
        "direct_map": _direct_map(),
        "memfd_secret": _secretmem(),
        "cachestat": _cachestat(),
        "hugetlb": _hugetlb(),
        "tracefs": _tracefs(),
        "gunyah": os.path.exists("/dev/gunyah"),
    }
    found["testable"] = list(_testable(found))
    found["would_add"] = list(_would_add(found))
    return found


def _kernel() -> dict[str, Any]:
    return {
        "release": platform.release(),
        "machine": platform.machine(),
        "page_size": PAGE_SIZE,
        "cpus": os.cpu_count(),
        "kvm_modules": kvm_modules(),
        "root": os.geteuid() == 0,
        "swap": len(lines("/proc/swaps")) > 1,
    }


def kvm_modules() -> list[str]:
    """KVM and its vendor modules, built in or loaded."""
    return sorted(path.name for path in Path("/sys/module").glob("kvm*") if path.name == "kvm" or path.name.startswith("kvm_"))


def lines(path: str) -> list[str]:
    """The lines of a file; none if it cannot be read."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _kvm() -> dict[str, Any]:
    """What /dev/kvm says; only why not, if it cannot be opened."""
    try:
        kvm = Kvm()
    except CallError as error:
        return {"usable": False, "why": str(error)}
    with kvm:
        try:
            vm = kvm.create_vm()
        except CallError as error:
            return {"usable": False, "why": str(error)}
        with vm:
            return {
                "usable": True,
                "api_version": kvm.api_version(),
                "capabilities": {name: vm.check_extension(getattr(uapi, f"KVM_CAP_{name}")) for name in CAPABILITIES},
                "vm_types": {name: _vm_type(kvm, number) for name, number in VM_TYPES.get(platform.machine(), {}).items()},
                "guest_memfd": _guest_memfd(vm),
                "guests": {name: tried(_real_mode if name == "real_mode" else _native) for name in _guests()},
                "facts": find()._asdict(),
            }


def _guests() -> dict[str, str]:
    """The guests that there are for this machine, with the names that people read."""
    return GUESTS.get(platform.machine(), {})


def _vm_type(kvm: Kvm, number: int) -> str:
    """ "ok", or the name of the errno."""
    try:
        kvm.create_vm(number).close()
    except CallError as error:
        return _errno(error)
    return "ok"


def _errno(error: OSError) -> str:
    import errno

    return errno.errorcode.get(error.errno or 0, str(error.errno))


def _guest_memfd(vm: Vm) -> dict[str, Any]:
    """Which flags are legal, which combinations of the legal ones, and where its files are."""
    flags: dict[str, str] = {}
    legal = []
    for bit in range(64):
        try:
            vm.create_guest_memfd(PAGE_SIZE, 1 << bit).close()
        except CallError as error:
            if bit in FLAGS:
                flags[FLAGS[bit]] = _errno(error)
        else:
            flags[FLAGS.get(bit, f"bit {bit}")] = "ok"
            legal.append(bit)
    combinations: dict[str, str] = {}
    for chosen in range(1 << min(len(legal), 4)):
        value = sum(1 << bit for at, bit in enumerate(legal) if chosen >> at & 1)
        try:
            with vm.create_guest_memfd(PAGE_SIZE, value) as file:
                combinations[str(value)] = "ok"
                device = file.stat().st_dev
                link = os.readlink(f"/proc/self/fd/{file.fileno()}")
        except CallError as error:
            combinations[str(value)] = _errno(error)
    if "ok" not in combinations.values():
        return {"usable": False, "flags": flags, "flag_values": combinations}
    return {
        "usable": True,
        "flags": flags,
        "flag_values": combinations,
        "device": f"{os.major(device)}:{os.minor(device)}",
        "name": link,
    }


def _real_mode() -> str:
    from guestmem.linux import guest

    with Kvm() as kvm:
        written = guest.real_mode(kvm)
    return "runs" if written == b"AB" else f"wrote {written!r} instead of b'AB'"


def _native() -> str:
    """Whether a guest's stores land in the guest_memfd that it is bound to."""
    from guestmem.linux.guest import Guest

    flags = uapi.GUEST_MEMFD_FLAG_MMAP | uapi.GUEST_MEMFD_FLAG_INIT_SHARED
    with (
        Kvm() as kvm,
        kvm.create_vm() as vm,
        vm.create_guest_memfd(4 * PAGE_SIZE, flags) as file,
        file.mmap() as mapping,
        Guest(kvm, vm, 4, memory=file, userspace_addr=mapping.address) as guest,
    ):
        guest.store(0, 4, 0x5A)
        if file.resident() != 4 or mapping.read(3 * PAGE_SIZE) != b"Z":
            return f"runs, but not on its guest_memfd: {file.resident()} of 4 pages there"
        return "runs on guest_memfd"


def tried(function: Callable[[], Any], seconds: int = SECONDS) -> Any:
    """What a function returns, run in a child process; a sentence if it fails, is killed or takes too long."""

    def limited() -> Any:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        return function()

    try:
        return in_child(limited)
    except Lost as lost:
        if lost.signal == signal.SIGALRM:
            return f"no end in {seconds} s"
        return f"killed by {signal.Signals(lost.signal).name}" if lost.signal else "ended without a word"
    except (OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def _direct_map() -> dict[str, Any]:
    """The kernel's own mapping of memory: bytes by entry size, and how often entries were split since the boot."""
    sizes = {}
    for line in lines("/proc/meminfo"):
        name, _, value = line.partition(":")
        if name.startswith("DirectMap"):
            sizes[name.removeprefix("DirectMap")] = int(value.split()[0]) << 10
    return {"bytes": sizes, "events": direct_map_events()}


def direct_map_events() -> dict[str, int]:
    """How often entries of the direct map were split or merged since the boot, by kind."""
    counts = (line.split() for line in lines("/proc/vmstat") if line.startswith("direct_map_"))
    return {name.removeprefix("direct_map_"): int(count) for name, count in counts}


def _secretmem() -> dict[str, Any]:
    try:
        fd = memfd_secret(os.O_CLOEXEC)
    except CallError as error:
        return {"usable": False, "why": str(error)}
    device = os.fstat(fd).st_dev
    os.close(fd)
    return {"usable": True, "device": f"{os.major(device)}:{os.minor(device)}"}


def _cachestat() -> dict[str, Any]:
    fd = os.memfd_create("guestmem")
    try:
        cachestat(fd)
    except CallError as error:
        return {"usable": False, "why": str(error)}
    finally:
        os.close(fd)
    return {"usable": True}


def _hugetlb() -> dict[str, int]:
    """Pages in each pool, by size in KiB."""
    pools = {}
    for pool in sorted(Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB")):
        pools[pool.name.removeprefix("hugepages-").removesuffix("kB")] = int((lines(f"{pool}/nr_hugepages") or ["0"])[0])
    return pools


def _tracefs() -> dict[str, Any]:
    from guestmem.linux.trace import record

    try:
        with record.tracefs() as root:
            missing = [event for event in record.EVENTS if not (root / "events" / event).is_dir()]
    except record.Cannot as error:
        return {"usable": False, "why": str(error)}
    return {"usable": True, "missing_events": missing}


def _testable(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each group of the contract, and what else there is: whether it can be tested here, and if not, why."""
    kvm = found["kvm"]
    facts = (
        Facts(**kvm["facts"])
        if kvm["usable"]
        else Facts(files=(), bindable=(), converts=(), writes=0, no_direct_map=0, huge=0, userfaults=0, preserves=False)
    )
    no_kvm = limited() or ("" if kvm["usable"] else kvm["why"])
    no_file = no_kvm or ("" if facts.files else "KVM makes no guest_memfd")
    no_shared = no_file or ("" if 3 in facts.files else "guest_memfd has no flags MMAP and INIT_SHARED")
    no_oracle = no_file or found["cachestat"].get("why", "")
    said = kvm.get("guests", {}).get(list(_guests())[-1], "") if _guests() else f"there is none for {platform.machine()}"
    no_guest = no_shared or ("" if said == "runs on guest_memfd" else f"the guest: {said}")
    no_private = no_file or ("" if facts.protected or facts.attributes or facts.memory_fault else "no memory attributes")
    no_prefault = no_shared or ("" if facts.pre_faults else "KVM has no KVM_PRE_FAULT_MEMORY")
    no_limits = no_file or ("" if found["kernel"]["root"] else "memory cgroups: not root")
    no_conversion = no_file or ("" if facts.converts else "guest_memfd does not know KVM_SET_MEMORY_ATTRIBUTES2")
    no_userfaults = "" if facts.userfaults else "no userfaultfd is told of faults in guest_memfd"
    if facts.machine != "x86_64":
        no_userfaults = "loads and stores are those of a child, and no userfaultfd is told of its faults"
    for name, why in (
        ("creation", no_file),
        ("file_operations", no_file),
        ("fallocate", no_file),
        ("mapping", no_file),
        ("locking", no_shared),
        ("numa", no_shared or ("" if facts.nodes else "there is no mbind(2)")),
        ("memslot", no_file),
        ("lifetime", no_file),
        ("zeroing", no_shared),
        ("residency", no_oracle),
        ("stage2", no_guest),
        ("gup", no_shared),
        ("concurrency", no_shared),
        ("limits", no_limits),
        ("secretmem", found["memfd_secret"].get("why", "")),
        ("conversion", no_conversion),
        ("write", no_file or ("" if facts.writes else "write(2) does not work on guest_memfd")),
        ("userfaultfd", no_shared or no_userfaults),
        ("no_direct_map", no_file or ("" if facts.no_direct_map else "guest_memfd stays in the direct map")),
        ("huge_pages", no_conversion or ("" if facts.huge else "KVM makes no guest_memfd of huge pages, or none is free")),
        ("preservation", no_shared or ("" if facts.preserves else "live update does not take guest_memfd")),
        ("private", no_private),
        ("prefault", no_prefault),
        ("record", found["tracefs"].get("why", "")),
        ("Gunyah", "" if found["gunyah"] else "there is no /dev/gunyah"),
    ):
        yield {"what": name, "testable": not why, "why": why or None}


def _would_add(found: dict[str, Any]) -> Iterator[str]:
    """What root and /dev/kvm would add."""
    if not found["kvm"]["usable"]:
        yield "/dev/kvm: guest_memfd, memory slots, stage 2 and guests; everything but memfd_secret and record needs it"
    if not found["kernel"]["root"]:
        yield "root: recording and frame numbers (tracefs, /proc/self/pagemap), limits by memory cgroup"


def as_text(found: dict[str, Any]) -> Iterator[str]:
    """The same as lines."""
    kernel, kvm = found["kernel"], found["kvm"]
    yield f"kernel         {kernel['release']} {kernel['machine']}, {kernel['cpus']} CPUs, pages of {kernel['page_size']} bytes"
    yield f"KVM modules    {' '.join(kernel['kvm_modules']) or 'none'}"
    if kvm["usable"]:
        yield f"KVM            API {kvm['api_version']}"
        for name, value in kvm["capabilities"].items():
            yield f"               {name} {value}"
        yield "VM types       " + _pairs(kvm["vm_types"])
        gmem = kvm["guest_memfd"]
        yield "guest_memfd    flags " + _pairs(gmem["flags"])
        yield "               flag values " + _pairs(gmem["flag_values"])
        if gmem["usable"]:
            yield f"               {gmem['name']} on device {gmem['device']}"
        yield "guests         " + (", ".join(f"{name} {kvm['guests'][key]}" for key, name in _guests().items()) or "none")
        facts = kvm["facts"]
        yield f"addresses      {facts['gpa_bits']} bits in guests, {facts['user_bits']} in processes"
        yield f"slots          {facts['slots']} in {facts['address_spaces']} address space(s), for files with flags " + (
            ", ".join(map(str, facts["bindable"])) or "none"
        )
    else:
        yield f"KVM            {kvm['why']}"
    direct = found["direct_map"]
    yield "direct map     " + (", ".join(f"{n >> 20} MiB by {name}" for name, n in direct["bytes"].items()) or "not told")
    yield "               " + (", ".join(f"{name} {n}" for name, n in direct["events"].items()) or "splits not told")
    secret = found["memfd_secret"]
    yield f"memfd_secret   {'on device ' + secret['device'] if secret['usable'] else secret['why']}"
    yield "hugetlb        " + (", ".join(f"{n} of {int(kib)} KiB" for kib, n in found["hugetlb"].items()) or "none")
    trace = found["tracefs"]
    if not trace["usable"]:
        yield f"tracefs        {trace['why']}"
    elif trace["missing_events"]:
        yield f"tracefs        lacks {' '.join(trace['missing_events'])}"
    else:
        yield "tracefs        every event"
    yield f"Gunyah         {'/dev/gunyah is there, and was never tried' if found['gunyah'] else 'no /dev/gunyah'}"
    yield "testable here  " + ", ".join(row["what"] for row in found["testable"] if row["testable"])
    reasons = dict.fromkeys(row["why"] for row in found["testable"] if not row["testable"])
    for why in reasons:
        yield f"not testable   {', '.join(row['what'] for row in found['testable'] if row['why'] == why)}: {why}"
    for line in found["would_add"]:
        yield f"would add      {line}"


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
