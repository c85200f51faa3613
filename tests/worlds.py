# SPDX-License-Identifier: Apache-2.0
"""Worlds that stand in files of their own."""

import importlib.util
import sys
from pathlib import Path
from typing import cast

from guestmem.model.world import World


def world_in(file: Path) -> World:
    """The world ``W`` of a file."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return cast(World, module.W())
