"""The revoked tasks that a worker holds in memory."""

from unittest.mock import MagicMock

from citadel_common.delivery.revoked import RevokedSet, stamp_of, stamps_in
from citadel_common.settings.common import RevokeSettings


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self):
        return self.now


def revoked(**settings):
    clock = Clock()
    return RevokedSet(MagicMock(), "key", RevokeSettings(**settings), clock=clock), clock


def test_members_are_known_until_they_expire():
    members, clock = revoked(ttl=10)
    assert members.note(["a", "b"]) == ["a", "b"]
    clock.now += 6
    assert members.note(["b", "c"]) == ["c"]
    clock.now += 5
    assert [name for name in "abc" if name in members] == ["b", "c"]
    assert members.newest(9) == ["c", "b"]


def test_of_too_many_members_the_oldest_go():
    members, _ = revoked(most=3)
    members.note(str(n) for n in range(10))
    assert members.newest(9) == ["9", "8", "7"]


def test_expired_members_take_no_room():
    members, clock = revoked(ttl=10)
    members.note(str(n) for n in range(100))
    clock.now += 11
    members.note(["new"])
    assert members.newest(200) == ["new"]
    assert len(members._expiries) == 1


def test_stamps_of_a_message_are_found_whatever_it_holds():
    assert stamps_in({"stamped_headers": ["a", "b"], "stamps": {"a": ["x", 1], "b": "y", "c": "z"}}) == [
        stamp_of("a", "x"),
        stamp_of("a", 1),
        stamp_of("b", "y"),
    ]
    for headers in (
        {},
        {"stamped_headers": "a", "stamps": {"a": 1}},
        {"stamped_headers": ["a"], "stamps": [1]},
        {"stamped_headers": [[], 1, None], "stamps": {"a": 1}},
        {"stamped_headers": ["a"], "stamps": {"a": None}},
    ):
        assert stamps_in(headers) == []
