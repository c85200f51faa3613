# SPDX-License-Identifier: Apache-2.0
"""A driver that is a module, loaded and unloaded while its files are used."""

from __future__ import annotations

from errno import ENODEV

from guestmem.guest_memfd.library import Driver
from guestmem.mm.module import Module, delete_module, init_module
from guestmem.model import always, part, reached, sometimes, thread
from guestmem.rules import UNLOADED_UNUSED
from guestmem.scenarios.cast import Vcpus, Vmm
from guestmem.scenarios.hypervisors import GunyahHost

__all__ = ["UNLOADED_UNUSED", "ModuleUnload"]


class ModuleUnload(GunyahHost, Vmm, Vcpus):
    """Gunyah's driver as a module."""

    geometry = {"pages": 1, "frames": 2}

    module: Module = part()

    def client(self) -> Driver:
        driver = super().client()
        driver.module = self.module
        return driver

    def interfered(self, err: int) -> bool:
        return err == -ENODEV or super().interfered(err)

    @thread
    def modprobe(self) -> None:
        """rmmod, modprobe."""
        while True:
            if delete_module(self.module) == 0:
                init_module(self.module)
            else:
                reached("the module is in use")

    @always(UNLOADED_UNUSED)
    def unloaded_unused(self) -> bool:
        return self.module.live or not (self.file.open or any(folio.zapped and not folio.lost for folio in self.kernel.folios))

    @sometimes("the module is unloaded")
    def unloaded(self) -> bool:
        return not self.module.live
