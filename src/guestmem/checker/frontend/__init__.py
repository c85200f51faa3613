# SPDX-License-Identifier: Apache-2.0
"""What is asked of model functions before they are translated: all that a user can do wrong ends here."""
