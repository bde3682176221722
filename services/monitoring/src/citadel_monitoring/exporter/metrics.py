"""Every metric of the exporter, declared once: name, labels, meaning. Labels are bounded sets, never ids or texts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from citadel_common.tasks.stats import BUCKETS


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: Full name; times are seconds, sizes bytes, counters end in `_total`.
        kind: Prometheus' type.
        labels: Names of the labels.
        help: What it says.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...] = ()
    help: str


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Observations by bucket, as `stats.BUCKETS` bounds them (not cumulated), and their sum in seconds."""

    counts: tuple[float, ...]
    total: float


@dataclass(frozen=True)
class Sample:
    """One value of a metric; `labels` are values, in the order of the metric's names."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Distribution


READY = Metric(
    name="citadel_queue_ready_messages",
    kind="gauge",
    labels=("queue", "lane"),
    help="Messages that wait to be taken by a worker.",
)
UNACKED = Metric(
    name="citadel_queue_unacked_messages",
    kind="gauge",
    labels=("queue",),
    help="Messages that workers have taken and not finished; a dead worker's until they are given back.",
)
OLDEST = Metric(
    name="citadel_queue_oldest_message_age_seconds",
    kind="gauge",
    labels=("queue", "lane"),
    help="Age of the message that is taken next, 0 for none; of one from a foreign producer, how long it is seen.",
)
WORKERS = Metric(name="citadel_queue_workers", kind="gauge", labels=("queue",), help="Live workers.")
CONCURRENCY = Metric(
    name="citadel_queue_worker_concurrency",
    kind="gauge",
    labels=("queue",),
    help="Tasks that the live workers can run at once.",
)
RUNNING = Metric(
    name="citadel_queue_running_tasks",
    kind="gauge",
    labels=("queue",),
    help="Tasks that the live workers run, as of their last heartbeats.",
)
TASKS_ENDED = Metric(
    name="citadel_tasks_ended_total",
    kind="counter",
    labels=("queue", "task", "outcome"),
    help="Attempts of tasks that ended; outcomes are disjoint.",
)
TASK_FAILURES = Metric(
    name="citadel_task_failures_total",
    kind="counter",
    labels=("queue", "task", "code"),
    help="Tasks that failed or became dead letters, by error code.",
)
TASK_RUNTIME = Metric(
    name="citadel_task_runtime_seconds",
    kind="histogram",
    labels=("queue", "task"),
    help="Run time of attempts.",
)
TASK_WAIT = Metric(
    name="citadel_task_queue_wait_seconds",
    kind="histogram",
    labels=("queue", "task"),
    help="Time between sending and start, of messages by Citadel's producers that were delivered once.",
)
DEAD_LETTERS = Metric(
    name="citadel_dead_letters",
    kind="gauge",
    labels=("queue", "code"),
    help="Dead letters that are kept, by error code.",
)
PUT_ASIDE = Metric(
    name="citadel_put_aside_total",
    kind="counter",
    labels=("queue", "code"),
    help="Tasks and messages that became dead letters, by error code.",
)
CACHE_ENTRIES = Metric(
    name="citadel_cache_entries", kind="gauge", help="Keys in the embedding cache's database, vectors and others."
)
CACHE_HITS = Metric(
    name="citadel_cache_hits_total", kind="counter", help="Texts found in the embedding cache, by the fleet's count."
)
CACHE_MISSES = Metric(
    name="citadel_cache_misses_total", kind="counter", help="Texts not found in the embedding cache, likewise."
)
CACHE_ERRORS = Metric(
    name="citadel_cache_errors_total",
    kind="counter",
    help="Texts looked up while the embedding cache did not answer, likewise.",
)
CACHE_EVICTIONS = Metric(
    name="citadel_cache_evictions_total", kind="counter", help="Keys that the cache's server evicted since its start."
)
MEMORY = Metric(
    name="citadel_redis_memory_used_bytes",
    kind="gauge",
    labels=("role",),
    help="Memory in use by the Redis server of that role; one server may have several.",
)
MEMORY_LIMIT = Metric(
    name="citadel_redis_memory_limit_bytes",
    kind="gauge",
    labels=("role",),
    help="Its limit (maxmemory); 0 is none.",
)
RUNS = Metric(
    name="citadel_runs",
    kind="gauge",
    labels=("status",),
    help="Runs in the record: unfinished ones exact up to 100000, finished ones up to 10000, beyond that estimated"
    " by PostgreSQL's statistics.",
)
RECENT_RUNS = Metric(
    name="citadel_runs_recent",
    kind="gauge",
    labels=("status",),
    help="Runs submitted within the last ten minutes, the newest 10000 at most.",
)
RUNS_SUBMITTED = Metric(
    name="citadel_runs_submitted_total",
    kind="counter",
    help="Runs recorded, by PostgreSQL's statistics, which a crash of the server resets.",
)
OLDEST_RUN = Metric(
    name="citadel_runs_oldest_age_seconds",
    kind="gauge",
    labels=("status",),
    help="Age of the oldest unfinished run, 0 for none.",
)
STEPS = Metric(
    name="citadel_steps",
    kind="gauge",
    labels=("status",),
    help="Steps that are ready, running, or waiting for a time, up to 100000.",
)
OVERDUE = Metric(
    name="citadel_steps_overdue",
    kind="gauge",
    labels=("kind",),
    help="Steps of active runs that the sweep should take: their lease has expired, or their time is due; up to 10000.",
)
SWEEP_LAG = Metric(
    name="citadel_sweep_lag_seconds",
    kind="gauge",
    labels=("kind",),
    help="How long the oldest expired lease, due step or passed deadline has been waiting for the sweep, 0 for none.",
)
UP = Metric(
    name="citadel_exporter_up", kind="gauge", labels=("source",), help="Whether the source answered this scrape."
)
READ_SECONDS = Metric(
    name="citadel_exporter_read_seconds",
    kind="gauge",
    labels=("source",),
    help="How long the last reading of the source took, or has taken where it goes on.",
)
READ_ERRORS = Metric(
    name="citadel_exporter_errors_total",
    kind="counter",
    labels=("source",),
    help="Scrapes that the source did not answer.",
)
ALL = tuple(metric for metric in list(globals().values()) if isinstance(metric, Metric))
"""Every metric, in the order in which they are told."""


def families(samples: Iterable[Sample]) -> Iterator[Family]:
    """The samples as families, in the declared order; metrics without samples are left out."""
    by_metric: dict[Metric, list[Sample]] = {metric: [] for metric in ALL}
    for sample in samples:
        by_metric[sample.metric].append(sample)
    return (_family(metric, found) for metric, found in by_metric.items() if found)


def empty_families() -> Iterator[Family]:
    """Every family without samples: the names and kinds."""
    return (_family(metric, []) for metric in ALL)


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for sample in samples:
            if isinstance(sample.value, Distribution):
                histogram.add_metric(sample.labels, _cumulated(sample.value.counts), sample.value.total)
        return histogram
    kind = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for sample in samples:
        if not isinstance(sample.value, Distribution):
            family.add_metric(sample.labels, sample.value)
    return family


def _cumulated(counts: Iterable[float]) -> list[tuple[str, float]]:
    return list(zip(map(floatToGoString, BUCKETS), accumulate(counts), strict=True))
