"""Dashboard of runs: numbers, outcomes, times of steps, and the sweeper's lag."""

from compose.observability.dashboards.panels import Dashboard, Panel, Query, Row

RUNS = Row(
    title="Runs",
    panels=(
        Panel(
            title="Unfinished runs",
            description="Queued, running and paused runs.",
            unit="short",
            stacked=True,
            queries=(Query('citadel_runs{status=~"queued|running|paused"}', "{{status}}"),),
        ),
        Panel(
            title="Runs of the last ten minutes by state",
            description="Current states of the runs submitted within ten minutes.",
            unit="short",
            stacked=True,
            queries=(Query("citadel_runs_recent", "{{status}}"),),
        ),
        Panel(
            title="Submitted",
            description="Runs submitted per second, including sub-runs and batches.",
            unit="ops",
            queries=(Query("rate(citadel_runs_submitted_total[$__rate_interval])", "runs"),),
        ),
        Panel(
            title="Age of the oldest unfinished run",
            description="Long runs, waits and pauses are normal; an old `queued` run is not.",
            unit="s",
            queries=(Query("citadel_runs_oldest_age_seconds", "{{status}}"),),
        ),
        Panel(
            title="Failed of what ended",
            description="Share of failed runs among those submitted within ten minutes that have ended.",
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
            description="Per second, by kind and state, counted by the workers.",
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
            description="From acceptance to end: median and 95th percentile.",
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
            title="Finished runs kept",
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
            title="Active steps",
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
            description="95th percentile of attempts, by type; the points link to traces.",
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
            description="From a step's message to its start: median and 95th percentile.",
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
            description="Attempts that are repeated: after temporary errors, and when workers stop.",
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
            description="95th percentile of attempts.",
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
            description="95th percentile by pair of the service graph. Only kept traces count.",
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
            title="Sweeper lag",
            description="Age of the oldest expired lease, due step and passed deadline. Seconds are normal.",
            unit="s",
            width=12,
            bounds=(30, 60),
            queries=(Query("max by (kind) (citadel_sweep_lag_seconds)", "{{kind}}"),),
        ),
        Panel(
            title="Steps waiting for the sweeper",
            description="Steps of dead workers, and due steps. A few for a moment are normal.",
            unit="short",
            width=12,
            queries=(Query("max by (kind) (citadel_steps_overdue)", "{{kind}}"),),
        ),
    ),
)

PAGE = Dashboard(
    uid="citadel-workflows",
    title="Citadel · Workflows",
    description="Runs, step times, overhead, retries, and stuck steps.",
    rows=(RUNS, STEPS, STUCK),
)
