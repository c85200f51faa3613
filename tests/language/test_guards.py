# SPDX-License-Identifier: Apache-2.0
"""What a lock guards is changed only under it: in plain Python as in the translation."""

import pytest

from guestmem.checker import Model
from guestmem.checker.trace import replay
from guestmem.model import Mutex, Record, Refused, World, array, bounded, guards, part, thread
from guestmem.model.errors import GUARDED


class Account(Record):
    lock: Mutex = part()
    balance: int = bounded(1)
    seen: list[bool] = array("slots")

    @guards("balance", "seen")
    def mine(self) -> bool:
        return self.lock.held()


class Locked(World):
    geometry = {"slots": 2}

    account: Account = part()

    def setup(self) -> None:
        self.account.balance = 1  # nobody else runs

    @thread
    def teller(self) -> None:
        while True:
            with self.account.lock:
                self.account.balance = 0
                self.account.seen[1] = True


class Late(Locked):
    @thread
    def teller(self) -> None:
        while True:
            with self.account.lock:
                self.account.balance = 0
            self.account.seen[1] = True


def test_under_the_lock_it_holds() -> None:
    assert Model(Locked()).explore().verdict == "holds"


def test_after_the_lock_it_does_not() -> None:
    violation = Model(Late()).explore().violations[0]
    assert (violation.rule, violation.detail) == (GUARDED, "Account.seen, not mine()")
    *_, last = replay(Late(), violation.slices)
    assert [str(verdict) for verdict in last.broken] == [f"{GUARDED}: Account.seen, not mine()"]


def test_a_guard_is_for_fields_of_its_class() -> None:
    class Other(Account):
        @guards("balance")
        def theirs(self) -> bool:
            return True

    with pytest.raises(Refused, match="a guard of 'balance': name fields of the same class"):
        Other.fields()


class Taking(Account):
    def mine(self) -> bool:
        return self.lock.try_acquire()


class Odd(World):
    geometry = {"slots": 2}

    account: Taking = part()

    @thread
    def teller(self) -> None:
        while True:
            with self.account.lock:
                self.account.balance = 0


def test_a_guard_changes_nothing() -> None:
    with pytest.raises(Refused, match="a property that changes the world"):
        Model(Odd())
