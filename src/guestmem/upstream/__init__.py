# SPDX-License-Identifier: Apache-2.0
"""Posted series and known defects, as variants of the library, of drivers and of hypervisors: each overrides what differs."""
