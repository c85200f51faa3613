# expected of `guestmem check tests/trust/threads_unmarked.py:W --protection none`: refused or violated; never `holds`
from guestmem.model import thread
from guestmem.scenarios.hypervisors import OnGunyah

class W(OnGunyah):
    def zeropad(self, cpu: int) -> None:         # overrides a thread, decorator forgotten
        while True:
            self.look_up_name(self.machine.cpus[cpu + 1])

    def plain_read(self, cpu: int) -> None:
        pass

    def kcore(self, cpu: int) -> None:
        pass
