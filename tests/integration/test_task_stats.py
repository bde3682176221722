"""Handing figures over to the fleet's: each count once, through outages."""

import pytest
import redis

from citadel_common.tasks.stats import STATS, StatsPublisher, TaskStats
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess
from tests.support.relay import Relay

FIELD = b"embed ended succeeded"


@pytest.fixture
def stats(store):
    store.delete(STATS)
    return TaskStats()


def count(stats, times):
    for _ in range(times):
        stats.ended("embed", "succeeded", seconds=0.1)


def test_workers_add_up(store, stats):
    count(stats, 3)
    others = TaskStats()
    count(others, 4)
    for publisher in (StatsPublisher(store, stats, "one"), StatsPublisher(store, others, "two")):
        publisher.flush()
        publisher.flush()
    assert store.hget(STATS, FIELD) == b"7"
    assert float(store.hget(STATS, b"embed runtime sum")) == pytest.approx(0.7)


@pytest.mark.parametrize("retries", [0, 1])
def test_an_answer_that_is_lost_counts_once(redis_server, store, stats, retries):
    """The broker has added the counts; whether the client or the next heartbeat tries again, they are not new."""
    with Relay(redis_server.port) as relay:
        url = relay.url.replace("http", "redis")
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), retries)
        secret = redis_server.password
        with redis.Redis.from_url(url, password=secret, retry=retry, socket_timeout=20) as client:
            publisher = StatsPublisher(client, stats, f"worker {retries}")
            count(stats, 1)
            publisher.flush()
            count(stats, 2)
            relay.cut_next_after(0)
            if retries == 0:
                with pytest.raises(redis.ConnectionError):
                    publisher.flush()
                count(stats, 4)
            publisher.flush()
    assert store.hget(STATS, FIELD) == (b"7" if retries == 0 else b"3")


def test_counts_survive_an_outage_of_the_broker():
    stats = TaskStats()
    with RedisProcess(durable=True) as server, server.client() as client:
        publisher = StatsPublisher(client, stats, "one")
        count(stats, 2)
        server.kill()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                publisher.flush()
            count(stats, 3)
        server.restart()
        eventually(client.ping)
        publisher.flush()
        assert client.hget(STATS, FIELD) == b"8"


def test_a_field_that_is_no_number_keeps_back_no_other(store, stats):
    store.hset(STATS, FIELD, "nonsense")
    count(stats, 1)
    publisher = StatsPublisher(store, stats, "three")
    publisher.flush()
    assert store.hget(STATS, b"embed runtime 0.1") == b"1"
