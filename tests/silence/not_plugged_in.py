"""A driver that no world has: refused."""

from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.scenarios.hypervisors import OnGunyah


class Mine(GunyahDriver):
    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio | None) -> int:
        return 0


class W(OnGunyah):
    """It has the driver of OnGunyah."""
