# expected of `guestmem check tests/trust/driver_missing_return.py:W --protection unmap`: refused, exit 2: reclaim() may end without a return
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnGunyah

class Mine(GunyahDriver):
    def reclaim(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        err = super().reclaim(file, pgoff, folio)
        if err:
            return err                            # forgot return 0


class W(OnGunyah):
    driver: Mine = part()
