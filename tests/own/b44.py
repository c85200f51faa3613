from guestmem.own import Folio, Secretmem, SecretMemory, folio_put, part


class Mine(Secretmem):
    def let_go(self, folio: Folio) -> None:
        folio_put(self.kernel, folio)
        self.restore_direct_map(folio)


class MyWorld(SecretMemory):
    file: Mine = part()
