# SPDX-License-Identifier: Apache-2.0
"""The search once more, slow and plain: a dictionary of states, all edges kept."""

from __future__ import annotations

from collections.abc import Iterable

from guestmem.checker import Model
from guestmem.checker.explore import Edge

State = tuple[int, ...]


class Graph:
    """Everything that can happen in a world: ``edges[state]``, and ``depth[state]``, the length of the shortest way there."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.start, broken = model.start()
        assert broken is None
        self.depth: dict[State, int] = {self.start: 0}
        self.edges: dict[State, list[Edge]] = {}
        queue = [self.start]
        for state in queue:
            self.edges[state] = model.edges(state)
            for edge in self.edges[state]:
                if edge.broken is None and edge.state not in self.depth:
                    self.depth[edge.state] = self.depth[state] + 1
                    queue.append(edge.state)

    def broken(self) -> dict[tuple[str, int | None], int]:
        """For each rule and each thread that breaks it, the length of the shortest way."""
        rules = {state: {site.rule for site in self.model.broken_rules(state)} for state in self.depth}
        found: dict[tuple[str, int | None], int] = {(rule, None): 0 for rule in rules[self.start]}

        def note(broken: Iterable[str], thread: int, steps: int) -> None:
            for rule in broken:
                found[rule, thread] = min(steps, found.get((rule, thread), steps))

        for state, edges in self.edges.items():
            for edge in edges:
                new = [edge.broken.rule] if edge.broken is not None else rules[edge.state] - rules[state]
                note(new, edge.slice.thread, self.depth[state] + 1)
        return found
