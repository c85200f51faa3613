# SPDX-License-Identifier: Apache-2.0
"""The search: C that stands after the text of a world, how it is compiled, and what it takes and gives."""
