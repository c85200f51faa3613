# SPDX-License-Identifier: Apache-2.0
"""Modules: code that can go away (kernel/module/main.c)."""

from errno import EWOULDBLOCK

from guestmem.model import Record, bounded, step

__all__ = ["Module", "delete_module", "init_module", "module_put", "try_module_get"]


class Module(Record):
    """A driver that is no part of the kernel's image.

    Attributes:
        live: its code is there.
        refcount: who keeps it there.
    """

    live: bool = True
    refcount: int = bounded(2)


def try_module_get(module: Module | None) -> bool:
    """Keep a module from going away, if it has not; None stands for code that is built in."""
    return module is None or inc_not_dying(module)


@step
def inc_not_dying(module: Module) -> bool:
    """Count a user, unless the module is going: one atomic operation on the counter (atomic_inc_not_zero)."""
    if not module.live:
        return False
    module.refcount += 1
    return True


def module_put(module: Module | None) -> None:
    """Let a module go away."""
    if module is not None:
        dec(module)


@step
def dec(module: Module) -> None:
    """Count a user less: one atomic operation on the counter."""
    module.refcount -= 1


@step
def delete_module(module: Module) -> int:
    """Unload a module.  -EWOULDBLOCK: it is in use.

    One atomic operation on the counter decides, and keeps users from coming (try_release_module_ref).
    """
    if module.refcount != 0:
        return -EWOULDBLOCK
    module.live = False
    return 0


@step
def init_module(module: Module) -> None:
    """Load a module."""
    module.live = True
