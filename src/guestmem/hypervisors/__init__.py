# SPDX-License-Identifier: Apache-2.0
"""Hypervisors, and the drivers through which they use guest_memfd."""
