# SPDX-License-Identifier: Apache-2.0
"""Why no scenario executes some lines of the model, by function, or by function and first line; for docs/coverage.md."""

REASONS = {
    "Hypervisor.force_reclaim": "plain KVM takes nothing back",
}
