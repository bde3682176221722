"""Dashboard of dead letters: how many, why, and what precedes them."""

from compose.observability.dashboards.panels import Dashboard, Panel, Query, Row, Variable

_QUEUE = '{queue=~"$queue"}'

KEPT = Row(
    title="Kept",
    panels=(
        Panel(
            title="Dead letters",
            description="By queue. `citadel dead-letters list` shows them; requeue each or drop it.",
            unit="short",
            kind="stat",
            width=6,
            bounds=(1, 20),
            queries=(Query(f"sum by (queue) (citadel_dead_letters{_QUEUE})", "{{queue}}"),),
        ),
        Panel(
            title="Within half an hour",
            description="Increase within thirty minutes; an alert fires at five.",
            unit="short",
            kind="stat",
            width=6,
            limits=(None, None),
            bounds=(1, 5),
            queries=(
                Query(
                    f"sum by (queue) (citadel_dead_letters{_QUEUE})"
                    f" - sum by (queue) (citadel_dead_letters{_QUEUE} offset 30m)",
                    "{{queue}}",
                ),
            ),
        ),
        Panel(
            title="By code",
            description="Reason by error code. `deliveries_exhausted`: the worker died at each attempt.",
            unit="short",
            kind="bargauge",
            width=12,
            queries=(Query(f"sum by (queue, code) (citadel_dead_letters{_QUEUE}) > 0", "{{queue}} {{code}}"),),
        ),
    ),
)

COMING = Row(
    title="New dead letters",
    panels=(
        Panel(
            title="Dead letters over time",
            description="Dead letters kept; fewer after a requeue, a drop, or expiry.",
            unit="short",
            width=12,
            stacked=True,
            queries=(Query(f"sum by (queue, code) (citadel_dead_letters{_QUEUE}) > 0", "{{queue}} {{code}}"),),
        ),
        Panel(
            title="New dead letters",
            description="Tasks and messages that became dead letters, within an hour.",
            unit="short",
            width=12,
            stacked=True,
            queries=(
                Query(
                    f"sum by (queue, code) (increase(citadel_put_aside_total{_QUEUE}[1h])) > 0", "{{queue}} {{code}}"
                ),
            ),
        ),
        Panel(
            title="New dead letters by process",
            description="The same, counted by each process since its start: shows which replica is affected.",
            unit="short",
            width=12,
            kind="table",
            queries=(Query("sum by (service, instance, reason) (citadel_dead_letters_total) > 0"),),
        ),
        Panel(
            title="Failures that precede dead letters",
            description="Failures, retries and messages of dead workers per second.",
            unit="ops",
            width=12,
            queries=(
                Query(
                    'sum by (queue, outcome) (rate(citadel_tasks_ended_total{queue=~"$queue",'
                    ' outcome=~"failed|retried|dead_lettered"}[$__rate_interval]))',
                    "{{queue}} {{outcome}}",
                ),
                Query("sum(rate(citadel_reaped_messages_total[$__rate_interval]))", "of dead workers"),
            ),
        ),
    ),
)

PAGE = Dashboard(
    uid="citadel-dead-letters",
    title="Citadel · Dead letters",
    description="Dead letters by queue and code, and the failures that precede them.",
    variables=(Variable(name="queue", query="label_values(citadel_dead_letters, queue)"),),
    rows=(KEPT, COMING),
)
