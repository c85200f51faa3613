# SPDX-License-Identifier: Apache-2.0
"""Another kernel under QEMU: an image and modules, an initramfs with Python and guestmem, a command, its output and status.

``package`` finds the kernel, ``userland`` the programs, ``initramfs`` packs them, ``machine`` runs QEMU; ``init`` is what
runs inside.
"""
