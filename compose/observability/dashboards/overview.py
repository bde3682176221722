"""Dashboard of the four queues and the API: waits, failures, throughput."""

from compose.observability.dashboards.panels import Dashboard, Panel, Query, Row, Variable

_QUEUE = '{queue=~"$queue"}'

GLANCE = Row(
    title="At a glance",
    height=5,
    panels=(
        Panel(
            title="Backlog",
            description="Waiting and unacknowledged messages, by queue. How long they wait matters more.",
            unit="short",
            kind="stat",
            width=6,
            queries=(Query(f"queue:citadel_backlog_messages:sum{_QUEUE}", "{{queue}}"),),
        ),
        Panel(
            title="Oldest message",
            description="Age of the message that is taken next, over all lanes but batch. Seconds are normal.",
            unit="s",
            kind="stat",
            width=6,
            bounds=(30, 300),
            queries=(
                Query(
                    'max by (queue) (citadel_queue_oldest_message_age_seconds{queue=~"$queue", lane!="batch"})',
                    "{{queue}}",
                ),
            ),
        ),
        Panel(
            title="Failing",
            description="Share of tasks that end in an error not caused by their caller, over five minutes.",
            unit="percentunit",
            kind="stat",
            width=6,
            bounds=(0.01, 0.05),
            queries=(Query(f"queue:citadel_task_failures:ratio_rate5m{_QUEUE}", "{{queue}}"),),
        ),
        Panel(
            title="Firing alerts",
            description="By name; each has a section in docs/runbooks.md. Zero is normal.",
            unit="short",
            kind="stat",
            width=6,
            bounds=(1, 5),
            queries=(
                Query(
                    'sum by (alertname) (ALERTS{alertname=~"Citadel.*", alertstate="firing"}) or vector(0)',
                    "{{alertname}}",
                ),
            ),
        ),
    ),
)

WAITING = Row(
    title="Waiting",
    panels=(
        Panel(
            title="Backlog by lane",
            description="Messages that no worker has taken yet. A long batch lane is normal while batches run.",
            unit="short",
            stacked=True,
            queries=(
                Query(f"sum by (queue, lane) (citadel_queue_ready_messages{_QUEUE})", "{{queue}} {{lane}}"),
                Query(f"sum by (queue) (citadel_queue_unacked_messages{_QUEUE})", "{{queue}} taken"),
            ),
        ),
        Panel(
            title="Age of the oldest message by lane",
            description="A line that rises by a second per second is a lane that no worker reads.",
            unit="s",
            queries=(
                Query(f"max by (queue, lane) (citadel_queue_oldest_message_age_seconds{_QUEUE})", "{{queue}} {{lane}}"),
            ),
        ),
        Panel(
            title="Wait for a worker",
            description="From sending to start: median and 95th percentile.",
            unit="s",
            queries=tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le, queue)"
                    f" (rate(citadel_task_queue_wait_seconds_bucket{_QUEUE}[$__rate_interval])))",
                    f"{{{{queue}}}} p{round(share * 100)}",
                )
                for share in (0.5, 0.95)
            ),
        ),
        Panel(
            title="Late starts against the objective",
            description="Share of tasks that waited over ten seconds; 1 % is allowed, an alert fires at 14.4 %.",
            unit="percentunit",
            bounds=(0.06, 0.144),
            queries=tuple(
                Query(f"queue:citadel_slow_starts:ratio_rate{window}{_QUEUE}", f"{{{{queue}}}} over {window}")
                for window in ("5m", "1h", "6h")
            ),
        ),
        Panel(
            title="Time to work off the backlog",
            description="Waiting messages divided by the rate at which tasks end. No line: nothing waits.",
            unit="s",
            queries=(Query(f"queue:citadel_backlog_drain_seconds:estimate{_QUEUE}", "{{queue}}"),),
        ),
        Panel(
            title="Saturation",
            description="Running tasks in percent of what the live workers can run. At 100 % more workers help.",
            unit="percentunit",
            limits=(0, 1),
            queries=(Query(f"queue:citadel_saturation:ratio{_QUEUE}", "{{queue}}"),),
        ),
    ),
)

WORKING = Row(
    title="Working",
    panels=(
        Panel(
            title="Tasks that end",
            description="By outcome; each attempt counts, so a retried task counts more than once.",
            unit="ops",
            stacked=True,
            queries=(
                Query(
                    f"sum by (queue, outcome) (rate(citadel_tasks_ended_total{_QUEUE}[$__rate_interval])) > 0",
                    "{{queue}} {{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Failures by code",
            description="Errors of tasks, including those caused by callers. ARCHITECTURE.md explains the codes.",
            unit="ops",
            stacked=True,
            queries=(
                Query(
                    f"sum by (queue, code) (rate(citadel_task_failures_total{_QUEUE}[$__rate_interval])) > 0",
                    "{{queue}} {{code}}",
                ),
            ),
        ),
        Panel(
            title="Run time of tasks",
            description="95th percentile of attempts, by task.",
            unit="s",
            queries=(
                Query(
                    "histogram_quantile(0.95, sum by (le, task)"
                    f" (rate(citadel_task_runtime_seconds_bucket{_QUEUE}[$__rate_interval])))",
                    "{{task}}",
                ),
            ),
        ),
        Panel(
            title="Workers",
            description="Live workers by queue, and the number of tasks they can run at once.",
            unit="short",
            queries=(
                Query(f"citadel_queue_workers{_QUEUE}", "{{queue}} workers"),
                Query(f"citadel_queue_worker_concurrency{_QUEUE}", "{{queue}} tasks at once"),
            ),
        ),
        Panel(
            title="Recovered work",
            description="Messages of dead workers put back on their queue, and accepted tasks published again.",
            unit="ops",
            queries=(
                Query("sum(rate(citadel_reaped_messages_total[$__rate_interval]))", "of dead workers"),
                Query("sum(rate(citadel_republished_tasks_total[$__rate_interval]))", "lost and sent again"),
            ),
        ),
        Panel(
            title="Stores",
            description="1 if the exporter can read the store, else 0.",
            unit="bool_on_off",
            limits=(0, 1),
            queries=(Query("min by (source) (citadel_exporter_up)", "{{source}}"),),
        ),
    ),
)

API = Row(
    title="API",
    panels=(
        Panel(
            title="Requests by status",
            description="Responses per second. 429 and 503 refuse work beyond the limits.",
            unit="reqps",
            width=12,
            stacked=True,
            queries=(Query("sum by (status) (rate(citadel_api_requests_total[$__rate_interval]))", "{{status}}"),),
        ),
        Panel(
            title="Time to answer",
            description="95th percentile by route; the points link to traces.",
            unit="s",
            width=12,
            queries=(
                Query(
                    "histogram_quantile(0.95, sum by (le, route) (rate(citadel_api_seconds_bucket[$__rate_interval])))",
                    "{{route}}",
                    exemplars=True,
                ),
            ),
        ),
    ),
)

PAGE = Dashboard(
    uid="citadel-overview",
    title="Citadel · Overview",
    description="The four queues: backlog by lane, oldest age, rates, failures, waits, saturation; the API.",
    variables=(Variable(name="queue", query="label_values(citadel_queue_workers, queue)"),),
    rows=(GLANCE, WAITING, WORKING, API),
)
