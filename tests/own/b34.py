from guestmem.own import Folio, GuestMemfd, OnKvm, part


class Mine(GuestMemfd):
    def zap_direct_map(self, folio: Folio, flush: bool) -> int:
        err = super().zap_direct_map(folio, flush)
        folio.zapped = False
        return err


class MyWorld(OnKvm):
    file: Mine = part()
