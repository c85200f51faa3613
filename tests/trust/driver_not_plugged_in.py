# expected of `guestmem check tests/trust/driver_not_plugged_in.py:W --protection unmap`: exit 2, or `holds` with a line that class Mine is used by nothing
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnGunyah

class Mine(GunyahDriver):
    def prepare_accessible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:
        return 0


class W(OnGunyah):
    """forgot driver: Mine = part()"""
