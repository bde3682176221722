"""Runs: how many, how they end, what their steps wait for, and whether the sweep keeps up."""

from compose.observability.dashboards.panels import Dashboard, Panel, Query, Row

RUNS = Row(
    title="Runs",
    panels=(
        Panel(
            title="Unfinished runs",
            description="Queued, running and paused runs in the record.",
            unit="short",
            stacked=True,
            queries=(Query('citadel_runs{status=~"queued|running|paused"}', "{{status}}"),),
        ),
        Panel(
            title="Runs of the last ten minutes by state",
            description="Where the runs are that were submitted within ten minutes.",
            unit="short",
            stacked=True,
            queries=(Query("citadel_runs_recent", "{{status}}"),),
        ),
        Panel(
            title="Submitted",
            description="Runs recorded per second, sub-runs and batches included.",
            unit="ops",
            queries=(Query("rate(citadel_runs_submitted_total[$__rate_interval])", "runs"),),
        ),
        Panel(
            title="Age of the oldest unfinished run",
            description="Long runs, waits and pauses are normal; a `queued` one that grows old is not.",
            unit="s",
            queries=(Query("citadel_runs_oldest_age_seconds", "{{status}}"),),
        ),
        Panel(
            title="Failed of what ended",
            description="Of the runs submitted within ten minutes that have ended.",
            unit="percentunit",
            limits=(0, 1),
            bounds=(0.05, 0.2),
            queries=(
                Query(
                    'sum(citadel_runs_recent{status=~"failed|timed_out"})'
                    ' / (sum(citadel_runs_recent{status=~"succeeded|failed|timed_out"}) > 0)',
                    "failed or timed out",
                ),
            ),
        ),
        Panel(
            title="Runs that end",
            description="Per second, by kind and state; as the workers count them.",
            unit="ops",
            stacked=True,
            queries=(
                Query(
                    "sum by (kind, outcome) (rate(citadel_runs_ended_total[$__rate_interval]))", "{{kind}} {{outcome}}"
                ),
            ),
        ),
        Panel(
            title="Time of runs",
            description="From acceptance to end: the median, and what one run in twenty exceeds.",
            unit="s",
            queries=tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le, kind)"
                    " (rate(citadel_run_seconds_bucket[$__rate_interval])))",
                    f"{{{{kind}}}} p{round(share * 100)}",
                    exemplars=True,
                )
                for share in (0.5, 0.95)
            ),
        ),
        Panel(
            title="Finished runs in the record",
            description="By state; retention removes old ones.",
            unit="short",
            queries=(Query('citadel_runs{status!~"queued|running|paused"}', "{{status}}"),),
        ),
    ),
)

STEPS = Row(
    title="Steps",
    panels=(
        Panel(
            title="Steps under way",
            description="Ready, running, or waiting for a time (retries, `wait` steps).",
            unit="short",
            stacked=True,
            queries=(Query("citadel_steps", "{{status}}"),),
        ),
        Panel(
            title="Steps that end",
            description="Attempts per second, by type and outcome. `lost`: the worker died; `retried`: tried again.",
            unit="ops",
            stacked=True,
            queries=(
                Query(
                    "sum by (type, outcome) (rate(citadel_step_attempts_total[$__rate_interval]))",
                    "{{type}} {{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Time of steps",
            description="What one attempt in twenty exceeds, by type; the points lead to traces.",
            unit="s",
            queries=(
                Query(
                    "histogram_quantile(0.95, sum by (le, type) (rate(citadel_step_seconds_bucket[$__rate_interval])))",
                    "{{type}}",
                    exemplars=True,
                ),
            ),
        ),
        Panel(
            title="Overhead: wait for a worker",
            description="From a step's message to its start: the median, and what one in twenty exceeds.",
            unit="s",
            queries=tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le, task) (rate(citadel_task_queue_wait_seconds_bucket"
                    '{task=~"execute_workflow|citadel.run_step|citadel.embed_steps?"}[$__rate_interval])))',
                    f"{{{{task}}}} p{round(share * 100)}",
                )
                for share in (0.5, 0.95)
            ),
        ),
        Panel(
            title="Retried and handed back",
            description="Attempts of tasks that end to be made again: errors that can pass, and workers that stop.",
            unit="ops",
            queries=(
                Query(
                    'sum by (task, outcome) (rate(citadel_tasks_ended_total{queue="orchestration",'
                    ' outcome=~"retried|handed_back"}[$__rate_interval])) > 0',
                    "{{task}} {{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Run time of the engine's tasks",
            description="What one attempt in twenty exceeds.",
            unit="s",
            queries=(
                Query(
                    "histogram_quantile(0.95, sum by (le, task)"
                    ' (rate(citadel_task_runtime_seconds_bucket{queue="orchestration"}[$__rate_interval])))',
                    "{{task}}",
                ),
            ),
        ),
        Panel(
            title="Calls between services",
            description="What one call in twenty exceeds, by the service graph's pairs. Only kept traces count.",
            unit="s",
            queries=(
                Query(
                    "histogram_quantile(0.95, sum by (le, client, server)"
                    " (rate(traces_service_graph_request_server_seconds_bucket[$__rate_interval])))",
                    "{{client}} → {{server}}",
                ),
            ),
        ),
    ),
)

STUCK = Row(
    title="Stuck",
    panels=(
        Panel(
            title="How far the sweep is behind",
            description="Age of the oldest expired lease, due step and passed deadline. Seconds are normal.",
            unit="s",
            width=12,
            bounds=(30, 60),
            queries=(Query("max by (kind) (citadel_sweep_lag_seconds)", "{{kind}}"),),
        ),
        Panel(
            title="Steps that the sweep should take",
            description="Of dead workers, or due. A few for a moment are normal.",
            unit="short",
            width=12,
            queries=(Query("max by (kind) (citadel_steps_overdue)", "{{kind}}"),),
        ),
    ),
)

PAGE = Dashboard(
    uid="citadel-workflows",
    title="Citadel · Workflows",
    description="Runs, step times, overhead, retries, and what is stuck.",
    rows=(RUNS, STEPS, STUCK),
)
