# SPDX-License-Identifier: Apache-2.0
"""The donation protocol that other checkers were measured on, in the model language.

Pages of a host are donated to a guest: unmapped in stage 1, flushed, taken away in stage 2.  Two CPUs may keep stale
translations.  All actions of both are one thread here, each one step, so the numbers of states and transitions can be
compared with those of other checkers: 3 * 24**pages states.
"""

from enum import Enum

from guestmem.model import Record, World, always, array, bounded, choose, step, thread, when


class Owner(Enum):
    HOST = 0
    PRIV = 1
    SHARED = 2


class Action(Enum):
    """What happens; from PIN on to one page, from ALLOC on under the lock."""

    ACQUIRE_1 = 0
    ACQUIRE_2 = 1
    RELEASE = 2
    PIN = 3
    UNPIN = 4
    TOUCH = 5
    ALLOC = 6
    ZAP = 7
    FLUSH_0 = 8
    FLUSH_1 = 9
    RESTORE = 10
    DONATE = 11
    SHARE = 12
    PRIVATE = 13
    PUNCH = 14


class Page(Record):
    owner: Owner = Owner.HOST
    direct: bool = True  # mapped in the host's stage 1
    stage2: bool = True  # mapped for the host in stage 2
    guest: bool = False  # mapped for the guest
    allocated: bool = False
    pins: int = bounded(2)
    stale: list[bool] = array(2)  # by CPU


class Donate(World):
    """``bug`` forgets that stale translations must be gone before a page is given away."""

    geometry = {"pages": 4}

    pages: list[Page] = array("pages")
    lock: int = bounded(2)
    bug: bool = False

    @thread
    def everybody(self) -> None:
        while True:
            self.act()

    @always("what a CPU can still translate in stage 1, stage 2 lets it reach")
    def reachable(self) -> bool:
        return all(p.stage2 or not (p.direct or p.stale[0] or p.stale[1]) for p in self.pages)

    @step
    def act(self) -> None:
        action = choose(15)
        if action < 2:
            when(self.lock == 0)
            self.lock = action + 1
        elif action == 2:
            when(self.lock != 0)
            self.lock = 0
        elif action < 6:
            self.unlocked(action, self.pages[choose(len(self.pages))])
        else:
            when(self.lock != 0)
            self.locked(action, self.pages[choose(len(self.pages))])

    def unlocked(self, action: int, page: Page) -> None:
        if action == 3:
            when(page.allocated and page.owner is not Owner.PRIV and page.direct and page.pins < 2)
            page.pins += 1
        elif action == 4:
            when(page.pins > 0)
            page.pins -= 1
        else:
            when(page.allocated and page.owner is not Owner.HOST and not page.guest)
            page.guest = True

    def locked(self, action: int, page: Page) -> None:
        if action == 6:
            when(not page.allocated)
            page.allocated = True
        elif action == 7:
            when(page.allocated and page.owner is not Owner.PRIV and page.direct and page.pins == 0)
            page.direct = False
            page.stale[0] = True
            page.stale[1] = True
        elif action < 10:
            when(page.stale[action - 8])
            page.stale[action - 8] = False
        elif action == 10:
            when(page.owner is not Owner.PRIV and page.stage2 and not page.direct)
            page.direct = True
            self.flushed(page)
        elif action == 11:
            when(page.allocated and page.owner is Owner.HOST and self.unreachable(page))
            page.owner = Owner.PRIV
            page.stage2 = False
        elif action == 12:
            when(page.owner is Owner.PRIV)
            page.owner = Owner.SHARED
            page.stage2 = True
        elif action == 13:
            when(page.owner is Owner.SHARED and self.unreachable(page))
            page.owner = Owner.PRIV
            page.stage2 = False
        else:
            when(page.allocated and page.pins == 0)
            page.owner = Owner.HOST
            page.direct = True
            page.stage2 = True
            page.guest = False
            page.allocated = False
            self.flushed(page)

    def unreachable(self, page: Page) -> bool:
        stale = page.stale[0] or page.stale[1]
        return not page.direct and page.pins == 0 and (self.bug or not stale)

    def flushed(self, page: Page) -> None:
        page.stale[0] = False
        page.stale[1] = False
