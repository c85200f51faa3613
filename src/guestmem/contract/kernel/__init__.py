# SPDX-License-Identifier: Apache-2.0
"""The real kernel as a host of the contract, through the bindings of ``guestmem.linux``."""
