# SPDX-License-Identifier: Apache-2.0
"""The real kernel: bindings to KVM, guest_memfd, memfd_secret and Gunyah, and what is measured and recorded with them.

Nothing here imports the simulator, and nothing here needs more than the standard library.
"""
