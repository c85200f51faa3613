# SPDX-License-Identifier: Apache-2.0
"""Changes of the kernel that rules of the contract come from, as kernel developers cite them."""

from __future__ import annotations

__all__ = [
    "CACHESTAT",
    "DYING_FILE",
    "EEXIST_FOR_OVERLAP",
    "FLAGS",
    "HUGETLB",
    "INIT_SHARED",
    "IN_PLACE",
    "MMAP",
    "NO_DIRECT_MAP",
    "POLICY",
    "PRESERVATION",
    "SECRETMEM",
    "UNSIGNED",
    "USERFAULTFD",
    "WRITE",
]

MMAP = 'commit 3d3a04fad25a ("KVM: Allow and advertise support for host mmap() on guest_memfd files") (in v6.18)'
FLAGS = 'commit d2042d8f96dd ("KVM: Rework KVM_CAP_GUEST_MEMFD_MMAP into KVM_CAP_GUEST_MEMFD_FLAGS") (in v6.18)'
INIT_SHARED = 'commit fe2bf6234e94 ("KVM: guest_memfd: Add INIT_SHARED flag, reject user page faults if not set") (in v6.18)'
DYING_FILE = 'commit ae431059e75d ("KVM: guest_memfd: Remove bindings on memslot deletion when gmem is dying") (in v6.18)'
EEXIST_FOR_OVERLAP = 'commit 7ea987a90585 ("KVM: guest_memfd: Return -EEXIST for overlapping bindings") (in v7.2)'
UNSIGNED = 'commit eba85fee7fc6 ("KVM: guest_memfd: Treat memslot binding offset+size as unsigned values") (in v7.2)'
IN_PLACE = (
    '"guest_memfd: In-place conversion support" v8 (2026, in linux-next), virt/kvm/guest_memfd.c, __kvm_gmem_set_attributes(); '
    "selftests x86/guest_memfd_conversions_test.c"
)
HUGETLB = (
    '"1G page support for guest_memfd" RFC v2 (2025-05-14), https://lore.kernel.org/r/cover.1747264138.git.ackerleytng@google.com'
    ", as its author has it later on attributes of files"
)
POLICY = 'commit ed1ffa810bd6 ("KVM: guest_memfd: Enforce NUMA mempolicy using shared policy") (in v6.19)'
PRESERVATION = (
    '"kvm: guest_memfd_luo: add support for guest_memfd preservation" (RFC v2 to v4, 2026), kvm_gmem_luo_preserve(), '
    "kvm_gmem_freeze(), https://lore.kernel.org/r/4b2216f5c459fe699a3f62464cbc765624e20ae6.1780676742.git.tarunsahu@google.com"
)
NO_DIRECT_MAP = (
    '"Direct Map Removal Support for guest_memfd" v12 (2026), "KVM: guest_memfd: Add flag to remove from direct map" and '
    '"mm: introduce AS_NO_DIRECT_MAP"'
)
USERFAULTFD = (
    '"mm, kvm: allow uffd support in guest_memfd" v2 (2026), "KVM: guest_memfd: implement userfaultfd operations", '
    "https://lore.kernel.org/r/20260306171815.3160826-14-rppt@kernel.org"
)
WRITE = (
    '"KVM: guest_memfd: add generic population via write" v7 (2025), kvm_gmem_write_begin(), '
    "https://lore.kernel.org/r/20251114151828.98165-2-kalyazin@amazon.com"
)
CACHESTAT = 'commit cf264e1329fb ("cachestat: implement cachestat syscall") (in v6.5)'
SECRETMEM = 'commit 1507f51255c9 ("mm: introduce memfd_secret system call to create "secret" memory areas") (in v5.14)'
