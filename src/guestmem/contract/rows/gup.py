# SPDX-License-Identifier: Apache-2.0
"""Users that get at pages through a mapping (GUP), and copies by the kernel: they get shared memory like any other."""

from __future__ import annotations

from collections.abc import Callable

from guestmem.contract.interface import PAGE_SIZE, Host
from guestmem.contract.results import EFAULT, EINVAL, EIO, Result
from guestmem.contract.rows import (
    GUP,
    INIT_SHARED,
    KEEP,
    MMAP,
    OBSERVED,
    PUNCH,
    SHARED,
    expect,
    gmem,
    ok,
    row,
    shared,
    table,
)

P = PAGE_SIZE
SOURCE = f"{GUP}; {OBSERVED}"
READ, RW = 1, 3

User = Callable[[Host, Result], Result]
USERS: dict[str, tuple[User, Result]] = {
    "process_vm_readv": (lambda host, mapping: host.process_vm_readv(mapping, 0, 4), b"\x05\0\0\0"),
    "process_vm_writev": (lambda host, mapping: host.process_vm_writev(mapping, 0, b"abcd"), 4),
    "proc_mem": (lambda host, mapping: host.proc_mem_read(mapping, 0, 4), b"\x05\0\0\0"),
    "write_pipe": (lambda host, mapping: host.write_pipe(mapping, 0, 4), b"\x05\0\0\0"),
    "read_pipe": (lambda host, mapping: host.read_pipe(mapping, 0, b"abcd"), 4),
    "direct_write": (lambda host, mapping: host.direct_write(mapping, 0), b"\x05\0\0\0\0\0\0\0"),
    "direct_read": (lambda host, mapping: host.direct_read(mapping, 0, 0x61), P),
    "futex_wake": (lambda host, mapping: host.futex_wake(mapping, 0), 0),
}
WRITERS = ("process_vm_writev", "read_pipe", "direct_read")


@table("shared memory is there for whoever has the mapping", SOURCE, {name: name for name in USERS})
def test_gup(host: Host, name: str) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 5))
    user, expected = USERS[name]
    expect(user(host, mapping), expected)
    expect(host.load(mapping, 0), 0x61 if name in WRITERS else 5)
    expect(host.cachestat(fd, 0, 0), 1)


@row("/proc/self/mem reads what the mapping forbids (FOLL_FORCE), if it may: proc_mem.force_override", SOURCE)
def test_proc_mem_forced(host: Host) -> None:
    _, _, mapping = shared(host, 1)
    ok(host.store(mapping, 0, 5))
    ok(host.mprotect(mapping, 0, P, 0))
    expect(host.proc_mem_read(mapping, 0, 1), b"\x05" if host.facts.forced else EIO)
    expect(host.process_vm_readv(mapping, 0, 1), EFAULT)


@row("a buffer of an io_uring is for writing", SOURCE)
def test_io_uring_read_only(host: Host) -> None:
    _, fd, _ = shared(host, 1)
    expect(host.io_uring_register(ok(host.mmap(fd, P, READ, SHARED, 0)), 0, P), EFAULT)


@table("a hole is filled by the access", SOURCE, {name: name for name in USERS})
def test_gup_allocates(host: Host, name: str) -> None:
    _, fd, mapping = shared(host, 2)
    user, _ = USERS[name]
    ok(user(host, mapping))
    expect(host.cachestat(fd, 0, 0), 1)


@table("memory that is not shared is refused, allocated or not", SOURCE, {name: name for name in USERS})
def test_gup_private(host: Host, name: str) -> None:
    _, fd = gmem(host, 2, MMAP)
    mapping = ok(host.mmap(fd, 2 * P, RW, SHARED, 0))
    user, _ = USERS[name]
    expected = EIO if name == "proc_mem" else EFAULT
    expect(user(host, mapping), expected)
    ok(host.fallocate(fd, KEEP, 0, 2 * P))
    expect(user(host, mapping), expected)


@table("past the end of the file there is nothing", SOURCE, {name: name for name in USERS})
def test_gup_past_end(host: Host, name: str) -> None:
    _, fd = gmem(host, 2, MMAP | INIT_SHARED)
    mapping = ok(host.mmap(fd, P, RW, SHARED, 2 * P))
    user, _ = USERS[name]
    expect(user(host, mapping), EIO if name == "proc_mem" else EFAULT)


@table("what may not be written to is not", SOURCE, {name: name for name in WRITERS})
def test_gup_read_only(host: Host, name: str) -> None:
    _, fd = gmem(host, 2, MMAP | INIT_SHARED)
    mapping = ok(host.mmap(fd, P, READ, SHARED, 0))
    user, _ = USERS[name]
    expect(user(host, mapping), EFAULT)


PINS: dict[str, Callable[[Host, Result, int], Result]] = {
    "vmsplice": lambda host, mapping, length: host.vmsplice(mapping, 0, length),
    "io_uring": lambda host, mapping, length: host.io_uring_register(mapping, 0, length),
}


@table("pages are pinned, which fills holes", SOURCE, {name: name for name in PINS})
def test_pin(host: Host, name: str) -> None:
    _, fd, mapping = shared(host, 4)
    pinned = ok(PINS[name](host, mapping, 2 * P))
    expect(host.cachestat(fd, 0, 0), 2)
    expect(host.close(pinned), 0)
    expect(host.cachestat(fd, 0, 0), 2)


@table("memory that is not shared is not pinned", SOURCE, {name: name for name in PINS})
def test_pin_private(host: Host, name: str) -> None:
    _, fd = gmem(host, 2, MMAP)
    mapping = ok(host.mmap(fd, 2 * P, RW, SHARED, 0))
    expect(PINS[name](host, mapping, P), EFAULT)


@table("a hole is punched under a pin: the mapping gets a new page", SOURCE, {name: name for name in PINS})
def test_punch_pinned(host: Host, name: str) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, 0, 0x41))
    pinned = ok(PINS[name](host, mapping, P))
    expect(host.fallocate(fd, PUNCH, 0, P), 0)
    expect(host.cachestat(fd, 0, 0), 0)
    expect(host.load(mapping, 0), 0)
    ok(host.store(mapping, 0, 0x42))
    expect(host.close(pinned), 0)
    expect(host.load(mapping, 0), 0x42)


@row("a page that is pinned when a hole is punched keeps its contents for who has it", SOURCE)
def test_pinned_contents(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    for at, value in enumerate(b"data"):
        ok(host.store(mapping, at, value))
    pipe = ok(host.vmsplice(mapping, 0, 4))
    ok(host.fallocate(fd, PUNCH, 0, P))
    ok(host.store(mapping, 0, 0x42))
    expect(host.read_spliced(pipe, 4), b"data")


@row("a pinned page outlives its file", SOURCE)
def test_pin_outlives_file(host: Host) -> None:
    owner, fd, mapping = shared(host, 1)
    ok(host.store(mapping, 0, 0x43))
    pipe = ok(host.vmsplice(mapping, 0, 2))
    ok(host.munmap(mapping))
    ok(host.close(fd))
    ok(host.close(owner))
    expect(host.read_spliced(pipe, 2), b"\x43\0")


@row("reading another process's memory stops where a page cannot be had", "process_vm_readv(2)")
def test_process_vm_readv_partial(host: Host) -> None:
    _, fd = gmem(host, 1, MMAP | INIT_SHARED)
    mapping = ok(host.mmap(fd, 2 * P, RW, SHARED, 0))
    expect(host.process_vm_readv(mapping, P - 4, 8), bytes(4))


@row("what may only be written to is read by the kernel, and not by GUP", f"arch/x86/mm/fault.c; {SOURCE}")
def test_write_only_mapping(host: Host) -> None:
    _, fd, mapping = shared(host, 1)
    ok(host.store(mapping, 0, 5))
    writer = ok(host.mmap(fd, P, 2, SHARED, 0))
    expect(host.write_pipe(writer, 0, 1), b"\x05")
    expect(host.process_vm_readv(writer, 0, 1), EFAULT)
    expect(host.futex_wake(writer, 0), 0)


@row("a futex is aligned", "kernel/futex/core.c, get_futex_key()")
def test_futex_unaligned(host: Host) -> None:
    _, _, mapping = shared(host, 1)
    expect(host.futex_wake(mapping, 2), EINVAL)


@row("a buffer of an io_uring is all there, or there is none", SOURCE)
def test_io_uring_past_end(host: Host) -> None:
    _, fd, _ = shared(host, 1)
    mapping = ok(host.mmap(fd, 2 * P, RW, SHARED, 0))
    expect(host.io_uring_register(mapping, 0, 2 * P), EFAULT)
    ok(host.io_uring_register(mapping, 0, P))


@row(
    "another process and a tracer read shared guest memory, and no private memory", f"{GUP}; kernel/ptrace.c, ptrace_access_vm()"
)
def test_child_memory(host: Host) -> None:
    _, fd, mapping = shared(host, 2)
    ok(host.store(mapping, P, 5))
    expect(host.read_child(mapping, P, 2), b"\5\0")
    expect(host.peek(mapping, P), b"\5" + bytes(7))
    expect(host.cachestat(fd, 0, 0), 1)
    expect(host.read_child(mapping, 0, 2), bytes(2))
    expect(host.cachestat(fd, 0, 0), 2)
    _, private = gmem(host, 1, MMAP)
    closed = ok(host.mmap(private, P, RW, SHARED, 0))
    expect(host.read_child(closed, 0, 2), EFAULT)
    expect(host.peek(closed, 0), EIO)
