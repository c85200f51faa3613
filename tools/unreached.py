# SPDX-License-Identifier: Apache-2.0
"""Why no scenario executes some lines of the model, by function, or by function and first line; for docs/coverage.md."""

REASONS = {
    "Confidential.assign: if owner is not None and owner is not guest: return -EPERM": (
        "what one guest has, the library gives to no other (tests/host/test_confidential.py)"
    ),
    "GuestMemfd.bind: if not self.open: return -EBADF": "who binds pages holds the file open, as fget() does",
    "Pkvm.force_reclaim: return -EPERM": "what the host's stage 2 lacks is private to a guest",
    'do_mem_abort: panic("unable to handle kernel access to hypervisor-protected memory")': (
        "pKVM gives back whatever the host runs into: `Pkvm.force_reclaim` does not fail"
    ),
    "Hypervisor.force_reclaim": "plain KVM takes nothing back",
    "Kernel.set_direct_map_valid": "where single pages cannot be changed no file is created that would ask for it",
    "Kernel.alloc": "frame 0 is the host kernel's own",
    **dict.fromkeys(
        (
            *("Object.make", "Object.use", "Object.get_unless_zero", "Object.put", "Object.free"),
            *("Srcu.read_lock", "Srcu.read_unlock", "Srcu.synchronize", "Srcu.begin", "Srcu.wait"),
        ),
        "files, slots and VMs live and die in upstream/kvm_guest_memfd.py, and in files of users",
    ),
    **dict.fromkeys(("Object.get", "u32"), "for files of users (tests/host/test_lifetime.py, tests/language/test_words.py)"),
    "GuestMemfd.provide_page: if not self.bound[pgoff] or self.owner[pgoff] is not guest: return -EFAULT": (
        "`guest_fault` asks before; only who populates names a page (upstream/libraries.py)"
    ),
    "GuestMemfd.populate": "no scenario populates; the posted libraries that are compared with ours do (upstream/libraries.py)",
    **dict.fromkeys(
        (
            *("ResourceManager.vm_alloc", "ResourceManager.mem_lend", "ResourceManager.mem_reclaim", "ResourceManager.vm_init"),
            *("ResourceManager.vm_start", "ResourceManager.vm_reset", "ResourceManager.vm_dealloc"),
        ),
        "our driver asks only when it may, with one parcel; the twins of `gunyah-boot` are answered so",
    ),
    "Hugetlb1G.create": "what else can refuse a file, refuses none in `kvm-hugetlb`",
    "add_split": "the pool of `kvm-hugetlb` has one huge page: who is slower has none to add",
    "Secretmem.truncate_setsize": "a file without a size has no page; B65 and B66 clear one",
    "u64": "B56 counts with it, and files of users do (tests/language/test_words.py)",
}
