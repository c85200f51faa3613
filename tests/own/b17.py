from guestmem.own import GuestMemfd, OnGunyah, part


class Mine(GuestMemfd):
    def revoke(self, start: int, end: int) -> int:
        super().revoke(start, end)
        return 0


class MyWorld(OnGunyah):
    file: Mine = part()
