# expected of `guestmem check tests/trust/counter_leaked_once.py:W --protection unmap`: violated: counters equal the holders they count
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.machine.guest import Guest
from guestmem.mm.module import module_put, try_module_get
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnGunyah
from guestmem.scenarios.module import ModuleUnload


class File(GuestMemfd):
    leaked: bool = False

    def release(self) -> None:
        super().release()
        if not self.leaked:              # the first release leaks: hibernation is off for ever
            self.leaked = True
            self.kernel.guest_memfd_users += 1


class W(OnGunyah):
    file: File = part()
