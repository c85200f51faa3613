from guestmem.own import GunyahDriver, OnGunyah, part


class Mine(GunyahDriver):
    """A driver."""


class W(OnGunyah):
    drivr: Mine = part()
