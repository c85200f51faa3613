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

    def successors(self, state: State, thread: int) -> list[State]:
        """Where the next slice of a thread can lead."""
        return [edge.state for edge in self.edges[state] if edge.slice.thread == thread and edge.broken is None]

    def able(self, state: State) -> set[int]:
        """Who can do something."""
        return {edge.slice.thread for edge in self.edges[state]}

    def finished(self, state: State, thread: int) -> bool:
        """Whether a thread has returned."""
        body = self.model.translation.bodies.threads[thread]
        return self.model.translation.layout.thread(state, thread, body)[0].kind == "end"

    def endless(self, thread: int) -> int | None:
        """The length of the shortest way to where a thread may go round its loop for ever; it is in it until it returns."""
        everybody = set(range(len(self.model.world.threads)))
        acts = {s: set(everybody) for s in self.depth if not self.finished(s, thread)}
        while True:
            for state, threads in acts.items():
                threads -= {t for t in threads if not self.successors(state, t)}
                threads -= {t for t in threads if not all(s in acts for s in self.successors(state, t))}
            component = components({s: {n for t in threads for n in self.successors(s, t)} for s, threads in acts.items()})
            leaving = {
                (state, t)
                for state, threads in acts.items()
                for t in threads
                if any(component[s] != component[state] for s in self.successors(state, t))
            }
            for state, t in leaving:
                acts[state].discard(t)
            acts = {state: threads for state, threads in acts.items() if threads}
            if not leaving:
                break
        found = []
        for number in set(component.values()):
            states = [s for s in acts if component[s] == number]
            acting = set().union(*(acts[s] for s in states))
            unable = {t for t in everybody if any(t not in self.able(s) for s in states)}
            if thread in acting and acting | unable == everybody:
                found.append(min(self.depth[s] for s in states))
        return min(found, default=None)


def components(successors: dict[State, set[State]]) -> dict[State, int]:
    """The strongly connected components of a graph, by number (Tarjan)."""
    found: dict[State, int] = {}
    index: dict[State, int] = {}
    low: dict[State, int] = {}
    stack: list[State] = []

    def visit(state: State) -> None:
        index[state] = low[state] = len(index)
        stack.append(state)
        for following in successors[state]:
            if following not in index:
                visit(following)
                low[state] = min(low[state], low[following])
            elif following not in found:
                low[state] = min(low[state], index[following])
        if low[state] == index[state]:
            while state not in found:
                found[stack.pop()] = index[state]

    for state in successors:
        if state not in index:
            visit(state)
    return found
