"""A branch that is never entered: holds, and says so."""

import errno

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnGunyah


class Mine(GunyahDriver):
    def reclaim(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        if folio.free:
            folio.refcount = 0
            return -errno.EBUSY
        return super().reclaim(file, pgoff, folio)


class W(OnGunyah):
    driver: Mine = part()
