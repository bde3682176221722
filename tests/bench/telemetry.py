"""What tracing costs: the same worker without spans, with all of them, and with a receiver that never answers."""

import contextlib
import sys
from collections.abc import Iterator

from tests.bench.figure import Benchmark, Figure
from tests.bench.load import single_texts
from tests.bench.processes import child
from tests.bench.stack import Stack, first_result
from tests.doubles.otlp import OtlpReceiver

UNIT = "tasks/s"
OFF_DB, ON_DB, HANGING_DB = 3, 4, 5
BASELINE = "the same worker with tracing off"


def measure(stack: Stack) -> list[Figure]:
    """Rates of distinct, cold texts; the three take turns, and each task is the root of a trace of four spans."""
    with OtlpReceiver() as receiver, OtlpReceiver() as hanging:
        hanging.mode = "hanging"
        with (
            _worker(stack, OFF_DB, None),
            _worker(stack, ON_DB, receiver.endpoint),
            _worker(stack, HANGING_DB, hanging.endpoint),
        ):
            for database in (OFF_DB, ON_DB, HANGING_DB):
                stack.producers.run(_target(stack, database), single_texts(f"warm-up {database}", 500))
            rounds = [_round(stack, number) for number in range(stack.scale.rounds)]
        if not receiver.spans:
            raise RuntimeError("the receiver got no spans")
    return [
        Figure.of_rounds("tracing_on", UNIT, baseline=BASELINE, rounds=[(on, off) for off, on, _ in rounds]),
        Figure.of_rounds("tracing_hanging", UNIT, baseline=BASELINE, rounds=[(lost, off) for off, _, lost in rounds]),
    ]


def _round(stack: Stack, number: int) -> tuple[float, float, float]:
    off, on, lost = (
        stack.producers.run(_target(stack, database), single_texts(f"{database} {number}", stack.scale.single_tasks))
        for database in (OFF_DB, ON_DB, HANGING_DB)
    )
    return off, on, lost


def _target(stack: Stack, database: int) -> dict[str, str]:
    return stack.citadel | {"broker": stack.redis_url(database)}


@contextlib.contextmanager
def _worker(stack: Stack, database: int, endpoint: str | None) -> Iterator[None]:
    environment = stack.citadel_environment() | {"CITADEL_BROKER_URL": stack.redis_url(database)}
    tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if endpoint else {"OTEL_SDK_DISABLED": "true"}
    with child(f"worker-{database}", [sys.executable, "-m", "citadel_embeddings"], environment | tracing):
        first_result(_target(stack, database))
        yield


BENCHMARK = Benchmark(names=("tracing_on", "tracing_hanging"), measure=measure)
