"""Handing figures over to the fleet's: each count once, through outages."""

import pytest
import redis

from citadel_common.tasks.stats import STATS, StatsPublisher, TaskStats
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess
from tests.support.relay import Relay

FIELD = b"embed ended succeeded"


@pytest.fixture
def figures(store):
    store.delete(STATS)
    return TaskStats()


def count(figures, times):
    for _ in range(times):
        figures.ended("embed", "succeeded", seconds=0.1)


def test_workers_add_up(store, figures):
    count(figures, 3)
    others = TaskStats()
    count(others, 4)
    for ledger in (StatsPublisher(store, figures, "one"), StatsPublisher(store, others, "two")):
        ledger.flush()
        ledger.flush()
    assert store.hget(STATS, FIELD) == b"7"
    assert float(store.hget(STATS, b"embed runtime sum")) == pytest.approx(0.7)


@pytest.mark.parametrize("retries", [0, 1])
def test_an_answer_that_is_lost_counts_once(redis_server, store, figures, retries):
    """The broker has added the counts; whether the client or the next heartbeat tries again, they are not new."""
    with Relay(redis_server.port) as relay:
        url = relay.url.replace("http", "redis")
        retry = redis.retry.Retry(redis.backoff.NoBackoff(), retries)
        secret = redis_server.password
        with redis.Redis.from_url(url, password=secret, retry=retry, socket_timeout=20) as client:
            ledger = StatsPublisher(client, figures, f"worker {retries}")
            count(figures, 1)
            ledger.flush()
            count(figures, 2)
            relay.cut_next_after(0)
            if retries == 0:
                with pytest.raises(redis.ConnectionError):
                    ledger.flush()
                count(figures, 4)
            ledger.flush()
    assert store.hget(STATS, FIELD) == (b"7" if retries == 0 else b"3")


def test_nothing_is_lost_while_the_broker_is_away():
    figures = TaskStats()
    with RedisProcess(durable=True) as server, server.client() as client:
        ledger = StatsPublisher(client, figures, "one")
        count(figures, 2)
        server.kill()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                ledger.flush()
            count(figures, 3)
        server.restart()
        eventually(client.ping)
        ledger.flush()
        assert client.hget(STATS, FIELD) == b"8"


def test_a_field_that_is_no_number_keeps_back_no_other(store, figures):
    store.hset(STATS, FIELD, "nonsense")
    count(figures, 1)
    ledger = StatsPublisher(store, figures, "three")
    ledger.flush()
    assert store.hget(STATS, b"embed runtime 0.1") == b"1"
