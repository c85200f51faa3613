# expected of `guestmem check tests/trust/return_0.py:W --protection unmap`: violated (a driver that takes nothing back); not refused at a line of library.py
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnGunyah

class Mine(GunyahDriver):
    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio | None) -> int:
        return 0


class W(OnGunyah):
    driver: Mine = part()
