"""All metrics of the exporter: name, labels, help. Labels have bounded sets of values, never ids or texts."""

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
        help: Its description.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...] = ()
    help: str


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Observations per bucket of `BUCKETS` (not cumulated), and their sum in seconds."""

    counts: tuple[float, ...]
    total: float


@dataclass(frozen=True)
class Sample:
    """One value of a metric; `labels` are values, in the order of the metric's labels."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Distribution


READY = Metric(
    name="citadel_queue_ready_messages",
    kind="gauge",
    labels=("queue", "lane"),
    help="Messages waiting for a worker.",
)
SCHEDULED = Metric(
    name="citadel_queue_scheduled_messages",
    kind="gauge",
    labels=("queue",),
    help="Messages whose time (ETA, countdown, retry) has not come. They are no backlog; those that are due are ready.",
)
UNACKED = Metric(
    name="citadel_queue_unacked_messages",
    kind="gauge",
    labels=("queue",),
    help="Messages taken by workers and not finished, including those of dead workers until they are given back.",
)
OLDEST = Metric(
    name="citadel_queue_oldest_message_age_seconds",
    kind="gauge",
    labels=("queue", "lane"),
    help="Age of the message that is taken next, 0 for none; a foreign producer's ages from when it was first seen.",
)
MISROUTED = Metric(
    name="citadel_queue_misrouted_messages",
    kind="gauge",
    labels=("queue", "reason"),
    help="Messages for the queue in lists that no worker reads, as maintenance last found them;"
    " reason: the client's setting that differs (separator, priority_steps, key_prefix, database, queue).",
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
    help="Tasks that the live workers run, by their last heartbeats.",
)
TASKS_ENDED = Metric(
    name="citadel_tasks_ended_total",
    kind="counter",
    labels=("queue", "task", "outcome"),
    help="Attempts of tasks that ended; each has one outcome.",
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
    help="Time from sending to start, of messages by Citadel's producers that were delivered once.",
)
DEAD_LETTERS = Metric(
    name="citadel_dead_letters",
    kind="gauge",
    labels=("queue", "code"),
    help="Dead letters kept, by error code.",
)
DEAD_LETTERED = Metric(
    name="citadel_put_aside_total",
    kind="counter",
    labels=("queue", "code"),
    help="Tasks and messages that became dead letters, by error code.",
)
CACHE_ENTRIES = Metric(
    name="citadel_cache_entries", kind="gauge", help="Keys in the embedding cache's database, vectors and others."
)
CACHE_HITS = Metric(
    name="citadel_cache_hits_total", kind="counter", help="Texts found in the embedding cache, counted by the workers."
)
CACHE_MISSES = Metric(
    name="citadel_cache_misses_total",
    kind="counter",
    help="Texts not found in the embedding cache, counted by the workers.",
)
CACHE_ERRORS = Metric(
    name="citadel_cache_errors_total",
    kind="counter",
    help="Texts looked up while the embedding cache did not answer, counted by the workers.",
)
CACHE_EVICTIONS = Metric(
    name="citadel_cache_evictions_total", kind="counter", help="Keys that the cache's server evicted since its start."
)
MEMORY = Metric(
    name="citadel_redis_memory_used_bytes",
    kind="gauge",
    labels=("role",),
    help="Memory in use by the Redis server of that role; one server may have several roles.",
)
MEMORY_LIMIT = Metric(
    name="citadel_redis_memory_limit_bytes",
    kind="gauge",
    labels=("role",),
    help="Memory limit (maxmemory) of the Redis server of that role; 0 for none.",
)
RUNS = Metric(
    name="citadel_runs",
    kind="gauge",
    labels=("status",),
    help="Runs: unfinished ones exact up to 100000, finished ones exact up to 10000, beyond that estimated by"
    " PostgreSQL's statistics.",
)
RECENT_RUNS = Metric(
    name="citadel_runs_recent",
    kind="gauge",
    labels=("status",),
    help="Runs submitted within the last ten minutes, at most the newest 10000.",
)
RUNS_SUBMITTED = Metric(
    name="citadel_runs_submitted_total",
    kind="counter",
    help="Runs inserted, by PostgreSQL's statistics, which a crash of the server resets.",
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
WAITING_STEPS = Metric(
    name="citadel_steps_waiting",
    kind="gauge",
    labels=("reason",),
    help="Steps that wait for a slot, by what they wait for, such as llm:main; up to 100000. No row for none.",
)
OVERDUE = Metric(
    name="citadel_steps_overdue",
    kind="gauge",
    labels=("kind",),
    help="Steps of active runs that wait for the sweeper: their lease has expired, or they are due; up to 10000.",
)
SWEEP_LAG = Metric(
    name="citadel_sweep_lag_seconds",
    kind="gauge",
    labels=("kind",),
    help="How long the oldest expired lease, due step or passed deadline has waited for the sweeper, 0 for none.",
)
STORED = Metric(
    name="citadel_stored_bytes",
    kind="gauge",
    labels=("state",),
    help="Bytes in use in PostgreSQL by runs that have ended (finished), and by other runs and accepted tasks"
    " (unfinished); measured once a minute.",
)
ALLOCATED = Metric(
    name="citadel_allocated_bytes",
    kind="gauge",
    help="Bytes of Citadel's tables and indexes on PostgreSQL's disk, in use or free for new rows.",
)
STORAGE_LIMIT = Metric(
    name="citadel_storage_limit_bytes",
    kind="gauge",
    help="Bytes from which on new runs are refused (CITADEL_STORAGE__MAX_BYTES); 0 for no limit.",
)
CONNECTIONS = Metric(
    name="citadel_postgres_connections",
    kind="gauge",
    help="Connections to PostgreSQL's server that are open, of all its users.",
)
CONNECTIONS_LIMIT = Metric(
    name="citadel_postgres_connections_limit",
    kind="gauge",
    help="Connections that PostgreSQL's server takes from roles without privileges.",
)
UP = Metric(
    name="citadel_exporter_up", kind="gauge", labels=("source",), help="Whether the source answered this scrape."
)
READ_SECONDS = Metric(
    name="citadel_exporter_read_seconds",
    kind="gauge",
    labels=("source",),
    help="How long the last reading of the source took, or has taken so far.",
)
READ_ERRORS = Metric(
    name="citadel_exporter_errors_total",
    kind="counter",
    labels=("source",),
    help="Scrapes that the source did not answer.",
)
ALL = tuple(metric for metric in list(globals().values()) if isinstance(metric, Metric))
"""All metrics, in the order in which a scrape shows them."""


def families(samples: Iterable[Sample]) -> Iterator[Family]:
    """Return the samples as families, in the declared order, without metrics that have no samples."""
    by_metric: dict[Metric, list[Sample]] = {metric: [] for metric in ALL}
    for sample in samples:
        by_metric[sample.metric].append(sample)
    return (_family(metric, found) for metric, found in by_metric.items() if found)


def empty_families() -> Iterator[Family]:
    """Return all families without samples: names and kinds."""
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
