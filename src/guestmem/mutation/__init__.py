# SPDX-License-Identifier: Apache-2.0
"""Mutation: source with one change in it, and which of the changes no rule notices."""
