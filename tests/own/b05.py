from guestmem.own import Folio, GuestMemfd, Gup, Pgoff, part


class Mine(GuestMemfd):
    def in_use(self, pgoff: Pgoff, folio: Folio) -> bool:
        return False


class MyWorld(Gup):
    file: Mine = part()
