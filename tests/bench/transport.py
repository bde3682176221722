"""Plain Celery tasks that do nothing: Citadel's worker, and so its transport, beside kombu's own."""

import contextlib
import sys
from collections.abc import Iterator

from tests.bench.figure import Benchmark, Figure
from tests.bench.load import single_texts
from tests.bench.processes import child
from tests.bench.stack import CITADEL_DB, Stack, first_result
from tests.support.programs.plain_worker import QUEUE, TASK

NAME = "plain_tasks_vs_kombu"


def measure(stack: Stack) -> list[Figure]:
    """Measure rates of both, in turns."""
    count = stack.scale.single_tasks
    rounds = []
    with _plain_worker(stack) as target, stack.noop_worker():
        for each in (target, stack.noop):
            stack.producers.run(each, single_texts("warm-up", 500))
        for number in range(stack.scale.rounds):
            ours, kombus = (
                stack.producers.run(each, single_texts(f"{number}", count)) for each in (target, stack.noop)
            )
            rounds.append((ours, kombus))
    return [Figure.of_rounds(NAME, "tasks/s", baseline="kombu's transport, the same task", rounds=rounds)]


@contextlib.contextmanager
def _plain_worker(stack: Stack) -> Iterator[dict[str, str]]:
    """Run a worker of Citadel with one plain task; give the task as a target of producers."""
    target = {"broker": stack.redis_url(CITADEL_DB), "queue": QUEUE.value, "task": TASK}
    command = [sys.executable, "-m", "tests.support.programs.plain_worker"]
    with child("plain-worker", command, stack.citadel_environment(), ready=lambda: first_result(target)):
        yield target


BENCHMARK = Benchmark(names=(NAME,), measure=measure)
