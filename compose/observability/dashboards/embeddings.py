"""Dashboard of embeddings: sources of vectors, backends, cache, tasks."""

from compose.observability.dashboards.panels import Dashboard, Panel, Query, Row, Variable

_BACKEND = '{backend=~"$backend"}'

TEXTS = Row(
    title="Texts",
    panels=(
        Panel(
            title="Texts answered by source",
            description="From the cache, computed for another text (`shared`), by a backend, or not at all.",
            unit="ops",
            stacked=True,
            queries=(Query("sum by (source) (rate(citadel_texts_total[$__rate_interval]))", "{{source}}"),),
        ),
        Panel(
            title="Cache hit rate",
            description="Share of hits among answered lookups, counted by processes and in Redis.",
            unit="percentunit",
            limits=(0, 1),
            queries=(
                Query(
                    'sum(rate(citadel_cache_lookups_total{outcome="hit"}[$__rate_interval]))'
                    ' / sum(rate(citadel_cache_lookups_total{outcome=~"hit|miss"}[$__rate_interval]))',
                    "processes",
                ),
                Query(
                    "sum(rate(citadel_cache_hits_total[$__rate_interval]))"
                    " / (sum(rate(citadel_cache_hits_total[$__rate_interval]))"
                    " + sum(rate(citadel_cache_misses_total[$__rate_interval])))",
                    "fleet",
                ),
            ),
        ),
        Panel(
            title="Waiting embedding tasks",
            description="By lane. Interactive tasks should not wait long; batches may.",
            unit="short",
            stacked=True,
            queries=(
                Query('sum by (lane) (citadel_queue_ready_messages{queue="embeddings"})', "{{lane}}"),
                Query('sum(citadel_queue_unacked_messages{queue="embeddings"})', "taken"),
            ),
        ),
    ),
)

BACKENDS = Row(
    title="Backends",
    panels=(
        Panel(
            title="Calls by outcome",
            description="Calls per second. `backend_unavailable` counts against a breaker, `text_rejected` does not.",
            unit="ops",
            stacked=True,
            queries=(
                Query(
                    f"sum by (backend, outcome) (rate(citadel_backend_requests_total{_BACKEND}[$__rate_interval]))",
                    "{{backend}} {{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Duration of calls",
            description="Median and 95th percentile; the points link to traces.",
            unit="s",
            queries=tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le, backend)"
                    f" (rate(citadel_backend_seconds_bucket{_BACKEND}[$__rate_interval])))",
                    f"{{{{backend}}}} p{round(share * 100)}",
                    exemplars=True,
                )
                for share in (0.5, 0.95)
            ),
        ),
        Panel(
            title="Texts per call",
            description="Size of micro-batches: mean and 95th percentile. It rises under load.",
            unit="short",
            queries=(
                Query(
                    f"sum by (backend) (rate(citadel_backend_texts_sum{_BACKEND}[$__rate_interval]))"
                    f" / sum by (backend) (rate(citadel_backend_texts_count{_BACKEND}[$__rate_interval]))",
                    "{{backend}} mean",
                ),
                Query(
                    "histogram_quantile(0.95, sum by (le, backend)"
                    f" (rate(citadel_backend_texts_bucket{_BACKEND}[$__rate_interval])))",
                    "{{backend}} p95",
                ),
            ),
        ),
        Panel(
            title="Texts sent to backends",
            description="Texts computed per second; compare with the sources above to see what the cache saves.",
            unit="ops",
            queries=(
                Query(f"sum by (backend) (rate(citadel_backend_texts_sum{_BACKEND}[$__rate_interval]))", "{{backend}}"),
            ),
        ),
        Panel(
            title="Breakers open",
            description="By process, URL and model: open, or half open until a call succeeds.",
            unit="short",
            queries=(
                Query(
                    'sum by (backend) (citadel_breakers_open{backend=~"$backend", backend!="postgresql"})',
                    "{{backend}}",
                ),
            ),
        ),
        Panel(
            title="Breaker changes",
            description="Changes within five minutes. Alternating `half_open` and `open`: probes keep failing.",
            unit="short",
            queries=(
                Query(
                    f"sum by (backend, state) (increase(citadel_breaker_changes_total{_BACKEND}[5m]))",
                    "{{backend}} {{state}}",
                ),
            ),
        ),
        Panel(
            title="Concurrent calls",
            description="Seconds of calls per second, which is the mean number of concurrent calls.",
            unit="short",
            queries=(
                Query(
                    f"sum by (backend) (rate(citadel_backend_seconds_sum{_BACKEND}[$__rate_interval]))", "{{backend}}"
                ),
            ),
        ),
    ),
)

CACHE = Row(
    title="Cache",
    panels=(
        Panel(
            title="Entries",
            description="Keys in the cache's database.",
            unit="short",
            queries=(Query("citadel_cache_entries", "entries"),),
        ),
        Panel(
            title="Memory",
            description="Memory in use. At the limit keys are evicted; many evictions and few hits: it is too small.",
            unit="bytes",
            queries=(
                Query('citadel_redis_memory_used_bytes{role="cache"}', "used"),
                Query('citadel_redis_memory_limit_bytes{role="cache"} > 0', "limit"),
            ),
        ),
        Panel(
            title="Failed calls and evictions",
            description="Failed calls by operation; lookups without an answer (texts are computed); evicted keys.",
            unit="ops",
            queries=(
                Query("sum by (operation) (rate(citadel_cache_failures_total[$__rate_interval]))", "{{operation}}"),
                Query("rate(citadel_cache_errors_total[$__rate_interval])", "lookups"),
                Query("rate(citadel_cache_evictions_total[$__rate_interval])", "evicted"),
            ),
        ),
    ),
)

TASKS = Row(
    title="Tasks",
    panels=(
        Panel(
            title="Run time",
            description="Median and 95th percentile of attempts, by task.",
            unit="s",
            width=12,
            queries=tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le, task)"
                    ' (rate(citadel_task_runtime_seconds_bucket{queue="embeddings"}[$__rate_interval])))',
                    f"{{{{task}}}} p{round(share * 100)}",
                )
                for share in (0.5, 0.95)
            ),
        ),
        Panel(
            title="Tasks by outcome",
            description="Counted by each process: ok, retried, handed_back, or an error code.",
            unit="ops",
            width=12,
            stacked=True,
            queries=(
                Query(
                    'sum by (task, outcome) (rate(citadel_tasks_total{service="embeddings"}[$__rate_interval]))',
                    "{{task}} {{outcome}}",
                ),
            ),
        ),
    ),
)

PAGE = Dashboard(
    uid="citadel-embeddings",
    title="Citadel · Embeddings",
    description="Texts by source, the cache, batch sizes, backend latency, breakers.",
    variables=(Variable(name="backend", query="label_values(citadel_backend_requests_total, backend)"),),
    rows=(TEXTS, BACKENDS, CACHE, TASKS),
)
