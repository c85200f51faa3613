# SPDX-License-Identifier: Apache-2.0
"""``guestmem new`` and ``guestmem hooks``: a file of your own, and what it can override."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from guestmem.cli.files import may_write, write_whole
from guestmem.cli.terminal import HOLDS, Usage

KINDS = "driver, hypervisor, library, mm, actor or world"
LIKE = "kvm, gunyah, pkvm, snp, tdx or cca"


def add(commands: Any) -> None:
    """Add the commands."""
    new = commands.add_parser("new", help="write a file of your own: it holds as it stands, with every hook in it")
    new.add_argument("kind", metavar="KIND", help=KINDS)
    new.add_argument("file", metavar="FILE.py", help="where to")
    new.add_argument("--like", metavar="HOST", default="kvm", help=f"{LIKE} (default: kvm)")
    new.set_defaults(run=run)
    hooks = commands.add_parser("hooks", help="what a file of your own can override, and where it is called")
    hooks.add_argument("kind", metavar="KIND", nargs="?", help=f"{KINDS} (default: all)")
    hooks.add_argument("--like", metavar="HOST", default="kvm", help=f"{LIKE} (default: kvm)")
    hooks.add_argument("--json", action="store_true")
    hooks.set_defaults(run=list_hooks)


def run(arguments: argparse.Namespace) -> int:
    """Write a file."""
    from guestmem.report.hooks import new_file

    file = arguments.file
    if not file.endswith(".py") or not os.path.basename(file)[:-3].isidentifier():
        raise Usage(f"{file}: a world is in a Python file: name one, as my{arguments.kind}.py")
    if os.path.exists(file):
        raise Usage(f"{file}: is there already: name another, or remove it")
    text = new_file(arguments.kind, arguments.like, file)
    may_write(file, "FILE.py")
    write_whole(file, text, "FILE.py")
    print(f"{file}: check it with: guestmem check {file}")
    return HOLDS


def list_hooks(arguments: argparse.Namespace) -> int:
    """Print what can be overridden."""
    from guestmem.report.hooks import KINDS as KINDS_OF_FILE
    from guestmem.report.hooks import base_of, hooks

    kinds = [arguments.kind] if arguments.kind else list(KINDS_OF_FILE)
    found = {kind: hooks(base_of(kind, arguments.like)) for kind in kinds}
    if arguments.json:
        print(
            json.dumps({"schema": 1, "hooks": {kind: [h._asdict() for h in all_of] for kind, all_of in found.items()}}, indent=1)
        )
        return HOLDS
    for kind, all_of in found.items():
        print(f"{kind}: {KINDS_OF_FILE[kind].text}")
        for hook in all_of:
            print(f"  {hook.owner}.{hook.name}{hook.signature}")
            print(f"      {hook.text}")
            print(f"      called in {', '.join(hook.called[:4])}{' ...' if len(hook.called) > 4 else ''}")
    return HOLDS
