# SPDX-License-Identifier: Apache-2.0
"""From the typed tree to bodies of blocks, and what is found out about these."""
