# SPDX-License-Identifier: Apache-2.0
"""Why a kernel cannot be booted."""

from __future__ import annotations

__all__ = ["Cannot"]


class Cannot(Exception):
    """Something is missing or not as it must be, in one line that says what to do."""
