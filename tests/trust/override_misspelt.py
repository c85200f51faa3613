# expected of `guestmem check tests/trust/override_misspelt.py:W --protection unmap`: refused, exit 2: prepare_accesible overrides nothing; prepare_accessible does
from guestmem.guest_memfd.library import GuestMemfd
from guestmem.hypervisors.gunyah import GunyahDriver
from guestmem.mm.filemap import Pgoff
from guestmem.mm.folio import Folio
from guestmem.model import part
from guestmem.scenarios.hypervisors import OnGunyah

class Mine(GunyahDriver):
    def prepare_accesible(self, file: GuestMemfd, pgoff: Pgoff, folio: Folio) -> int:   # typo
        return 0


class W(OnGunyah):
    driver: Mine = part()
