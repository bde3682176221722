"""Cost of tracing: the same worker without spans, with all of them, and with a receiver that never answers."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench.figure import Benchmark, Figure
from tests.bench.load import single_texts
from tests.bench.processes import child
from tests.bench.stack import Stack, first_result
from tests.doubles.otlp.receiver import OtlpReceiver

OFF_DB, ON_DB, HANGING_DB = 3, 4, 5
BASELINE = "the same worker with tracing off"


def measure(stack: Stack) -> list[Figure]:
    """Measure rates of distinct, cold texts, and the processor time of each; the three workers take turns."""
    with ExitStack() as running:
        receiver, hanging = running.enter_context(OtlpReceiver()), running.enter_context(OtlpReceiver())
        receiver.mode, hanging.mode = "counting", "hanging"
        endpoints = {OFF_DB: None, ON_DB: receiver.endpoint, HANGING_DB: hanging.endpoint}
        pids = {db: running.enter_context(_worker(stack, db, endpoint)) for db, endpoint in endpoints.items()}
        for database in pids:
            stack.producers.run(_target(stack, database), single_texts(f"warm-up {database}", 500))
        rounds = [_round(stack, pids, number) for number in range(stack.scale.rounds)]
        if not receiver.requests:
            raise RuntimeError("the receiver got no spans")
    return [figure for name, db in (("on", ON_DB), ("hanging", HANGING_DB)) for figure in _figures(name, db, rounds)]


Round = dict[int, tuple[float, float]]
"""Tasks per second and milliseconds of processor time per task, by database."""


def _figures(name: str, database: int, rounds: list[Round]) -> list[Figure]:
    rates = [(found[database][0], found[OFF_DB][0]) for found in rounds]
    times = [(found[database][1], found[OFF_DB][1]) for found in rounds]
    return [
        Figure.of_rounds(f"tracing_{name}", "tasks/s", baseline=BASELINE, rounds=rates),
        Figure.of_rounds(f"tracing_{name}_cpu", "ms/task", baseline=BASELINE, rounds=times),
    ]


def _round(stack: Stack, pids: dict[int, int], number: int) -> Round:
    tasks = stack.scale.single_tasks
    found: Round = {}
    for database, pid in pids.items():
        before = _processor_time(pid)
        rate = stack.producers.run(_target(stack, database), single_texts(f"{database} {number}", tasks))
        found[database] = rate, (_processor_time(pid) - before) * 1000 / tasks
    return found


def _processor_time(pid: int) -> float:
    """Return the processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _target(stack: Stack, database: int) -> dict[str, str]:
    return stack.citadel | {"broker": stack.redis_url(database)}


@contextlib.contextmanager
def _worker(stack: Stack, database: int, endpoint: str | None) -> Iterator[int]:
    environment = stack.citadel_environment() | {"CITADEL_BROKER_URL": stack.redis_url(database)}
    tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if endpoint else {"OTEL_SDK_DISABLED": "true"}
    command, target = [sys.executable, "-m", "citadel_embeddings"], _target(stack, database)
    with child(f"worker-{database}", command, environment | tracing, ready=lambda: first_result(target)) as process:
        yield process.pid


BENCHMARK = Benchmark(names=("tracing_on", "tracing_on_cpu", "tracing_hanging", "tracing_hanging_cpu"), measure=measure)
