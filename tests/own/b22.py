from guestmem.own import Gfn, Guest, Gunyah, OnGunyah, part


class Mine(Gunyah):
    def unmapped(self, guest: Guest, gfn: Gfn) -> None:
        guest.entries[gfn].live = False


class MyWorld(OnGunyah):
    hypervisor: Mine = part()
