# SPDX-License-Identifier: Apache-2.0
"""Four ways never to get on, each with a good twin that differs in the marked line."""

from guestmem.model import Mutex, World, array, part, step, thread, when


class LostWakeUp(World):
    """The sleeper looks before it says that it sleeps; who wakes it up in between wakes nobody."""

    done: bool = False
    sleeping: bool = False

    @thread
    def sleeper(self) -> None:
        if not self.look():
            self.sleep()
            self.wait()

    @thread
    def waker(self) -> None:
        self.finish()
        self.wake()

    @step
    def look(self) -> bool:
        return self.done

    @step
    def sleep(self) -> None:
        self.sleeping = True

    @step
    def wait(self) -> None:
        when(not self.sleeping)

    @step
    def finish(self) -> None:
        self.done = True

    @step
    def wake(self) -> None:
        self.sleeping = False


class WakeUp(LostWakeUp):
    @step
    def sleep(self) -> None:
        self.sleeping = not self.done  # good: it looks again where it says so


class AbBa(World):
    """Two locks, taken in two orders."""

    a: Mutex = part()
    b: Mutex = part()

    @thread
    def one(self) -> None:
        while True:
            with self.a:
                self.hold(self.b)

    @thread
    def two(self) -> None:
        while True:
            with self.first():
                self.hold(self.second())

    def first(self) -> Mutex:
        return self.b

    def second(self) -> Mutex:
        return self.a

    def hold(self, lock: Mutex) -> None:
        with lock:
            pass


class AbAb(AbBa):
    def first(self) -> Mutex:
        return self.a  # good: the order of the other

    def second(self) -> Mutex:
        return self.b


class Spin(World):
    """One waits by looking for a flag that is put up and, too soon, taken down."""

    flag: bool = False

    @thread
    def spinner(self) -> None:
        while not self.see():
            pass

    @thread
    def setter(self) -> None:
        self.set(True)
        self.set(self.last())

    @step
    def see(self) -> bool:
        return self.flag

    @step
    def set(self, to: bool) -> None:
        self.flag = to

    def last(self) -> bool:
        return False


class SpinEnds(Spin):
    def last(self) -> bool:
        return True  # good: it stays up


class Livelock(World):
    """Two who are polite: each puts its hand up, and takes it down when it sees the other's."""

    up: list[bool] = array(2)

    @thread(2)
    def guest(self, me: int) -> None:
        self.raise_hand(me)
        while self.sees_the_other(me):
            self.lower_hand(me)
            self.raise_hand(me)
        self.lower_hand(me)

    @step
    def raise_hand(self, me: int) -> None:
        self.up[me] = True

    @step
    def lower_hand(self, me: int) -> None:
        self.up[me] = False

    @step
    def sees_the_other(self, me: int) -> bool:
        return self.up[1 - me]


class OneInsists(Livelock):
    @step
    def sees_the_other(self, me: int) -> bool:
        return me == 1 and self.up[1 - me]  # good: the first goes on
