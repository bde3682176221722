"""The clean-up of a big cache: the latency of other clients meanwhile."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery

from tests.bench.figure import Benchmark, Figure
from tests.bench.postgres import postgres_process
from tests.bench.processes import child
from tests.bench.stack import CITADEL_DB, Stack
from tests.support.maintenance import alive, cached

ENTRIES, QUICK_ENTRIES = 500_000, 50_000
FILLED_AT_ONCE = 10_000
VALUE = bytes(512)
LIVE, GONE = "nomic-embed-text@live", "removed@old"
IDLE_SECONDS = 5.0
SPACING = 0.0005
"""Seconds between two GETs."""
LOOKED_EVERY = 50
"""GETs between two looks at whether the task has ended."""
RESULT_TIMEOUT = 900.0
TASK = "cleanup_expired_cache"


def measure(stack: Stack) -> list[Figure]:
    """Measure the 99th percentile of a GET while half of the cache is removed, and on an idle server."""
    count = QUICK_ENTRIES if stack.scale.quick else ENTRIES
    url = stack.redis_url(CITADEL_DB)
    with postgres_process() as dsn, redis.Redis.from_url(url) as client:
        keys = _fill(client, count)
        env = {"CITADEL_BROKER_URL": url, "CITADEL_POSTGRES_DSN": dsn}
        with child("maintenance-worker", [sys.executable, "-m", "citadel_maintenance"], env):
            _ask(url, client, keys, dry_run=True, time_limit=0.1)  # the worker is up
            end = time.monotonic() + IDLE_SECONDS
            idle = _p99(_gets(client, keys, until=lambda: time.monotonic() > end))
            report, taken = _ask(url, client, keys)
    if report["removed"] != count // 2:
        raise RuntimeError(f"{report['removed']} entries of {count // 2} were removed: {report}")
    return [
        Figure.single("cleanup_p99_vs_idle", _p99(taken), "ms (p99)", baseline="an idle server", baseline_value=idle)
    ]


def _fill(client: "redis.Redis", count: int) -> list[str]:
    """Fill half of the cache with entries of a removed model; return the keys of the others."""
    alive(client, LIVE)
    kept: list[str] = []
    for start in range(0, count // 2, FILLED_AT_ONCE):
        size = min(FILLED_AT_ONCE, count // 2 - start)
        kept += cached(client, LIVE, size, value=VALUE, start=start)
        cached(client, GONE, size, value=VALUE, start=start)
    return kept


def _ask(url: str, client: "redis.Redis", keys: list[str], **kwargs: Any) -> tuple[dict[str, Any], list[float]]:
    """Send the task and get vectors until it has ended; return its report, and the milliseconds of each GET."""
    app = Celery("bench", broker=url, backend=url, set_as_current=False)
    result: Any = app.send_task(TASK, kwargs=kwargs, queue="maintenance")
    name = f"celery-task-meta-{result.id}"
    end = time.monotonic() + RESULT_TIMEOUT
    taken = _gets(client, keys, until=lambda: bool(client.exists(name)) or time.monotonic() > end)
    report: dict[str, Any] = result.get(timeout=10)
    app.close()
    return report, taken


def _gets(client: "redis.Redis", keys: list[str], *, until: Callable[[], bool]) -> list[float]:
    """Return the milliseconds of each GET."""
    taken: list[float] = []
    while True:
        for number in range(LOOKED_EVERY):
            started = time.perf_counter()
            client.get(keys[(len(taken) * 7919 + number) % len(keys)])
            taken.append((time.perf_counter() - started) * 1000)
            time.sleep(SPACING)
        if until():
            return taken


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


BENCHMARK = Benchmark(names=("cleanup_p99_vs_idle",), measure=measure)
