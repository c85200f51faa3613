# SPDX-License-Identifier: Apache-2.0
"""Creating files of guest memory."""

from __future__ import annotations

import os

from guestmem.contract import citations
from guestmem.contract.interface import PAGE_SIZE, Host
from guestmem.contract.results import EBADF, EFAULT, EINVAL, EMFILE, ENOTTY, Result, failed
from guestmem.contract.rows import (
    CAP_GUEST_MEMFD,
    CAP_GUEST_MEMFD_FLAGS,
    CAP_USER_MEMORY2,
    GMEM,
    INIT_SHARED,
    KVM,
    MMAP,
    OBSERVED,
    SELFTEST,
    bind,
    bindable,
    expect,
    gmem,
    ok,
    row,
    table,
    vm,
)

INVALID_SIZES = {
    "0": 0,
    "1": 1,
    "page-1": PAGE_SIZE - 1,
    "page+1": PAGE_SIZE + 1,
    "2^63": 1 << 63,
    "2^64-page": (1 << 64) - PAGE_SIZE,
    "2^64-1": (1 << 64) - 1,
    **{f"2^{bit}": 1 << bit for bit in range(1, 12)},
    **{f"page+2^{bit}": PAGE_SIZE + (1 << bit) for bit in range(1, 12)},
}
VALID_SIZES = {
    "page": PAGE_SIZE,
    "3 pages": 3 * PAGE_SIZE,
    "2M+page": (1 << 21) + PAGE_SIZE,
    "1T": 1 << 40,
    "2^62": 1 << 62,
    "2^63-page": (1 << 63) - PAGE_SIZE,
}


@table("the size of a file is positive and whole pages", f"{SELFTEST}; {GMEM}, kvm_gmem_create()", INVALID_SIZES)
def test_create_guest_memfd_invalid_sizes(host: Host, size: int) -> None:
    expect(host.create_guest_memfd(vm(host), size, 0), EINVAL)


@table("a file of any size is sparse: it can be larger than memory", GMEM, VALID_SIZES)
def test_create_guest_memfd_sizes(host: Host, size: int) -> None:
    fd = ok(host.create_guest_memfd(vm(host), size, 0))
    expect(host.fstat(fd), (size, 0o100600, PAGE_SIZE, 0))
    expect(host.cachestat(fd, 0, 0), 0)


@table(
    "every flag that KVM_CAP_GUEST_MEMFD_FLAGS does not name is refused, and those it names are not",
    f"{SELFTEST}, test_guest_memfd_flags(); {citations.FLAGS}",
    {f"bit {bit}": 1 << bit for bit in range(64) if not 1 << bit & (MMAP | INIT_SHARED)},
)
def test_guest_memfd_flags_unknown(host: Host, flag: int) -> None:
    owner = vm(host)
    known = host.check_extension(owner, CAP_GUEST_MEMFD_FLAGS)
    assert isinstance(known, int)
    for flags in (flag, flag | MMAP):
        made = host.create_guest_memfd(owner, PAGE_SIZE, flags)
        if flag & known:
            ok(made)
        else:
            expect(made, EINVAL)


@table(
    "every combination of known flags is legal, INIT_SHARED without MMAP as well",
    f"{SELFTEST}, test_guest_memfd_flags()",
    {"none": 0, "MMAP": MMAP, "INIT_SHARED": INIT_SHARED, "MMAP|INIT_SHARED": MMAP | INIT_SHARED},
)
def test_guest_memfd_flags(host: Host, flags: int) -> None:
    gmem(host, 1, flags)


@row("files of one VM are different inodes", f"{SELFTEST}, test_create_guest_memfd_multiple()")
def test_create_guest_memfd_multiple(host: Host) -> None:
    owner, one = gmem(host, 1)
    other = ok(host.create_guest_memfd(owner, 2 * PAGE_SIZE, 0))
    expect(host.same_inode(one, other), 0)
    expect(host.fstat(one), (PAGE_SIZE, 0o100600, PAGE_SIZE, 0))
    expect(host.fstat(other), (2 * PAGE_SIZE, 0o100600, PAGE_SIZE, 0))


@table(
    "a VM says what guest memory it has",
    KVM,
    {
        "USER_MEMORY2": (CAP_USER_MEMORY2, 1),
        "one that is none": (1 << 30, 0),
    },
)
def test_capability(host: Host, capability: int, value: int) -> None:
    expect(host.check_extension(vm(host), capability), value)


@row("a VM has KVM_CAP_GUEST_MEMFD if its slots take files of guest memory", KVM)
def test_capability_guest_memfd(host: Host) -> None:
    expect(host.check_extension(vm(host), CAP_GUEST_MEMFD), int(bool(host.facts.bindable)))


@row("KVM_CAP_GUEST_MEMFD_FLAGS names the flags with which files can be made", KVM)
def test_capability_guest_memfd_flags(host: Host) -> None:
    owner, legal = vm(host), 0
    for flag in (1 << bit for bit in range(31)):
        file = host.create_guest_memfd(owner, PAGE_SIZE, flag)
        if not failed(file):
            legal |= flag
            ok(host.close(file))
    expect(host.check_extension(owner, CAP_GUEST_MEMFD_FLAGS), legal)


@row("the descriptor is for reading and writing, large, and stays open over exec", f"{GMEM}, __kvm_gmem_create(); {OBSERVED}")
def test_descriptor_flags(host: Host) -> None:
    _, fd = gmem(host, 1)
    expect(host.descriptor_flags(fd), (0, host.facts.large_file | os.O_RDWR))


def memfd(host: Host) -> Result:
    """A descriptor of another kind, on a machine that has guest memory."""
    vm(host)
    return ok(host.memfd_create(PAGE_SIZE))


@row("only a VM makes files of guest memory", KVM)
def test_create_on_memfd(host: Host) -> None:
    expect(host.create_guest_memfd(memfd(host), PAGE_SIZE, 0), ENOTTY)


@row("only a VM makes files of guest memory", KVM)
def test_create_on_guest_memfd(host: Host) -> None:
    _, fd = gmem(host, 1)
    expect(host.create_guest_memfd(fd, PAGE_SIZE, 0), ENOTTY)


@row("only a VM makes files of guest memory", KVM)
def test_create_on_vcpu(host: Host) -> None:
    expect(host.create_guest_memfd(ok(host.create_vcpu(vm(host))), PAGE_SIZE, 0), EINVAL)


@row("a closed descriptor is no VM", KVM)
def test_create_on_closed(host: Host) -> None:
    owner = vm(host)
    ok(host.close(owner))
    expect(host.create_guest_memfd(owner, PAGE_SIZE, 0), EBADF)


@table(
    "what opens a descriptor needs a free one, which creating a file asks for after its arguments and creating a VM before",
    f"fs/file.c, get_unused_fd_flags(); {KVM}, kvm_dev_ioctl_create_vm(); {GMEM}, kvm_gmem_create()",
    {
        "VM": ("create_vm", (), EMFILE),
        "VM of no type": ("create_vm", (99,), EMFILE),
        "file": ("create_guest_memfd", (PAGE_SIZE, 0), EMFILE),
        "file of no size": ("create_guest_memfd", (0, 0), EINVAL),
        "file with no flag": ("create_guest_memfd", (PAGE_SIZE, 1 << 62), EINVAL),
        "dup": ("dup", (), EMFILE),
        "memfd": ("memfd_create", (PAGE_SIZE,), EMFILE),
    },
)
def test_no_descriptor_free(host: Host, operation: str, arguments: tuple[int, ...], expected: Result) -> None:
    owner = vm(host)
    about = (owner,) if operation in ("create_guest_memfd", "dup") else ()
    expect(host.in_full_table(operation, *about, *arguments), expected)
    ok(host.create_guest_memfd(owner, PAGE_SIZE, 0))


@row("reserved words are not looked at", f"{GMEM}, kvm_gmem_create()")
def test_reserved(host: Host) -> None:
    fd = ok(host.create_guest_memfd_reserved(vm(host), PAGE_SIZE, host.facts.files[0], 1 << 40))
    expect(host.cachestat(fd, 0, 0), 0)


@table(
    "an argument that cannot be read is EFAULT",
    f"{KVM}, kvm_vm_ioctl()",
    {name: name for name in ("KVM_CREATE_GUEST_MEMFD", "KVM_SET_USER_MEMORY_REGION2", "KVM_SET_USER_MEMORY_REGION")},
)
def test_unmapped_argument(host: Host, ioctl: str) -> None:
    owner = vm(host)
    expect(host.unmapped_argument(owner, ioctl), EFAULT)
    expect(host.unmapped_argument(ok(host.create_guest_memfd(owner, PAGE_SIZE, host.facts.files[0])), ioctl), ENOTTY)


@row("/dev/kvm makes no guest memory, and is none", f"{KVM}, kvm_dev_ioctl(); {GMEM}, kvm_gmem_bind()")
def test_dev_kvm(host: Host) -> None:
    owner, fd = bindable(host, 1)
    device = ok(host.open_kvm())
    expect(host.create_guest_memfd(device, PAGE_SIZE, 0), EINVAL)
    expect(bind(host, owner, device, 0, 0, 1), EINVAL)
    expect(bind(host, owner, fd, 0, 0, 1), 0)
