"""Single-text tasks: Citadel, the naive form and a task that does nothing take turns."""

from tests.bench.figure import Benchmark, Figure
from tests.bench.load import single_texts
from tests.bench.stack import Stack

UNIT = "tasks/s"


def measure(stack: Stack) -> list[Figure]:
    """Measure rates of distinct, cold texts."""
    with stack.citadel_worker(), stack.naive_worker(), stack.noop_worker():
        stack.producers.run(stack.citadel, single_texts("warm-up", 500))
        stack.producers.run(stack.noop, single_texts("warm-up", 500))
        rounds = [_round(stack, number) for number in range(stack.scale.rounds)]
    return [
        Figure.of_rounds(
            "single_text_vs_naive",
            UNIT,
            baseline="the naive form (4 processes)",
            rounds=[(citadel, naive) for citadel, naive, _ in rounds],
        ),
        Figure.of_rounds(
            "single_text_vs_noop",
            UNIT,
            baseline="a Celery task that does nothing",
            rounds=[(citadel, noop) for citadel, _, noop in rounds],
        ),
    ]


def _round(stack: Stack, number: int) -> tuple[float, float, float]:
    scale = stack.scale
    citadel = stack.producers.run(stack.citadel, single_texts(f"citadel {number}", scale.single_tasks))
    noop = stack.producers.run(stack.noop, single_texts(f"noop {number}", scale.single_tasks))
    naive = stack.producers.run(stack.naive, single_texts(f"naive {number}", scale.naive_tasks))
    return citadel, naive, noop


BENCHMARK = Benchmark(names=("single_text_vs_naive", "single_text_vs_noop"), measure=measure)
