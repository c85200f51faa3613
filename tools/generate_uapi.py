# SPDX-License-Identifier: Apache-2.0
"""Write ``uapi.py`` and ``uapi_arm64.py`` from the kernel's uapi headers.

    python tools/generate_uapi.py > src/guestmem/linux/uapi.py
    python tools/generate_uapi.py arm64 > src/guestmem/linux/uapi_arm64.py

The headers are those that ziglang ships (``pip install 'guestmem[cc]'``).  The first has what is the same everywhere and
what x86-64 has, the second what only arm64 has.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HEADERS = ("linux/kvm.h", "linux/falloc.h", "linux/mman.h", "linux/magic.h", "linux/stat.h", "asm/unistd.h", "linux/version.h")

CONSTANTS = {
    "linux/kvm.h": """
        KVM_API_VERSION
        KVM_GET_API_VERSION KVM_CREATE_VM KVM_CHECK_EXTENSION KVM_GET_VCPU_MMAP_SIZE KVM_GET_SUPPORTED_CPUID
        KVM_CREATE_VCPU KVM_SET_USER_MEMORY_REGION KVM_SET_USER_MEMORY_REGION2 KVM_SET_TSS_ADDR
        KVM_SET_NR_MMU_PAGES KVM_CREATE_IRQCHIP
        KVM_RUN KVM_GET_REGS KVM_SET_REGS KVM_GET_SREGS KVM_SET_SREGS KVM_SET_CPUID2 KVM_GET_DIRTY_LOG
        KVM_GET_STATS_FD KVM_SET_MEMORY_ATTRIBUTES KVM_CREATE_GUEST_MEMFD KVM_PRE_FAULT_MEMORY
        KVM_MEM_LOG_DIRTY_PAGES KVM_MEM_READONLY KVM_MEM_GUEST_MEMFD
        GUEST_MEMFD_FLAG_MMAP GUEST_MEMFD_FLAG_INIT_SHARED KVM_MEMORY_ATTRIBUTE_PRIVATE
        KVM_X86_DEFAULT_VM KVM_X86_SW_PROTECTED_VM KVM_X86_SEV_VM KVM_X86_SEV_ES_VM KVM_X86_SNP_VM KVM_X86_TDX_VM
        KVM_CAP_USER_MEMORY KVM_CAP_NR_VCPUS KVM_CAP_NR_MEMSLOTS KVM_CAP_MAX_VCPUS KVM_CAP_MULTI_ADDRESS_SPACE
        KVM_CAP_SYNC_MMU KVM_CAP_READONLY_MEM KVM_CAP_DIRTY_LOG_RING KVM_CAP_BINARY_STATS_FD
        KVM_CAP_USER_MEMORY2 KVM_CAP_MEMORY_FAULT_INFO KVM_CAP_MEMORY_ATTRIBUTES KVM_CAP_GUEST_MEMFD KVM_CAP_VM_TYPES
        KVM_CAP_PRE_FAULT_MEMORY KVM_CAP_GUEST_MEMFD_FLAGS
        KVM_EXIT_UNKNOWN KVM_EXIT_EXCEPTION KVM_EXIT_IO KVM_EXIT_HYPERCALL KVM_EXIT_DEBUG KVM_EXIT_HLT KVM_EXIT_MMIO
        KVM_EXIT_SHUTDOWN KVM_EXIT_FAIL_ENTRY KVM_EXIT_INTR KVM_EXIT_INTERNAL_ERROR KVM_EXIT_SYSTEM_EVENT
        KVM_EXIT_MEMORY_FAULT KVM_MEMORY_EXIT_FLAG_PRIVATE KVM_EXIT_IO_IN KVM_EXIT_IO_OUT
        KVM_STATS_TYPE_MASK KVM_STATS_TYPE_CUMULATIVE KVM_STATS_TYPE_INSTANT KVM_STATS_TYPE_PEAK
    """,
    "linux/falloc.h": """
        FALLOC_FL_ALLOCATE_RANGE FALLOC_FL_KEEP_SIZE FALLOC_FL_PUNCH_HOLE FALLOC_FL_NO_HIDE_STALE
        FALLOC_FL_COLLAPSE_RANGE FALLOC_FL_ZERO_RANGE FALLOC_FL_INSERT_RANGE FALLOC_FL_UNSHARE_RANGE FALLOC_FL_WRITE_ZEROES
    """,
    "linux/mman.h": """
        PROT_NONE PROT_READ PROT_WRITE PROT_EXEC
        MAP_SHARED MAP_PRIVATE MAP_SHARED_VALIDATE MAP_FIXED MAP_ANONYMOUS MAP_POPULATE MAP_NORESERVE MAP_LOCKED
        MAP_HUGETLB MAP_SYNC MAP_FIXED_NOREPLACE
        MREMAP_MAYMOVE MREMAP_FIXED MREMAP_DONTUNMAP
        MADV_NORMAL MADV_DONTNEED MADV_FREE MADV_REMOVE MADV_DONTFORK MADV_DOFORK MADV_HUGEPAGE MADV_NOHUGEPAGE
        MADV_DONTDUMP MADV_WIPEONFORK MADV_KEEPONFORK MADV_COLD MADV_PAGEOUT MADV_POPULATE_READ MADV_POPULATE_WRITE
        MADV_DONTNEED_LOCKED MADV_COLLAPSE MADV_GUARD_INSTALL MADV_GUARD_REMOVE
        MS_ASYNC MS_INVALIDATE MS_SYNC
    """,
    "linux/magic.h": "SECRETMEM_MAGIC GUEST_MEMFD_MAGIC ANON_INODE_FS_MAGIC TRACEFS_MAGIC",
    "asm/unistd.h": "__NR_memfd_secret __NR_cachestat",
}

SOURCES = {"asm/unistd.h": "arch/x86/entry/syscalls/syscall_64.tbl"}

STRUCTS = {
    "kvm_userspace_memory_region": "slot flags guest_phys_addr memory_size userspace_addr",
    "kvm_userspace_memory_region2": (
        "slot flags guest_phys_addr memory_size userspace_addr guest_memfd_offset guest_memfd pad1 pad2:14"
    ),
    "kvm_create_guest_memfd": "size flags reserved:6",
    "kvm_memory_attributes": "address size attributes flags",
    "kvm_pre_fault_memory": "gpa size flags padding:5",
    "kvm_regs": "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags",
    "kvm_segment": "base limit selector type present dpl db s l g avl unusable padding",
    "kvm_dtable": "base limit padding:3",
    "kvm_sregs": (
        "cs=kvm_segment ds=kvm_segment es=kvm_segment fs=kvm_segment gs=kvm_segment ss=kvm_segment tr=kvm_segment "
        "ldt=kvm_segment gdt=kvm_dtable idt=kvm_dtable cr0 cr2 cr3 cr4 cr8 efer apic_base interrupt_bitmap:4"
    ),
    "kvm_cpuid_entry2": "function index flags eax ebx ecx edx padding:3",
    "kvm_stats_header": "flags name_size num_desc id_offset desc_offset data_offset",
    "kvm_stats_desc": "flags exponent=int16_t size offset bucket_size",
    "cachestat_range": "off len",
    "cachestat": "nr_cache nr_dirty nr_writeback nr_evicted nr_recently_evicted",
}

RUN = """
    request_interrupt_window immediate_exit exit_reason io.direction io.size io.port io.count io.data_offset
    mmio.phys_addr mmio.data mmio.len mmio.is_write memory_fault.flags memory_fault.gpa memory_fault.size
    hw.hardware_exit_reason fail_entry.hardware_entry_failure_reason internal.suberror
"""

ARM64 = """
    KVM_ARM_VCPU_INIT KVM_ARM_PREFERRED_TARGET KVM_GET_ONE_REG KVM_SET_ONE_REG
    KVM_REG_ARM64 KVM_REG_SIZE_U64 KVM_REG_ARM_CORE KVM_REG_ARM64_SYSREG
    KVM_REG_ARM_CORE_REG(regs.regs) KVM_REG_ARM_CORE_REG(regs.pc) KVM_REG_ARM_CORE_REG(regs.pstate)
"""

CTYPES = {1: "c_uint8", 2: "c_uint16", 4: "c_uint32", 8: "c_uint64"}


def fields(text: str) -> Iterator[tuple[str, str, int]]:
    """Name, C type where it is not an unsigned integer, and number of elements of each field (0: no array)."""
    for word in text.split():
        rest, _, length = word.partition(":")
        name, _, kind = rest.partition("=")
        yield name, kind, int(length or 0)


def program() -> str:
    """The C program that prints every value, offset and size, one `what name number` a line."""
    lines = ["#include <stdio.h>", "#include <stddef.h>", *(f"#include <{header}>" for header in HEADERS), "int main(void) {"]
    lines.append('printf("version linux %d\\n", LINUX_VERSION_CODE);')
    for names in CONSTANTS.values():
        lines += [f'printf("constant {n} %llu\\n", (unsigned long long)({n}));' for n in names.split()]
    for struct, text in STRUCTS.items():
        lines.append(f'printf("sizeof {struct} %zu\\n", sizeof(struct {struct}));')
        for name, _, _ in fields(text):
            where = f"struct {struct}, {name}"
            lines.append(f'printf("offset {struct}.{name} %zu\\n", offsetof({where}));')
            lines.append(f'printf("size {struct}.{name} %zu\\n", sizeof(((struct {struct} *)0)->{name}));')
    for name in RUN.split():
        lines.append(f'printf("offset kvm_run.{name} %zu\\n", offsetof(struct kvm_run, {name}));')
        lines.append(f'printf("size kvm_run.{name} %zu\\n", sizeof(((struct kvm_run *)0)->{name}));')
    return "\n".join([*lines, "return 0;", "}", ""])


def measure() -> dict[str, int]:
    """What the program prints, by "what name"."""
    with tempfile.TemporaryDirectory() as place:
        source, binary = Path(place, "uapi.c"), Path(place, "uapi")
        source.write_text(program())
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-musl"]
        subprocess.run([*compiler, "-o", str(binary), str(source)], check=True)
        printed = subprocess.run([binary], check=True, capture_output=True, text=True).stdout
    return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in printed.splitlines()}


def generate(found: dict[str, int]) -> Iterator[str]:
    """The lines of ``uapi.py``."""
    version = found["version linux"]
    yield "# SPDX-License-Identifier: Apache-2.0"
    yield '"""Constants and structures of the kernel\'s uapi headers, for x86-64.'
    yield ""
    yield f"Generated by tools/generate_uapi.py from the headers of Linux {version >> 16}.{version >> 8 & 255}: do not edit."
    yield '"""'
    yield ""
    yield "import ctypes"
    for header, names in CONSTANTS.items():
        yield ""
        yield f"# {SOURCES.get(header, f'include/uapi/{header}')}"
        for name in names.split():
            value = found[f"constant {name}"]
            yield f"{name.removeprefix('__')} = {value if value < 256 else f'0x{value:X}'}"
    for struct, text in STRUCTS.items():
        yield ""
        yield ""
        yield f"class {struct}(ctypes.Structure):"
        yield f'    """struct {struct}, {found[f"sizeof {struct}"]} bytes."""'
        yield ""
        kinds = []
        for name, kind, length in fields(text):
            width = found[f"size {struct}.{name}"] // (length or 1)
            nested = kind.startswith("kvm_")
            ctype = kind if nested else "ctypes.c_int16" if kind else f"ctypes.{CTYPES[width]}"
            shown = kind if nested else f"ctypes.Array[{ctype}]" if length else "int"
            yield f"    {name}: {shown}{'  # noqa: E741' if name == 'l' else ''}"
            kinds.append(f'        ("{name}", {ctype}{f" * {length}" if length else ""}),')
        yield ""
        yield "    _fields_ = ["
        yield from kinds
        yield "    ]"
    yield ""
    yield ""
    yield "# struct kvm_run: field, its offset and its size in bytes"
    yield "KVM_RUN_LAYOUT = {"
    for name in RUN.split():
        yield f'    "{name}": ({found[f"offset kvm_run.{name}"]}, {found[f"size kvm_run.{name}"]}),'
    yield "}"


def arm64() -> Iterator[str]:
    """The lines of ``uapi_arm64.py``.  Nothing runs: the values are those in the compiler's assembly."""
    names = ARM64.split()
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "uapi.c")
        values = ", ".join(["LINUX_VERSION_CODE", *names])
        includes = "#include <stddef.h>\n#include <linux/kvm.h>\n#include <linux/version.h>\n"
        source.write_text(f"{includes}const unsigned long long values[] = {{{values}}};\n")
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-S"]
        subprocess.run([*compiler, "-o", f"{place}/uapi.s", str(source)], check=True)
        printed = Path(place, "uapi.s").read_text()
    version, *found = (int(value, 0) for value in re.findall(r"^\s*\.xword\s+(0x[0-9a-f]+|\d+)\b", printed, re.M))
    yield "# SPDX-License-Identifier: Apache-2.0"
    yield '"""Constants of the kernel\'s uapi headers that only arm64 has.'
    yield ""
    yield f"Generated by tools/generate_uapi.py from the headers of Linux {version >> 16}.{version >> 8 & 255}: do not edit."
    yield '"""'
    yield ""
    yield "# arch/arm64/include/uapi/asm/kvm.h, include/uapi/linux/kvm.h"
    for name, value in zip(names, found, strict=True):
        plain = name.replace("(regs.", "_").rstrip(")")
        yield f"{plain.upper()} = {value if value < 256 else f'0x{value:X}'}"


if __name__ == "__main__":
    print("\n".join(arm64() if sys.argv[1:] == ["arm64"] else generate(measure())))
