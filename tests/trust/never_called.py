# expected of `guestmem check tests/trust/never_called.py:W --protection unmap`: `holds`, and says that before_reclaim is called by nothing
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnGunyah

class Mine(GunyahDriver):
    def before_reclaim(self, file: GuestMemfd, pgoff: Pgoff) -> int:   # a helper nobody calls
        return 1 / 0

    def reclaim(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        return super().reclaim(file, pgoff, folio)


class W(OnGunyah):
    driver: Mine = part()
