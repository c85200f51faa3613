# SPDX-License-Identifier: Apache-2.0
"""Why no scenario executes some lines of the model, by function, or by function and first line; for docs/coverage.md."""

DUMP = "a crash dump reads only where it is asked for: `compare --accessor crash-dump`"
BLOCKS = "only with `--arch arm64-blocks`, which no scenario has"

ASKS_TOO_MUCH = "the hypervisor's own check of a host that asks for what it must not; no right driver does"

REASONS = {
    "GuestMemfd.create: if self.unmaps() and not can_set_direct_map(self.kernel): return -EOPNOTSUPP": BLOCKS,
    "GuestMemfd.bind: if not self.open: return -EBADF": "who binds pages holds the file open, as fget() does",
    "Gunyah.donate_to_guest: if self.owners[pfn].extent is not Extent.HOST: return -EPERM": ASKS_TOO_MUCH,
    "Gunyah.donate_to_host: if owner.guest is not guest: return -EPERM": ASKS_TOO_MUCH,
    "Gunyah.donate_to_host: if guest.reaches(frame): return -EBUSY": ASKS_TOO_MUCH,
    "Gunyah.addrspace_map: if owner.guest is not guest or private != (owner.extent is Extent.GUEST_PRIVATE): return -EPERM": (
        ASKS_TOO_MUCH
    ),
    "Pkvm.host_donate_guest: if not frame.stage2 or guest.entries[gfn].live: return -EPERM": ASKS_TOO_MUCH,
    "Pkvm.force_reclaim: return -EPERM": "what the host's stage 2 lacks is private to a guest",
    'do_mem_abort: panic("unable to handle kernel access to hypervisor-protected memory")': (
        "pKVM gives back whatever the host runs into: `Pkvm.force_reclaim` does not fail"
    ),
    "Hypervisor.force_reclaim": "plain KVM takes nothing back",
    "Machine.load_mapped": DUMP,
    "set_direct_map_valid": BLOCKS,
    "copy_oldmem_page": DUMP,
    "alloc_folio": "frame 0 is the host kernel's own",
    "Secretmem.create": BLOCKS,
}
