# SPDX-License-Identifier: Apache-2.0
"""Mutants tried against scenarios: which of them does no rule notice?

A mutant is tried in the scenarios that have its function, those first that have killed others of the same function and
file, then in the order of cost; scenarios whose code is the same are tried once.  The first verdict that is not that of
the good code kills it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from guestmem.checker.engine.compile import cache_directory
from guestmem.checker.explore import default_memory
from guestmem.model.errors import Refused
from guestmem.mutation.mutants import Key, Mutant, mutants
from guestmem.scenarios.catalogue import SCENARIOS

__all__ = ["Campaign", "Case", "Result", "Source", "code_digest", "package_sources"]

PACKAGE = Path(__file__).parent.parent
#: What has no say in a verdict.
ASIDE = ("cli", "contract", "linux")
#: Calls that say what is right, what was seen or what is counted, and marks of such functions: they are not changed.
NOTES = ("charge", "reached", "require")
RULES = ("always", "sometimes")
#: What the world decides: both are tried, so its opposite is the same.
FREE = ("may",)
#: Seconds of CPU time after which a mutant in a scenario is taken to hang.
PATIENCE = 120
#: A mutant may have so many states more than the good code.
MORE = 5_000_000
#: Below so many states, compiling faster pays.
SMALL = 200_000


class Source(NamedTuple):
    """A file whose logic is changed: its name in reports, where it is, where it goes in a copy of the package."""

    name: str
    path: Path
    place: str

    def mutants(self) -> list[Mutant]:
        """All its mutants."""
        return mutants(self.path.read_text(encoding="utf-8"), self.name, rules=RULES, notes=NOTES, free=FREE)


class Case(NamedTuple):
    """A scenario with options, as the command line writes them; ``expected`` has the rules that are known to break."""

    scenario: str
    options: tuple[tuple[str, Any], ...]
    expected: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """In one word or two: the sizes are the scenario's own."""
        return " ".join([self.scenario, *(str(value) for name, value in self.options if name == "protection")])


@dataclass
class Result:
    """What became of a mutant.

    ``status`` is "killed" (``case`` broke ``rule`` in ``steps``), "survived", "unreached" (no scenario has the function),
    "incomplete" (``why``: no scenario killed it and some did not end), "same" (in none the code differs), "invalid" (Python or
    the language refuses it), or what a list of survivors says it is: "equivalent", "cost".  ``tried`` names the cases.
    """

    key: Key
    line: int
    status: str
    case: str = ""
    rule: str = ""
    steps: int | None = None
    tried: list[str] = field(default_factory=list)
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """As one object."""
        return {**self.key._asdict(), **{name: value for name, value in asdict(self).items() if name != "key"}}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Result:
        """The inverse of ``as_json``."""
        key = Key(*(found.pop(name) for name in Key._fields))
        return cls(key, **found)


def package_sources(name: str) -> list[Source]:
    """The sources of a package or a file of the project's own logic, as ``mm`` or ``mm/folio.py``; none for another name."""
    path = PACKAGE / name
    if not name or path.resolve().parent not in (PACKAGE, *PACKAGE.iterdir()) or path.name.startswith((".", "_")):
        return []
    found = sorted(path.glob("[!_]*.py")) if path.is_dir() else [path] if path.suffix == ".py" and path.is_file() else []
    names = [file.relative_to(PACKAGE).as_posix() for file in found]
    return [Source(n, file, f"guestmem/{n}") for n, file in zip(names, found, strict=True)]


def catalogue_cases() -> list[Case]:
    """Every scenario at its small sizes, under each protection under which it holds; if none does, under each."""
    cases = []
    for scenario in SCENARIOS.values():
        holding = [protection for protection, rule in scenario.expected.items() if not rule]
        for protection in holding or scenario.expected:
            options = {**({"protection": protection} if protection else {}), **scenario.small}
            rule = scenario.expected[protection]
            cases.append(Case(scenario.name, tuple(options.items()), (rule,) if rule else ()))
    return cases


def code_digest(files: Sequence[Path] = ()) -> str:
    """What verdicts rest on: the package, and files of a user's."""
    digest = hashlib.sha256(sys.version.encode())
    own = [p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".c", ".h") and p.relative_to(PACKAGE).parts[0] not in ASIDE]
    for path in [*sorted(own), *files]:
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class _Workshop:
    """A copy of the package in which one file at a time is changed, and a process that explores what it has become."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="guestmem-mutate-")
        self.root = Path(self._directory.name).resolve()
        shutil.copytree(PACKAGE, self.root / "guestmem")
        outside = [s for s in sources if not s.place.startswith("guestmem/")]
        for source in outside:
            (self.root / source.place).parent.mkdir(exist_ok=True)
            shutil.copy2(source.path, self.root / source.place)
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.root), *(str(s.path.parent) for s in outside), *_given_path()]),
            "PYTHONDONTWRITEBYTECODE": "1",  # a change may leave size and second of a file as they are
            "PYTHONHASHSEED": "0",
            "XDG_CACHE_HOME": str(self.root / "cache"),
        }
        self._process: subprocess.Popen[str] | None = None

    def change(self, source: Source, text: str) -> None:
        """Put another text in the place of a source."""
        self.stop()
        (self.root / source.place).write_text(text, encoding="utf-8")

    def restore(self, source: Source) -> None:
        """Put the good text back."""
        self.stop()
        shutil.copy2(source.path, self.root / source.place)
        shutil.rmtree(self.root / "cache", ignore_errors=True)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer of :func:`guestmem.mutation.trial.answer`; "crashed" as well when the process dies or hangs."""
        if self._process is None:
            command = [sys.executable, "-c", "from guestmem.mutation.trial import serve; serve()"]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self.environment,
                cwd=self.root,
                text=True,
                start_new_session=True,  # an interrupt is for us: the answer of a process that dies of it means nothing
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({**question, "patience": PATIENCE}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line.endswith("\n"):
            for place in ("guestmem", "user"):  # as the user knows them
                line = line.replace(f"{self.root / place}/", "")
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = process.wait()
        self.stop()
        hung = code == -signal.SIGXCPU
        return {"end": "crashed", "why": f"no answer in {PATIENCE} s" if hung else f"the process ended with {code}"}

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def close(self) -> None:
        """Remove everything."""
        self.stop()
        self._directory.cleanup()


def _given_path() -> list[str]:
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


@dataclass
class Campaign:
    """Sources, and the cases that their mutants are tried in.

    Attributes:
        sources, cases: which.
        jobs: how many mutants are tried at a time.
        most: the number of cases that a mutant is tried in at most.
        deadline: of ``time.monotonic()``, after which nothing new is begun.
        note: is told how far it is.
        left_out: why a case is not used, by name.
        hints: the case that killed a mutant of older code, by its name: it is tried first.
    """

    sources: Sequence[Source]
    cases: Sequence[Case]
    jobs: int = 1
    most: int | None = None
    deadline: float = float("inf")
    note: Callable[[str], None] = lambda text: None
    left_out: dict[str, str] = field(default_factory=dict)
    hints: Mapping[Key, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._kills: Counter[tuple[str, str]] = Counter()
        self._good: dict[Case, dict[str, Any]] = {}
        self._stop = threading.Event()
        self._by_name = {source.name: source for source in self.sources}

    def late(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._stop.is_set() or time.monotonic() > self.deadline

    def stop(self) -> None:
        """Begin nothing new."""
        self._stop.set()

    def run(self, wanted: Sequence[Mutant], before: Mapping[Key, Result]) -> Iterator[Result]:
        """Try mutants; results come as they are found.  What a deadline or ``stop`` cuts short gives none.

        Those of ``before`` that have not been killed are tried in the cases in which they were not.
        """
        with ExitStack() as stack:
            shops: queue.SimpleQueue[_Workshop] = queue.SimpleQueue()
            for _ in range(self.jobs):
                shops.put(stack.enter_context(closing(_Workshop(self.sources))))
            pool = stack.enter_context(ThreadPoolExecutor(self.jobs))
            stack.callback(self.stop)
            self._measure(pool, shops)
            running = [
                pool.submit(_with_shop, shops, functools.partial(self._try, mutant, before.get(mutant.key))) for mutant in wanted
            ]
            for done in as_completed(running):
                result = done.result()
                if result is not None:
                    yield result

    # ---- the good code

    def _measure(self, pool: ThreadPoolExecutor, shops: queue.SimpleQueue[_Workshop]) -> None:
        """Explore the good code: what it costs, how it ends, which functions it has.  Kept for the next time."""
        outside = [s.path for s in self.sources if not s.place.startswith("guestmem/")]
        kept = cache_directory() / f"mutation-{code_digest(outside)}.json"
        known: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(kept.read_text())
        new = [case for case in self.cases if repr(case) not in known]
        answers = pool.map(lambda case: _with_shop(shops, functools.partial(self._explore_good, case)), new)
        for number, (case, answer) in enumerate(zip(new, answers, strict=True), 1):
            if answer is not None:
                known[repr(case)] = answer
            self.note(f"the good code: {number} of {len(new)} scenarios")
        if new:
            with contextlib.suppress(OSError):  # then it is measured again
                kept.parent.mkdir(parents=True, exist_ok=True)
                scratch = kept.with_suffix(f".{os.getpid()}.tmp")
                scratch.write_text(json.dumps(known))
                scratch.replace(kept)
        seen: set[str] = set()
        for case in self.cases:
            good = known.get(repr(case))
            if good is None:
                continue
            why = _unusable(case, good)
            if why:
                self.left_out[case.name] = why
            elif good["digest"] not in seen:
                seen.add(good["digest"])
                self._good[case] = {**good, "functions": {(file, line) for file, line in good["functions"]}}
        if not self._good and self.left_out and not self.late():
            name, why = next(iter(self.left_out.items()))
            raise Refused(f"{name} as it is", why, "correct that first, or give it other options: see guestmem check")

    def _explore_good(self, case: Case, shop: _Workshop) -> dict[str, Any] | None:
        if self.late():
            return None
        answer = shop.ask({**self._question(shop, case), "trace": True})
        return {**answer, "functions": [at for at in answer.get("functions", ()) if at[0] in self._by_name]}

    def _question(self, shop: _Workshop, case: Case) -> dict[str, Any]:
        scenario = case.scenario
        file, colon, world = scenario.rpartition(":")
        if colon:
            scenario = f"{shop.root / self._by_name[file].place}:{world}"
        return {"scenario": scenario, "options": dict(case.options), "memory": default_memory() // self.jobs}

    # ---- a mutant

    def _order(self, mutant: Mutant) -> list[Case]:
        """The cases that have the function of a mutant, at most ``most``: those first that have killed it or others like it.

        Of each scenario the protection with the most states comes before the others of all scenarios, and of these the
        cheapest.
        """
        at = (mutant.file, mutant.first)
        cases = [case for case, good in self._good.items() if at in good["functions"]]
        cases.sort(key=lambda case: -self._good[case]["states"])
        turns: Counter[str] = Counter()
        turn: dict[Case, int] = {}
        for case in cases:
            turn[case] = turns[case.scenario]
            turns[case.scenario] += 1
        hint = self.hints.get(mutant.key)
        cases.sort(key=lambda case: (case.name != hint, turn[case], self._good[case]["seconds"]))
        cases = cases[: self.most]
        kills = self._kills
        return sorted(cases, key=lambda case: (case.name != hint, -kills[case.name, f"{at}"], -kills[case.name, mutant.file]))

    def _try(self, mutant: Mutant, before: Result | None, shop: _Workshop) -> Result | None:
        if self.late():  # maybe before all of the good code was explored
            return None
        source = self._by_name[mutant.file]
        result = Result(mutant.key, mutant.line, "same")
        cases = self._order(mutant)
        if not cases:
            result.status = "unreached"
        if before is not None:
            result = replace(before, line=mutant.line, tried=list(before.tried))
            cases = [case for case in cases if case.name not in before.tried]
        if not cases:
            return result
        shop.change(source, mutant.apply(source.path.read_text(encoding="utf-8")))
        try:
            held: dict[tuple[str, ...], set[str]] = {}
            for case in cases:
                if self.late():
                    return None
                good = self._good[case]
                like = tuple(good["rules"])
                answer = shop.ask(
                    {
                        **self._question(shop, case),
                        "known": [good["digest"], *held.get(like, ())],
                        "states": good["states"] + MORE,
                        "optimise": "-O0" if good["states"] < SMALL else "-O1",
                    }
                )
                result.tried.append(case.name)
                self._judge(result, case, good, answer)
                if result.status in ("killed", "invalid"):
                    self._kills[case.name, f"{mutant.file, mutant.first}"] += 1
                    self._kills[case.name, mutant.file] += 1
                    break
                if answer["end"] == "explored" and answer["verdict"] != "incomplete":
                    held.setdefault(like, set()).add(answer["digest"])
            return result
        finally:
            shop.restore(source)

    def _judge(self, result: Result, case: Case, good: dict[str, Any], answer: dict[str, Any]) -> None:
        """Say what an answer means for a mutant."""

        def killed(rule: str, steps: int | None = None) -> None:
            result.status, result.case, result.rule, result.steps = "killed", case.name, rule, steps
            result.why = ""

        match answer["end"]:
            case "refused":
                result.status, result.why = "invalid", answer["why"]
            case "broken":
                killed(f"{answer['rule']}, while it is built")
            case "failed":
                killed(f"{answer['why']}, while it is built")
            case "crashed":
                result.status, result.why = "incomplete", f"{case.name}: {answer['why']}"
            case "explored" if answer["verdict"] == "incomplete":
                result.status, result.why = "incomplete", f"{case.name}: {answer['why']}"
            case "explored" if answer["rules"] and answer["rules"] != good["rules"]:
                killed(answer["rules"][0], answer["steps"])
            case "explored" if answer["rules"] != good["rules"]:
                killed(f"no more: {good['rules'][0]}")
            case "explored" if answer["missed"] != good["missed"]:
                killed("nothing shows: " + "; ".join(answer["missed"]))
            case "explored" if result.status == "same":
                result.status = "survived"


def _with_shop(shops: queue.SimpleQueue[_Workshop], work: Callable[[_Workshop], Any]) -> Any:
    shop = shops.get()
    try:
        return work(shop)
    finally:
        shops.put(shop)


def _unusable(case: Case, good: dict[str, Any]) -> str:
    """Why a case says nothing about mutants; the empty string if it does."""
    if good["end"] != "explored":
        return f"{good['end']}: {good.get('why') or good.get('rule')}"
    if good["verdict"] == "incomplete":
        return f"incomplete: {good['why']}"
    if good["missed"]:
        return f"nothing shows: {'; '.join(good['missed'])}"
    if tuple(good["rules"]) == case.expected:
        return ""
    known = f", which is known to break: {case.expected[0]}" if case.expected else ""
    return (f"violated: {good['rules'][0]}" if good["rules"] else "holds") + known
