# SPDX-License-Identifier: Apache-2.0
"""Recorded runs of a real kernel: recorded, read as text, checked, and taken as a list of operations."""
