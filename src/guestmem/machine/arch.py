# SPDX-License-Identifier: Apache-2.0
"""Architectures, as far as the direct map differs between them."""

from enum import Enum

__all__ = ["Arch"]


class Arch(Enum):
    """How the direct map is made, and what it takes to change a page of it."""

    ARM64 = 0  # rodata=full without BBML2: page entries from boot on
    ARM64_BLOCKS = 1  # block entries that stay: can_set_direct_map() is false
    ARM64_BBML2 = 2  # block entries, split at run time by one store, which needs a page
    ARM64_BBM = 3  # what no kernel does: block entries, split by break-before-make while in use
    X86 = 4  # block entries, split on demand (change_page_attr), which needs a page
