from guestmem.own import Folio, GuestMemfd, OnKvm, part


class Mine(GuestMemfd):
    def zap_direct_map(self, folio: Folio, flush: bool) -> int:
        return super().zap_direct_map(folio, False)


class MyWorld(OnKvm):
    file: Mine = part()
