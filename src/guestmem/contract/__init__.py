# SPDX-License-Identifier: Apache-2.0
"""What guest_memfd promises to user space, as rules that run on the simulated host and on a real kernel."""
