"""Samples of task statistics of all workers; every registered task has rows, even if it never ran."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from citadel_common.tasks import stats
from citadel_common.tasks.stats import BUCKETS, OUTCOMES, Field
from citadel_contracts import TASKS, Queue
from citadel_contracts.errors import KINDS
from citadel_monitoring.exporter.metrics import (
    DEAD_LETTERED,
    DEAD_LETTERS,
    TASK_FAILURES,
    TASK_RUNTIME,
    TASK_WAIT,
    TASKS_ENDED,
    Distribution,
    Metric,
    Sample,
)

OTHER = "other"
QUEUES = tuple(queue.value for queue in Queue)


def task_samples(stored: Iterable[tuple[Field, float]]) -> Iterator[Sample]:
    """Yield samples of stored statistics; tasks and outcomes that are not registered are ignored."""
    by_kind: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for (subject, kind, label), number in stored:
        by_kind[subject, kind][label] = number
    for spec in TASKS:
        task = (spec.queue.value, spec.name)
        ended = by_kind[spec.name, stats.ENDED]
        yield from (Sample(TASKS_ENDED, (*task, outcome), ended.get(outcome, 0.0)) for outcome in OUTCOMES)
        yield from _by_code(TASK_FAILURES, task, by_kind[spec.name, stats.FAILURES])
        yield Sample(TASK_RUNTIME, task, _distribution(by_kind[spec.name, stats.RUNTIME]))
        yield Sample(TASK_WAIT, task, _distribution(by_kind[spec.name, stats.WAIT]))
    for queue in QUEUES:
        yield from _by_code(DEAD_LETTERED, (queue,), by_kind[queue, stats.DEAD_LETTERS])


def dead_letter_samples(counts: Mapping[tuple[str, str], int]) -> Iterator[Sample]:
    """Return samples of dead letters by queue and code; unknown queues and codes become OTHER."""
    bounded: dict[tuple[str, str], int] = {(queue, "internal"): 0 for queue in QUEUES}
    for (queue, code), count in counts.items():
        kind = (queue if queue in QUEUES else OTHER, code if code in KINDS else OTHER)
        bounded[kind] = bounded.get(kind, 0) + count
    return (Sample(DEAD_LETTERS, kind, count) for kind, count in bounded.items())


def _by_code(metric: Metric, subject: tuple[str, ...], numbers: Mapping[str, float]) -> Iterator[Sample]:
    bounded: dict[str, float] = {}
    for code, number in numbers.items():
        bounded_code = code if code in KINDS else OTHER
        bounded[bounded_code] = bounded.get(bounded_code, 0.0) + number
    return (Sample(metric, (*subject, code), number) for code, number in sorted(bounded.items()))


def _distribution(numbers: Mapping[str, float]) -> Distribution:
    """Return a distribution; buckets of another version's bounds count towards the next bound."""
    counts = [0.0] * len(BUCKETS)
    for label, number in numbers.items():
        if label != stats.SUM and _is_bound(label):
            counts[bisect_left(BUCKETS, float(label))] += number
    return Distribution(counts=tuple(counts), total=numbers.get(stats.SUM, 0.0))


def _is_bound(label: str) -> bool:
    try:
        return float(label) > 0
    except ValueError:
        return False
