"""Two beats over minutes of an accelerated schedule: every slot is published once."""

import signal
import time

import pytest

from tests.support.beat import assert_every_slot_once, entry, messages, open_beats
from tests.support.polling import eventually

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
PERIODS = {"a": 200, "b": 300, "c": 500, "d": 1000, "e": 1000}
ENTRIES = [entry(name, every=f"{period}ms") for name, period in PERIODS.items()]
MINUTES = 5
TROUBLE_EVERY = 7.0


@pytest.fixture
def pair(redis_server):
    with open_beats(redis_server, *ENTRIES) as beats:
        beats.start()
        beats.start()
        beats.leader()
        yield beats


def until(end):
    eventually(lambda: time.monotonic() > end, timeout=MINUTES * 60 + 60)


def kill(pair):
    pair.end(pair.leader())
    pair.start()


def pause(pair):
    leader = pair.leader()
    leader.signal(signal.SIGSTOP)
    eventually(lambda: pair.leader() is not leader)
    leader.resume()


def stop(pair):
    leader = pair.leader()
    assert leader.terminate() == 0
    pair.end(leader)
    pair.start()


def test_every_slot_of_five_quiet_minutes_runs_once(pair):
    until(time.monotonic() + MINUTES * 60)
    pair.stop()
    assert_every_slot_once(messages(pair.store), PERIODS)


def test_every_slot_runs_once_while_leaders_are_killed_paused_and_stopped(pair):
    end = time.monotonic() + MINUTES * 60
    troubles = (kill, pause, stop)
    count = 0
    while time.monotonic() < end:
        until(time.monotonic() + TROUBLE_EVERY)
        troubles[count % len(troubles)](pair)
        count += 1
    pair.stop()
    assert_every_slot_once(messages(pair.store), PERIODS)
