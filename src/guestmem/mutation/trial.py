# SPDX-License-Identifier: Apache-2.0
"""Worlds explored in a process of their own, which imports the package as the caller has laid it out.

``serve`` reads a question a line and answers each with a line, both JSON.  Who takes longer than a question's ``patience``, in
seconds of CPU time, dies of SIGXCPU.
"""

from __future__ import annotations

import contextlib
import gc
import json
import resource
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

__all__ = ["serve"]


def serve() -> None:
    """Answer questions until there are no more."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a user's file prints is no answer
    gc.disable()  # a third of the time of a translation
    for line in sys.stdin:
        question = json.loads(line)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + question["patience"], hard))
        print(json.dumps(answer(question)), file=answers, flush=True)
        gc.collect()


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What comes of a scenario: how it ends, and what it is that ends so.

    ``end`` is "explored", "same" (its code has one of the digests that are ``known``), "refused" (by Python or by the
    language), "broken" (a rule, while the world is built), "failed" (another error then) or "crashed" (the translator did).
    Where ``trace`` is asked for, ``functions`` has the functions that are part of the world, as file and first line.
    """
    try:
        from guestmem.checker.engine.compile import SHARED
        from guestmem.checker.explore import Model
        from guestmem.checker.frontend import source
        from guestmem.model.errors import Refused, Verdict
        from guestmem.scenarios.catalogue import ARCHES, PROTECTIONS, find
    except Exception as error:
        return {"end": "refused", "why": f"{type(error).__name__}: {error}"}
    names: dict[str, Any] = {"protection": PROTECTIONS, "arch": ARCHES}
    options = {name: names[name][value] if name in names else value for name, value in question["options"].items()}
    trace = question.get("trace", False)
    began = time.process_time()
    called: set[tuple[str, int]] = set()
    try:
        scenario = find(question["scenario"])
        with _calls(called) if trace else contextlib.nullcontext():
            world = scenario.build(**options)
    except Refused as error:
        return {"end": "refused", "why": str(error)}
    except Verdict as error:
        return {"end": "broken", "rule": error.rule}
    except Exception as error:
        return {"end": "failed", "why": f"{type(error).__name__}: {error}"}
    try:
        source.READ.clear()
        translation = Model.translate(world)
        digest = translation.digest
        if digest in question.get("known", ()):
            return {"end": "same", "digest": digest}
        called |= {(f.file, f.python.__code__.co_firstlineno) for f in source.READ.values()}
        model = Model(world, flags=(question.get("optimise", "-O1"), *SHARED), translation=translation)
        outcome = model.explore(max_states=question.get("states"), memory=question.get("memory"))
    except Refused as error:
        return {"end": "refused", "why": str(error)}
    except Exception as error:
        return {"end": "crashed", "why": f"{type(error).__name__}: {error}"}
    return {
        "end": "explored",
        "digest": digest,
        "verdict": outcome.verdict,
        "rules": sorted({violation.rule for violation in outcome.violations}),
        "missed": outcome.missed,
        "states": outcome.states,
        "steps": min((violation.steps for violation in outcome.violations), default=None),
        "why": outcome.why,
        "seconds": round(time.process_time() - began, 2),
        **({"functions": sorted(called)} if trace else {}),
    }


@contextlib.contextmanager
def _calls(called: set[tuple[str, int]]) -> Iterator[None]:
    """Note the functions that run, as file and first line."""

    def note(frame: types.FrameType, event: str, argument: object) -> None:
        if event == "call":
            called.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
