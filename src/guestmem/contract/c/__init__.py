# SPDX-License-Identifier: Apache-2.0
"""A program of the contract as one C file: what a kernel does otherwise becomes a report."""
