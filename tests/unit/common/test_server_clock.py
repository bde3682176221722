"""The clock of a Redis server: right whatever happens to this host's clock, and without a call for each time."""

import types
from unittest import mock

import pytest
from redis import ConnectionError as RedisDown

from citadel_common import deadline
from citadel_common.delivery import server_clock
from citadel_common.delivery.server_clock import PAUSE, REFRESH, ServerClock

SERVER = 5_000_000.0


class World:
    """A host with its two clocks, and a server; `now` is the true time since the start."""

    def __init__(self):
        self.now = 100.0
        self.host_step = 0.0
        self.server_step = 0.0
        self.trip = 0.0  # seconds until the server reads its clock; its answer takes none
        self.is_up = True
        self.calls = 0

    def monotonic(self):
        return self.now

    def time(self):
        """What the host says."""
        return SERVER + 7200 + self.now + self.host_step

    @property
    def server_time(self):
        return SERVER + self.now + self.server_step


class Client:
    """The Redis client of that host."""

    def __init__(self, world):
        self.world = world

    def time(self):
        self.world.calls += 1
        if not self.world.is_up:
            raise RedisDown
        self.world.now += self.world.trip
        return divmod(round(self.world.server_time * 1e6), 1_000_000)


@pytest.fixture
def world():
    world = World()
    shim = types.SimpleNamespace(monotonic=world.monotonic, time=world.time)
    with mock.patch.object(server_clock, "time", shim), mock.patch.object(deadline, "time", shim):
        yield world


@pytest.fixture
def clock(world):
    return ServerClock(Client(world))


def test_a_host_whose_clock_is_two_hours_ahead_knows_the_servers_time_and_seldom_asks(world, clock):
    for _ in range(100):
        assert clock.now() == pytest.approx(world.server_time)
        world.now += REFRESH / 101
    assert world.calls == 1


def test_a_step_of_the_hosts_clock_changes_nothing_but_has_the_server_asked_once(world, clock):
    clock.now()
    for step in (3600.0, -7200.0, 0.6):
        world.host_step, calls = world.host_step + step, world.calls
        assert clock.now() == clock.now() == pytest.approx(world.server_time)
        assert world.calls == calls + 1


def test_a_step_of_the_servers_clock_is_followed_within_the_refresh(world, clock):
    clock.now()
    world.server_step = -500.0
    world.now += REFRESH
    assert clock.now() == pytest.approx(world.server_time)


def test_a_suspended_machine_that_resumes_asks_again(world, clock):
    clock.now()
    world.server_step = world.host_step = 900.0  # the monotonic clock stood still, the others went on
    assert clock.now() == pytest.approx(world.server_time)


def test_a_slow_answer_does_not_spoil_what_a_quick_one_said(world, clock):
    clock.now()
    world.trip, world.now = 8.0, world.now + REFRESH
    clock.sync()
    assert clock.now() == pytest.approx(world.server_time)


def test_a_server_that_is_away_is_asked_seldom_and_its_time_is_still_known(world, clock):
    clock.now()
    world.is_up, world.now = False, world.now + REFRESH
    assert clock.now() == clock.now() == pytest.approx(world.server_time)
    assert world.calls == 2
    world.is_up, world.server_step, world.now = True, 3.0, world.now + PAUSE
    assert clock.now() == pytest.approx(world.server_time)


def test_the_hosts_clock_stands_in_until_the_server_has_answered(world, clock):
    world.is_up = False
    assert clock.now() == clock.now() == pytest.approx(world.time())
    assert world.calls == 1
    world.is_up, world.now = True, world.now + PAUSE
    assert clock.now() == pytest.approx(world.server_time)


def test_a_deadline_crosses_hosts_with_different_clocks(world, clock):
    there = clock.deadline(world.server_time + 30)
    world.host_step = -3600.0
    assert there.remaining == pytest.approx(30)
    assert clock.time_of(there) == pytest.approx(world.server_time + 30)
