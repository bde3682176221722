"""The silence of a worker as a peer sees it: by the change of its heartbeat, on the peer's own monotonic clock."""

import types
from dataclasses import replace
from unittest import mock

import pytest

from citadel_common.delivery import worker_registry
from citadel_common.delivery.worker_registry import Heartbeat, SilenceWatch

FIRST = Heartbeat(
    id="w",
    queue="q",
    host="h",
    pid=1,
    machine="elsewhere",
    born="1",
    concurrency=1,
    running=0,
    processed=0,
    failed=0,
    started_at=0.0,
    seen_at=1000.0,
)
MOST = 10.0


class Peer:
    """Looks at one worker; `wait` lets time pass."""

    def __init__(self):
        self.now = 0.0
        self.watch = SilenceWatch(most=MOST)

    def sees(self, beat, *, after=0.0):
        self.now += after
        return self.watch.look([beat])[beat.id]


@pytest.fixture
def peer():
    peer = Peer()
    with mock.patch.object(worker_registry, "time", types.SimpleNamespace(monotonic=lambda: peer.now)):
        yield peer


def test_a_heartbeat_that_does_not_change_is_silence(peer):
    assert [peer.sees(FIRST, after=5.0) for _ in range(4)] == [0.0, 5.0, 10.0, 15.0]


@pytest.mark.parametrize("step", [3600.0, -3600.0, 0.000001, 30.0])
def test_any_change_ends_it_wherever_the_clocks_have_gone(peer, step):
    for _ in range(5):
        peer.sees(FIRST, after=5.0)
    assert peer.sees(replace(FIRST, seen_at=FIRST.seen_at + step), after=5.0) == 0.0


def test_a_pause_of_the_peer_itself_counts_as_one_look(peer):
    peer.sees(FIRST)
    peer.sees(FIRST, after=5.0)
    assert peer.sees(FIRST, after=3600.0) == 5.0 + MOST


def test_after_an_outage_every_silence_begins_anew(peer):
    peer.sees(FIRST)
    peer.sees(FIRST, after=8.0)
    peer.watch.reset()
    assert [peer.sees(FIRST, after=5.0) for _ in range(2)] == [0.0, 5.0]


def test_a_worker_that_comes_later_is_silent_from_then_on(peer):
    other = replace(FIRST, id="other")
    peer.sees(FIRST)
    assert peer.watch.look([FIRST, other])["other"] == 0.0
    peer.now += 4.0
    assert peer.watch.look([FIRST, other]) == {"w": 4.0, "other": 4.0}
