from guestmem.own import GuestMemfd, KvmDriver, OnKvm, part


class Mine(KvmDriver):
    def invalidate_begin(self, file: GuestMemfd, start: int, end: int) -> tuple[int, int]:
        return super().invalidate_begin(file, start, end - start)


class MyWorld(OnKvm):
    driver: Mine = part()
