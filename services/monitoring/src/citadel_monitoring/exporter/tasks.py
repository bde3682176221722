"""The fleet's figures of tasks as samples; every registered task has its rows, whether it ran or not."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from citadel_common.tasks import stats
from citadel_common.tasks.stats import BUCKETS, OUTCOMES, Field
from citadel_contracts import TASKS, Queue
from citadel_contracts.errors import KINDS
from citadel_monitoring.exporter.metrics import (
    DEAD_LETTERS,
    PUT_ASIDE,
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
    """Samples of the figures; tasks and outcomes that nobody registered are passed over."""
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
        yield from _by_code(PUT_ASIDE, (queue,), by_kind[queue, stats.DEAD_LETTERS])


def letter_samples(counts: Mapping[tuple[str, str], int]) -> Iterator[Sample]:
    """Samples of the dead letters by queue and code; queues and codes that are none of ours are OTHER."""
    bounded: dict[tuple[str, str], int] = {(queue, "internal"): 0 for queue in QUEUES}
    for (queue, code), count in counts.items():
        kind = (queue if queue in QUEUES else OTHER, code if code in KINDS else OTHER)
        bounded[kind] = bounded.get(kind, 0) + count
    return (Sample(DEAD_LETTERS, kind, count) for kind, count in bounded.items())


def _by_code(metric: Metric, subject: tuple[str, ...], numbers: Mapping[str, float]) -> Iterator[Sample]:
    bounded: dict[str, float] = {}
    for code, number in numbers.items():
        known = code if code in KINDS else OTHER
        bounded[known] = bounded.get(known, 0.0) + number
    return (Sample(metric, (*subject, code), number) for code, number in sorted(bounded.items()))


def _distribution(numbers: Mapping[str, float]) -> Distribution:
    """Buckets of another version's bounds count to the next bound of ours."""
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
