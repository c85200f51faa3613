# SPDX-License-Identifier: Apache-2.0
"""The host kernel's memory management, as far as guest memory meets it."""
