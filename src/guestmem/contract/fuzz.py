# SPDX-License-Identifier: Apache-2.0
"""Differential fuzzing: the same random program on the model and on the kernel, every result compared.

A divergence that no known deviation explains is reduced to the operations it needs.
"""

from __future__ import annotations

import math
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from guestmem.contract.conform import kernel_host
from guestmem.contract.generate import generate
from guestmem.contract.interface import Host, Unmodelled
from guestmem.contract.minimise import Divergence, comparable, deviation, first_divergence, minimise
from guestmem.contract.program import MISSING, Op, Step, look_around, perform, present, text
from guestmem.contract.results import Failure, Other
from guestmem.contract.syscalls.simulated_host import SimulatedHost
from guestmem.linux.process import Lost, Worker

__all__ = ["Fuzzer"]

MOST = 10  # kinds of divergences that are reduced and kept
REDUCING = 30.0  # seconds for one
PATIENCE = 20.0  # seconds for a program
AGAIN = 3.0  # and for one that was run before


class Fuzzer:
    """Runs programs until told to stop.

    Attributes:
        first, next: the number of the first program, and of the one that is made next.
        reached: the number of the first program that was not compared.
        unusable: why this kernel cannot be fuzzed, or nothing.
        operations, programs: performed on both hosts so far.
        missing: operations that the machine does not have, and why.
        left_out: how often the model did not know what a kernel does, by reason.
        known: the deviations that this kernel has.
        deviations: how often each known deviation was met.
        divergences: what nothing explains, one of each kind, reduced; ``met`` says how often.
    """

    def __init__(
        self,
        seed: int,
        model: Callable[[], SimulatedHost] = SimulatedHost,
        kernel: Callable[[], Host] = kernel_host,
        first: int = 0,
    ) -> None:
        self.seed = seed
        self.first = self.next = self.reached = first
        self.model = model()
        self.prepare = kernel
        self.operations = 0
        self.programs = 0
        self.performed: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.deviations: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.met: Counter[tuple[Any, ...]] = Counter()
        self.missing: dict[str, str] = {}
        self.divergences: list[Divergence] = []
        self.stopped = False
        self.deadline = math.inf
        around = look_around(kernel)
        self.unusable = around.unusable
        self.missing.update(around.missing)
        self.model.resemble(around.facts)
        self.known = () if around.unusable else present(kernel)
        self.worker = self.new_worker()

    def stop(self) -> None:
        """Run no more programs, and come to an end with what is being reduced."""
        self.stopped = True

    def new_worker(self) -> Worker:
        """A process with the kernel as a host."""
        return Worker(self.prepare, perform, PATIENCE)

    def run(self, seconds: float, most: int | None, note: Callable[[str], None]) -> Iterator[tuple[int, Divergence]]:
        """Make and compare programs for some time, or a number of them; yields what nothing explains, with its number.

        It is yielded at once and again when it is reduced.  The next program is made while the kernel runs one.
        """
        stop = time.monotonic() + seconds
        waiting = self.make()
        while waiting and time.monotonic() < stop and not self.stopped and (most is None or self.programs < most):
            made, program, model = waiting
            self.worker.start(program)
            waiting = self.make()
            try:
                kernel = self.worker.result(self.is_stopped)
            except Lost as lost:
                kernel = self.lost(program, lost)
            self.programs += 1
            self.reached = made + 1
            for number, divergence in self.compare(program, model, kernel):
                note(self.progress())
                yield number, divergence
            note(self.progress())
            if len(self.divergences) >= MOST:
                break
        self.worker.close()

    def progress(self) -> str:
        """How far it is."""
        return f"{self.operations} operations, {self.programs} programs, {len(self.divergences)} divergences"

    def make(self) -> tuple[int, list[Op], list[Step]] | None:
        """The next program, its number and its steps on the model; None if there is none."""
        number = self.next
        self.next += 1
        return number, *generate(self.model, f"{self.seed}.{number}", self.missing, self.left_out)

    def arguments(self) -> str:
        """What to give to ``guestmem fuzz`` for the same programs."""
        return f"--seed {self.seed}"

    def title(self) -> str:
        """Which programs these are."""
        return f"seed {self.seed}"

    def out_of_time(self) -> bool:
        """Whether what is being reduced stays as it is."""
        return self.stopped or time.monotonic() > self.deadline

    def is_stopped(self) -> bool:
        """Whether to stop."""
        return self.stopped

    def on_kernel(self, program: Sequence[Op]) -> list[Step]:
        """The steps of a program on the kernel; when it ends the process, in a new one, and the last step is how."""
        try:
            steps: list[Step] = self.worker.do(program, self.is_stopped)
            return steps
        except Lost as lost:
            return self.lost(program, lost)

    def lost(self, program: Sequence[Op], lost: Lost) -> list[Step]:
        """The steps up to the operation that ends the process; all of them if it does not do so again.

        It is found by halving, so in some eight runs, which end after AGAIN seconds each.
        """
        done, dies, steps = 0, len(program) + 1, list[Step]()
        while dies - done > 1 and not self.stopped:
            middle = len(program) if dies > len(program) else (done + dies) // 2
            self.renew(AGAIN)
            try:
                steps = self.worker.do(program[:middle], self.is_stopped)
                done = middle
            except Lost as again:
                dies, lost = middle, again
        self.renew()
        return steps if self.stopped or dies > len(program) else [*steps, Step(Other(str(lost)), "")]

    def renew(self, timeout: float | None = None) -> None:
        """Begin with a new process."""
        self.worker.close()
        self.worker = self.new_worker()
        if timeout is not None or self.deadline < math.inf:
            self.worker.timeout = timeout or AGAIN

    def compare(self, program: Sequence[Op], model: Sequence[Step], kernel: Sequence[Step]) -> Iterator[tuple[int, Divergence]]:
        """Count, keep and yield what diverges."""
        found = first_divergence(program, model, kernel, self.known)
        self.missing.update(
            (op.name, theirs.rule) for op, theirs in zip(program, kernel, strict=False) if theirs.result == MISSING
        )
        for op, ours, theirs in comparable(program, model, kernel, self.known):
            self.operations += 1
            self.performed[op.name] += 1
            if isinstance(theirs.result, Failure):
                self.failures[theirs.result.kind] += 1
            why = deviation(op, ours, theirs, self.known) if ours.result != theirs.result else None
            if why is not None:
                self.deviations[why.explanation] += 1
        if found is None:
            return
        self.met[found.kind] += 1
        if self.met[found.kind] > 1:
            return
        number = len(self.divergences)
        self.divergences.append(found)
        yield number, found
        self.deadline = time.monotonic() + REDUCING
        again = self.diverges(found.program)
        if again is not None and again.kind == found.kind:
            self.divergences[number] = minimise(again, self.diverges)
        elif not self.out_of_time():
            self.divergences[number] = found._replace(recurs=False)
        self.deadline = math.inf
        yield number, self.divergences[number]

    def diverges(self, program: Sequence[Op]) -> Divergence | None:
        """Run a program on both hosts and say how it diverges; not when there is no more time for it."""
        if self.out_of_time():
            return None
        try:
            model = perform(self.model, program)
        except Unmodelled:
            return None
        return first_divergence(program, model, self.on_kernel(program), self.known)

    def report(self, saved: Mapping[int, str]) -> Iterator[str]:
        """What was done and found; ``saved`` has the names of the scripts that could be written."""
        done = f"{self.operations} operations in {self.programs} programs on both hosts"
        yield f"{self.title()}, Linux {platform.release()}: {done}"
        for explanation, times in self.deviations.items():
            yield f"known deviation, {times} times: {explanation}"
        for name, why in self.missing.items():
            yield f"not fuzzed: {name}: {why}"
        for number, divergence in enumerate(self.divergences):
            yield f"divergence, {self.met[divergence.kind]} times: {divergence.title()}"
            for line in text(divergence.program):
                yield f"    {line}"
            yield f"    saved as {saved[number]}" if number in saved else "    not saved"
        if self.stopped:
            yield f"stopped: go on with {self.arguments()} --first {self.reached}"
        if not self.operations:
            yield "nothing was compared"
        elif not self.divergences:
            yield "no unexplained divergence"

    def as_json(self, saved: Mapping[int, str]) -> dict[str, Any]:
        """The same as one object."""
        return {
            "schema": 1,
            "programs_of": self.title(),
            "seed": self.seed,
            "kernel": platform.release(),
            "first": self.first,
            "reached": self.reached,
            "programs": self.programs,
            "operations": self.operations,
            "performed": dict(self.performed.most_common()),
            "failures": dict(self.failures.most_common()),
            "missing": self.missing,
            "left_out": dict(self.left_out.most_common()),
            "deviations": dict(self.deviations),
            "divergences": [
                {
                    "title": d.title(),
                    "rule": d.rule,
                    "met": self.met[d.kind],
                    "recurs": d.recurs,
                    "program": text(d.program),
                    "saved": saved.get(number),
                }
                for number, d in enumerate(self.divergences)
            ],
        }
