# SPDX-License-Identifier: Apache-2.0
"""The command line: a file a command; nobody imports it."""
