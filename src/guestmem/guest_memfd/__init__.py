# SPDX-License-Identifier: Apache-2.0
"""The guest_memfd library: guest memory in files, shared by the drivers of several hypervisors."""
