"""Countdowns in great number: each runs once, at its time, while workers come and go.

The test of many runs in `make chaos`; `COUNTDOWNS` says how many it sends.
"""

import os
from datetime import UTC, datetime

import pytest

from citadel_common.delivery.queues import timer_keys
from tests.support.celery_client import PlainClient
from tests.support.plain_workers import open_plain_workers
from tests.support.polling import eventually
from tests.support.programs.plain_worker import COUNTED, QUEUE, STARTS

FEW = 2000


@pytest.fixture
def workers(redis_server):
    with open_plain_workers(redis_server) as workers:
        yield workers


def send(workers, count, *, first, spread):
    """Send tasks whose times begin at `first` (seconds since the epoch); return the times by argument."""
    times = {f"{n}": first + spread * n / count for n in range(count)}
    with PlainClient(workers.redis.url) as plain, plain.app.connection_for_write() as connection:
        producer = plain.app.amqp.Producer(connection)
        for number, (text, at) in enumerate(times.items()):
            options = {"queue": QUEUE.value, "priority": (0, 3, 6)[number % 3], "ignore_result": True}
            eta = datetime.fromtimestamp(at, UTC)
            plain.app.send_task(COUNTED, args=[text], eta=eta, producer=producer, **options)
    return times


def starts(store):
    return {text.decode(): [float(at) for at in found.split()] for text, found in store.hgetall(STARTS).items()}


def waiting(store):
    return sum(store.zcard(key) for key in timer_keys(QUEUE))


def test_each_countdown_runs_once_at_its_time(workers):
    """Another worker, which has read half of them, is killed before their time."""
    doomed = workers.start()
    with workers.redis.client() as store:
        times = send(workers, FEW, first=store.time()[0] + 15, spread=3)
        workers.start()
        eventually(lambda: waiting(store) == FEW)
        doomed.kill()
        eventually(lambda: store.hlen(STARTS) == FEW)
        found = starts(store)
        assert {len(at) for at in found.values()} == {1}
        assert min(found[text][0] - at for text, at in times.items()) >= 0
        eventually(lambda: (workers.held(), workers.waiting(), waiting(store)) == (0, 0, 0))


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_each_of_many_countdowns_runs_once(workers):
    """They are spread over a minute, which is more than these workers can do in one."""
    count = int(os.environ.get("COUNTDOWNS", "100000"))
    for _ in range(2):
        workers.start()
    with workers.redis.client() as store:
        before = store.info("memory")["used_memory"]
        times = send(workers, count, first=store.time()[0] + count / 500, spread=60)
        eventually(lambda: waiting(store) == count, timeout=600)
        print(f"bytes per countdown: {(store.info('memory')['used_memory'] - before) / count:.0f}")
        eventually(lambda: store.hlen(STARTS) == count, timeout=900)
        found = starts(store)
        assert {len(at) for at in found.values()} == {1}
        late = sorted(found[text][0] - at for text, at in times.items())
        print(f"late: p50 {late[count // 2]:.3f} s, most {late[-1]:.3f} s")
        assert late[0] >= 0
