# SPDX-License-Identifier: Apache-2.0
"""What guest memory costs on this kernel: nanoseconds per page, medians and spread, with the environment.

A cost is the time of one call for many pages, or of one pass of stores over them less a second pass, divided by the
pages; so a call's own cost is spread thin.  ``profile.json`` beside this file is what the command wrote on one machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import guestmem
from guestmem.linux import uapi
from guestmem.linux.calls import PAGE_SIZE, CallError, Mapping, mmap
from guestmem.linux.guest import Guest, GuestError
from guestmem.linux.kvm import RW, GuestMemfd, Kvm, Vm
from guestmem.linux.probe import direct_map_events, kvm_modules, lines
from guestmem.linux.secretmem import SecretMem

__all__ = ["COSTS", "calibrate", "default"]

PAGES = 1024
REPETITIONS = 9
ON_REQUEST = ("memfd_secret_fault", "direct_map_split")
SECRET_PAGES = 16
SHARED = uapi.GUEST_MEMFD_FLAG_MMAP | uapi.GUEST_MEMFD_FLAG_INIT_SHARED

COSTS = {
    "guest_memfd_fault": "the host stores to a hole of a guest_memfd through a mapping",
    "guest_memfd_refault": "the host stores to a page that is there and that its mapping lost (MADV_DONTNEED)",
    "guest_memfd_allocate": "fallocate(2)",
    "guest_memfd_punch": "a hole is punched where the host has nothing mapped",
    "guest_memfd_punch_mapped": "a hole is punched where the host has every page mapped",
    "guest_memfd_punch_guest": "a hole is punched where the guest has every page mapped, and the host none",
    "guest_demand_fault": "a guest stores to a hole of its guest_memfd",
    "guest_fault_allocated": "a guest stores to a page of its guest_memfd that is there",
    "memfd_fault": "the host stores to a hole of a memfd through a mapping",
    "memfd_punch_mapped": "a hole is punched in a memfd where the host has every page mapped",
    "memfd_secret_fault": "the host stores to a hole of a memfd_secret, in a block of the direct map that is split",
    "direct_map_split": "what such a fault costs more when it splits a 2 MiB block of the direct map",
}
"""What is measured; ``call``, the cost of one system call from here, is measured too."""


def calibrate(*, secretmem: bool = False, note: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure everything this machine lets us, as one JSON object; what it does not is under "missing", with why."""
    costs: dict[str, Any] = {}
    missing: dict[str, str] = {}
    note("a system call")
    costs["call"] = _summary([_timed(os.getppid, 1000) for _ in range(REPETITIONS)], 1000)
    for measure in MEASURED:
        try:
            for name, samples in _collect(measure, note).items():
                costs[name] = _summary(samples, PAGES)
        except (CallError, GuestError) as error:
            missing.update({name: str(error) for name in MEASURED[measure]})
    if secretmem:
        try:
            _secretmem(costs, missing, note)
        except CallError as error:
            missing.update(dict.fromkeys(ON_REQUEST, str(error)))
    else:
        why = "not asked for: --secretmem splits the direct map until the next boot"
        missing.update(dict.fromkeys(ON_REQUEST, why))
    return {"schema": 1, "unit": "ns per page", "environment": _environment(), "costs": costs, "missing": missing}


def default() -> dict[str, Any]:
    """The profile that is shipped: what :func:`calibrate` found on the machine that its environment names."""
    text = resources.files("guestmem.linux").joinpath("profile.json").read_text(encoding="utf-8")
    profile: dict[str, Any] = json.loads(text)
    return profile


Samples = Iterator[tuple[str, float]]


def _collect(measure: Callable[[], Samples], note: Callable[[str], None]) -> dict[str, list[float]]:
    """The samples of every repetition by name; one more repetition goes first and is not counted."""
    samples: dict[str, list[float]] = {}
    for repetition in range(REPETITIONS + 1):
        for name, nanoseconds in measure():
            note(name)
            if repetition:
                samples.setdefault(name, []).append(nanoseconds)
    return samples


def _timed(call: Callable[[], Any], times: int = 1) -> float:
    """Nanoseconds for one of so many calls."""
    began = time.perf_counter_ns()
    for _ in range(times):
        call()
    return (time.perf_counter_ns() - began) / times


def _stores(mapping: Mapping) -> float:
    """Nanoseconds per page of a first pass of stores, less a second."""

    def store() -> None:
        ctypes.memset(mapping.address, 1, mapping.length)

    first = _timed(store)
    return max(first - _timed(store), 0.0) * PAGE_SIZE / mapping.length


def _file(vm: Vm, flags: int = SHARED) -> GuestMemfd:
    return vm.create_guest_memfd(PAGES * PAGE_SIZE, flags)


def _guest_memfd() -> Samples:
    size = PAGES * PAGE_SIZE
    with Kvm() as kvm, kvm.create_vm() as vm, _file(vm, 0) as file:
        yield "guest_memfd_allocate", _timed(lambda: file.allocate(0, size)) / PAGES
        yield "guest_memfd_punch", _timed(lambda: file.punch(0, size)) / PAGES


def _guest_memfd_mapped() -> Samples:
    size = PAGES * PAGE_SIZE
    with Kvm() as kvm, kvm.create_vm() as vm, _file(vm) as file, file.mmap() as mapping:
        yield "guest_memfd_fault", _stores(mapping)
        mapping.madvise(uapi.MADV_DONTNEED)
        yield "guest_memfd_refault", _stores(mapping)
        yield "guest_memfd_punch_mapped", _timed(lambda: file.punch(0, size)) / PAGES


def _guest() -> Samples:
    size = PAGES * PAGE_SIZE
    with (
        Kvm() as kvm,
        kvm.create_vm() as vm,
        _file(vm) as file,
        file.mmap() as mapping,
        Guest(kvm, vm, PAGES, memory=file, userspace_addr=mapping.address) as guest,
    ):
        guest.store(0)  # its program and page tables are mapped now
        file.punch(0, size)
        yield "guest_demand_fault", _timed(lambda: guest.store(0, PAGES)) / PAGES
        yield "guest_memfd_punch_guest", _timed(lambda: file.punch(0, size)) / PAGES
        file.allocate(0, size)
        yield "guest_fault_allocated", _timed(lambda: guest.store(0, PAGES)) / PAGES


def _memfd() -> Samples:
    size = PAGES * PAGE_SIZE
    fd = os.memfd_create("guestmem")
    file = GuestMemfd(fd)
    with file:
        os.ftruncate(fd, size)
        with Mapping(mmap(0, size, RW, uapi.MAP_SHARED, fd), size) as mapping:
            yield "memfd_fault", _stores(mapping)
            yield "memfd_punch_mapped", _timed(lambda: file.punch(0, size)) / PAGES


MEASURED: dict[Callable[[], Samples], tuple[str, ...]] = {
    _guest_memfd: ("guest_memfd_allocate", "guest_memfd_punch"),
    _guest_memfd_mapped: ("guest_memfd_fault", "guest_memfd_refault", "guest_memfd_punch_mapped"),
    _guest: ("guest_demand_fault", "guest_memfd_punch_guest", "guest_fault_allocated"),
    _memfd: ("memfd_fault", "memfd_punch_mapped"),
}


def _secretmem(costs: dict[str, Any], missing: dict[str, str], note: Callable[[str], None]) -> None:
    """A few pages once, each by itself: those that split a block of the direct map, and those that do not."""
    note("memfd_secret_fault")
    plain: list[float] = []
    split: list[float] = []
    with SecretMem() as secret:
        secret.truncate(SECRET_PAGES * PAGE_SIZE)
        with secret.mmap(SECRET_PAGES * PAGE_SIZE) as mapping:
            for page in range(SECRET_PAGES):
                before = _splits()
                address = mapping.address + page * PAGE_SIZE
                took = _timed(lambda address=address: ctypes.memset(address, 1, 1))  # type: ignore[misc]
                (plain if _splits() == before else split).append(took)
    if plain:
        costs["memfd_secret_fault"] = _summary(plain, 1)
    else:
        missing["memfd_secret_fault"] = f"each of {SECRET_PAGES} pages split a block of the direct map"
    if plain and split:
        usual = statistics.median(plain)
        costs["direct_map_split"] = _summary([max(took - usual, 0.0) for took in split], 1)
    else:
        missing["direct_map_split"] = f"{len(split)} of {SECRET_PAGES} pages split a block of the direct map"


def _splits() -> int:
    """Blocks of the direct map that were split since the boot."""
    return sum(count for name, count in direct_map_events().items() if name.startswith("level") and "_splits" in name)


def _summary(samples: list[float], pages: int) -> dict[str, Any]:
    ordered = sorted(samples)
    first, _, third = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else (ordered[0],) * 3
    return {
        "median": round(statistics.median(ordered), 1),
        "quartiles": [round(first, 1), round(third, 1)],
        "range": [round(ordered[0], 1), round(ordered[-1], 1)],
        "samples": len(ordered),
        "pages_per_sample": pages,
    }


def _environment() -> dict[str, Any]:
    """What the costs depend on."""
    models = [line.partition(":")[2].strip() for line in lines("/proc/cpuinfo") if "model name" in line]
    return {
        "guestmem": guestmem.__version__,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": models[0] if models else "unknown",
        "cpus": os.cpu_count(),
        "page_size": PAGE_SIZE,
        "kvm_modules": kvm_modules(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
