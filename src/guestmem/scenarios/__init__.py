# SPDX-License-Identifier: Apache-2.0
"""Scenarios: who acts, what must hold, what a workload costs.  ``SCENARIOS`` has them by name, ``find`` one of a user's file."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guestmem.scenarios.catalogue import SCENARIOS, Scenario, find

__all__ = ["SCENARIOS", "Scenario", "find"]


if not TYPE_CHECKING:  # so that a misspelt name is an error to a type checker

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'guestmem.scenarios' has no attribute {name!r}")
        from guestmem.scenarios import catalogue

        return getattr(catalogue, name)
