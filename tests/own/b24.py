from guestmem.own import GuestMemfd, OnGunyah, Pgoff, part


class Mine(GuestMemfd):
    def accessible(self, pgoff: Pgoff) -> bool:
        return super().accessible(pgoff) or super().accessible(Pgoff(0))


class MyWorld(OnGunyah):
    file: Mine = part()
