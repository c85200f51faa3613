# SPDX-License-Identifier: Apache-2.0
"""From model functions to a typed tree: all that a user can do wrong is refused here, but what is known only of their sizes."""
