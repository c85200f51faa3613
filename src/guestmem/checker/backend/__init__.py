# SPDX-License-Identifier: Apache-2.0
"""From bodies of blocks to C."""
