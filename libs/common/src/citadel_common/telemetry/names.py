"""Declarations of all metrics: name, kind, help, unit and labels. Labels are bounded sets, never ids or texts."""

from dataclasses import dataclass
from typing import Literal

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Bucket bounds of durations."""
COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)
"""Bucket bounds of sizes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: Name in Prometheus; a counter's ends with `_total`.
        kind: counter, gauge or histogram.
        help: What is counted, and the values of each label.
        unit: Unit of the values.
        labels: Names of the labels.
        buckets: Upper bounds of a histogram's buckets.
        is_read: Whether it is read from the kernel at each scrape, and never counted or set.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    unit: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    is_read: bool = False


def _counter(name: str, help: str, *labels: str, unit: str = "1") -> Metric:  # noqa: A002
    return Metric(name=name, kind="counter", help=help, unit=unit, labels=labels)


def _seconds(name: str, help: str, *labels: str) -> Metric:  # noqa: A002
    return Metric(name=name, kind="histogram", help=help, unit="seconds", labels=labels, buckets=SECONDS)


def _of_cgroup(name: str, help: str, *labels: str, unit: str) -> Metric:  # noqa: A002
    kind: Literal["counter", "gauge"] = "counter" if name.endswith("_total") else "gauge"
    return Metric(name=f"citadel_cgroup_{name}", kind=kind, help=help, unit=unit, labels=labels, is_read=True)


CACHE_LOOKUPS = _counter(
    "citadel_cache_lookups_total",
    "Texts looked up in the embedding cache; outcome: hit, miss, error (the cache did not answer)",
    "outcome",
    unit="texts",
)
CACHE_FAILURES = _counter(
    "citadel_cache_failures_total",
    "Cache calls that failed; operation: get, discard, claim, put, record",
    "operation",
    unit="calls",
)
BACKEND_REQUESTS = _counter(
    "citadel_backend_requests_total",
    "Calls to embedding backends; outcome: ok, or an error code",
    "backend",
    "outcome",
    unit="calls",
)
BACKEND_SECONDS = _seconds("citadel_backend_seconds", "Duration of calls to embedding backends", "backend")
BACKEND_TEXTS = Metric(
    name="citadel_backend_texts",
    kind="histogram",
    help="Texts per call to an embedding backend",
    unit="texts",
    labels=("backend",),
    buckets=COUNTS,
)
BREAKER_CHANGES = _counter(
    "citadel_breaker_changes_total",
    "Breakers that changed state; state: open, half_open (one call begins to probe the server), closed",
    "backend",
    "state",
    unit="changes",
)
BREAKERS_OPEN = Metric(
    name="citadel_breakers_open",
    kind="gauge",
    help="Breakers that are open or half open now: for an embedding backend one per URL and model, until a call"
    " succeeds; for postgresql one per process of the API; for qdrant and LLM endpoints one per orchestration worker",
    unit="breakers",
    labels=("backend",),
)
CALLS_HELD = Metric(
    name="citadel_calls_held",
    kind="gauge",
    help="Calls that wait now for an outside server (qdrant, an LLM endpoint) to come back",
    unit="calls",
    labels=("server",),
)
HOLDS = _counter(
    "citadel_call_holds_total",
    "Waits of calls for an outside server to come back; outcome: resumed (the call was made), given_up (the patience or"
    " the deadline was over), handed_back (the worker stopped), abandoned (cancelled)",
    "server",
    "outcome",
    unit="waits",
)
POSTGRES_FAILURES = _counter(
    "citadel_postgres_failures_total",
    "Transactions that PostgreSQL failed; kind: away, busy, full, conflict, misconfigured, failed, rejected (see"
    " stores.md)",
    "kind",
    unit="transactions",
)
TEXTS = _counter(
    "citadel_texts_total",
    "Texts answered; source: cache, shared (computed for another text: of another request or process, or the same"
    " text once more in this request), backend (computed for this one), error",
    "source",
    unit="texts",
)
TASKS = _counter(
    "citadel_tasks_total",
    "Tasks ended; outcome: ok, retried, handed_back, revoked, or an error code",
    "task",
    "outcome",
    unit="tasks",
)
TASK_SECONDS = _seconds("citadel_task_seconds", "Run time of tasks", "task")
DEAD_LETTERS = _counter(
    "citadel_dead_letters_total",
    "Tasks and messages that became dead letters; reason: an error code",
    "reason",
    unit="letters",
)
WRONG_QUEUE_KEYS = _counter(
    "citadel_wrong_queue_keys_total",
    "Looks at a queue that found a key of another type in place of one of its lists",
    "queue",
    unit="looks",
)
RECLAIMED = _counter(
    "citadel_reaped_messages_total", "Messages taken from dead workers and put back on their queue", unit="messages"
)
REROUTED = _counter(
    "citadel_rerouted_messages_total",
    "Messages moved into their queue's lanes from lists that no worker reads; reason: the client's setting that differs"
    " (separator, priority_steps)",
    "queue",
    "reason",
    unit="messages",
)
FORGOTTEN = _counter(
    "citadel_forgotten_messages_total",
    "Messages that a living worker held without knowing, as after a lost connection, and put back on their queue",
    unit="messages",
)
REPUBLISHED = _counter(
    "citadel_republished_tasks_total",
    "Accepted tasks whose message was lost and that were published again",
    unit="tasks",
)
RESENDS = _counter(
    "citadel_resends_total",
    "Messages sent again; kind: task (an accepted one), texts (of a step); reason: missing (known not to be in the"
    " broker), refused (not taken by the broker when it was sent), restored (the store of accepted tasks was emptied)",
    "kind",
    "reason",
    unit="messages",
)
LATE_RESULTS = _counter(
    "citadel_late_results_total",
    "Results that changed nothing, since their attempt was over when they came: another worker had taken it over, its"
    " run had ended, or it was recorded before; kind: step, vectors (of a step), parked (output of a step), task",
    "kind",
    unit="results",
)
CUT_OFF_STEPS = _counter(
    "citadel_cut_off_steps_total",
    "Calls of steps that their worker ended because it was cut off from PostgreSQL and others may take the steps over",
    unit="steps",
)
API_REQUESTS = _counter("citadel_api_requests_total", "Requests answered", "route", "status", unit="requests")
API_REFUSED = _counter(
    "citadel_api_refused_total",
    "Requests refused and connections closed by a limit; reason: an error code, or slow_reader",
    "reason",
    unit="requests",
)
REFUSED = _counter(
    "citadel_submissions_refused_total",
    "Submissions refused to protect the stores; reason: queue (messages wait in the broker), backlog (ready steps wait"
    " for workers), concurrency_key (too many of its runs have not ended), storage (PostgreSQL holds its"
    " budget), redis_memory (Redis is full)",
    "reason",
    unit="submissions",
)
API_SECONDS = _seconds("citadel_api_seconds", "Duration of requests", "route")
LLM_CALLS = _counter(
    "citadel_llm_calls_total",
    "Calls to LLM endpoints; outcome: ok, cancelled, or an error code",
    "endpoint",
    "outcome",
    unit="calls",
)
LLM_TOKENS = _counter(
    "citadel_llm_tokens_total",
    "Tokens of answers, as the servers count them; kind: input, output",
    "endpoint",
    "kind",
    unit="tokens",
)
STEPS = _counter(
    "citadel_step_attempts_total",
    "Attempts of workflow steps that ended; outcome: succeeded, skipped, failed, retried, cancelled, handed_back, lost",
    "type",
    "outcome",
    unit="attempts",
)
STEP_SECONDS = _seconds("citadel_step_seconds", "From the beginning of a step's attempt to its end", "type")
STEP_WAIT_SECONDS = _seconds(
    "citadel_step_wait_seconds",
    "Time that steps waited for a slot; reason: the resource, such as llm:main; outcome: admitted, start_timed_out",
    "reason",
    "outcome",
)
RUNS = _counter("citadel_runs_ended_total", "Runs ended; outcome: their state", "kind", "outcome", unit="runs")
RUN_SECONDS = _seconds("citadel_run_seconds", "From a run's acceptance to its end", "kind")
SPANS = _counter(
    "citadel_spans_total",
    "Spans given to the exporter; outcome: exported, failed (rejected ones included), dropped (queue full)",
    "outcome",
    unit="spans",
)
CGROUP_CPU_LIMIT = _of_cgroup(
    "cpu_limit_cores", "Processors that the process's control group may use at once; 0: no limit", unit="processors"
)
CGROUP_CPU_SECONDS = _of_cgroup(
    "cpu_seconds_total", "Processor time used by the process's control group", unit="seconds"
)
CGROUP_CPU_PERIODS = _of_cgroup(
    "cpu_periods_total", "Time slices in which the control group had something to run", unit="periods"
)
CGROUP_CPU_THROTTLED = _of_cgroup(
    "cpu_throttled_periods_total", "Those in which it was held up at its processor limit", unit="periods"
)
CGROUP_MEMORY = _of_cgroup("memory_bytes", "Memory used by the control group, page cache included", unit="bytes")
CGROUP_MEMORY_LIMIT = _of_cgroup("memory_limit_bytes", "Memory that it may use; 0: no limit", unit="bytes")
CGROUP_PRESSURE = _of_cgroup(
    "pressure_seconds_total",
    "Time in which some of the control group's threads waited for a resource; resource: cpu, memory, io",
    "resource",
    unit="seconds",
)

METRICS: tuple[Metric, ...] = tuple(found for found in list(globals().values()) if isinstance(found, Metric))
"""All metrics."""
