from guestmem.own import Gfn, Guest, GuestMemfd, PartsOnKvm, Pgoff, part


class Mine(GuestMemfd):
    def may_bind(self, guest: Guest, pgoff: Pgoff, gfn: Gfn) -> int:
        return 0


class MyWorld(PartsOnKvm):
    file: Mine = part()
