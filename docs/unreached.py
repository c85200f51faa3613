# SPDX-License-Identifier: Apache-2.0
"""Why no scenario executes some lines of the model, by function, or by function and first line; for docs/coverage.md."""

DUMP = "a crash dump reads only where it is asked for: `compare --accessor crash-dump`"
BLOCKS = "only with `--arch arm64-blocks`, which no scenario has"

REASONS = {
    "GuestMemfd.create: if self.unmaps() and not can_set_direct_map(self.kernel): return -EOPNOTSUPP": BLOCKS,
    "Hypervisor.force_reclaim": "plain KVM takes nothing back",
    "Machine.load_mapped": DUMP,
    "set_direct_map_valid": BLOCKS,
    "copy_oldmem_page": DUMP,
    "alloc_folio": "frame 0 is the host kernel's own",
    "Secretmem.create": BLOCKS,
}
