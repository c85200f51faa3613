# SPDX-License-Identifier: Apache-2.0
"""What a machine lacks skips a test with the reason, and fails it where GUESTMEM_REQUIRE promised it."""

import pytest

import requires


def test_what_is_missing_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(requires.NEEDS, "wings", lambda: "wings: there are none")
    monkeypatch.setitem(requires.NEEDS, "legs", lambda: None)
    monkeypatch.setenv("GUESTMEM_REQUIRE", "kvm")
    requires.require("legs")
    with pytest.raises(pytest.skip.Exception, match="wings: there are none"):
        requires.require("legs", "wings")
    monkeypatch.setenv("GUESTMEM_REQUIRE", "kvm,wings")
    with pytest.raises(pytest.fail.Exception, match="wings: there are none, and GUESTMEM_REQUIRE names wings"):
        requires.require("wings")
    assert (requires.missing("legs", "wings"), requires.missing("legs")) == ("wings: there are none", None)
