from guestmem.own import Guest, GuestMemfd, PartsOnKvm, Pgoff, part


class Mine(GuestMemfd):
    def may_bind(self, guest: Guest, pgoff: Pgoff) -> int:
        return 0


class MyWorld(PartsOnKvm):
    file: Mine = part()
