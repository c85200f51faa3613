# SPDX-License-Identifier: Apache-2.0
"""The checker: a world of the model language becomes C, and everything that can happen in it is explored."""

from guestmem.checker.explore import Edge, Model, Outcome, Violation

__all__ = ["Edge", "Model", "Outcome", "Violation"]
