# SPDX-License-Identifier: Apache-2.0
"""The guest_memfd library, executable: it runs on a simulated host and is explored exhaustively by a checker."""

__version__ = "0.1.0"
