"""Memory of the worker over many tasks: nothing is kept per task."""

import statistics
import time
from typing import Any

from tests.bench.figure import Benchmark, Figure
from tests.bench.load import texts
from tests.bench.processes import resident_mb
from tests.bench.stack import Stack

LIMIT_MB = 150.0
CACHED = 5000
"""Distinct texts that are asked for again and again."""
COLD_EVERY = 10
"""One text in so many is new."""
STEP = 10_000


def measure(stack: Stack) -> list[Figure]:
    """Measure the resident memory after some tasks and after ten times as many."""
    first, last = stack.scale.memory_tasks
    with stack.citadel_worker() as pid:
        _run(stack, 0, first)
        early = _settled_mb(pid)
        for start in range(first, last, STEP):
            _run(stack, start, min(last, start + STEP))
        late = _settled_mb(pid)
    return [
        Figure.single(
            "worker_rss_growth", late, "MB", baseline=f"after {first} tasks, not {last}", baseline_value=early
        ),
        Figure.single("worker_rss_mb", late, "MB", baseline="the limit", baseline_value=LIMIT_MB),
    ]


def _run(stack: Stack, start: int, end: int) -> None:
    stack.producers.run(stack.citadel, _arguments(start, end))


def _arguments(start: int, end: int) -> list[list[Any]]:
    known = texts("known", CACHED)
    new = texts(f"new {start}", end - start)
    return [[new[i] if i % COLD_EVERY == 0 else known[(start + i) % CACHED]] for i in range(end - start)]


def _settled_mb(pid: int) -> float:
    """Return the median of several readings, once the last tasks are over."""
    time.sleep(1.0)
    looks = []
    for _ in range(5):
        looks.append(resident_mb(pid))
        time.sleep(0.2)
    return statistics.median(looks)


BENCHMARK = Benchmark(names=("worker_rss_growth", "worker_rss_mb"), measure=measure)
