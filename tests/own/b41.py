from guestmem.own import GpcDriver, PfnCache, part


class Mine(GpcDriver):
    def invalidate_gpcs(self, start: int, end: int) -> None:
        pass


class MyWorld(PfnCache):
    driver: Mine = part()
