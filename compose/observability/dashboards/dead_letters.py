"""What was given up for good, and why."""

from compose.observability.dashboards.panels import Dashboard, Panel, Query, Row, Variable

_QUEUE = '{queue=~"$queue"}'

KEPT = Row(
    title="Kept",
    panels=(
        Panel(
            title="Dead letters",
            description="By queue. `citadel dead-letters list` shows them; each waits to be sent again or dropped.",
            unit="short",
            kind="stat",
            width=6,
            bounds=(1, 20),
            queries=(Query(f"sum by (queue) (citadel_dead_letters{_QUEUE})", "{{queue}}"),),
        ),
        Panel(
            title="Within half an hour",
            description="How many more there are than thirty minutes ago; an alert comes at five.",
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
            description="Why they were given up. `deliveries_exhausted`: the worker died each time it tried.",
            unit="short",
            kind="bargauge",
            width=12,
            queries=(Query(f"sum by (queue, code) (citadel_dead_letters{_QUEUE}) > 0", "{{queue}} {{code}}"),),
        ),
    ),
)

COMING = Row(
    title="Coming",
    panels=(
        Panel(
            title="Dead letters over time",
            description="What is kept; it falls when letters are sent again, dropped, or expire.",
            unit="short",
            width=12,
            stacked=True,
            queries=(Query(f"sum by (queue, code) (citadel_dead_letters{_QUEUE}) > 0", "{{queue}} {{code}}"),),
        ),
        Panel(
            title="Put aside",
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
            title="Put aside, by process",
            description="The same as each process counts it, since it started: which replica is it?",
            unit="short",
            width=12,
            kind="table",
            queries=(Query("sum by (service, instance, reason) (citadel_dead_letters_total) > 0"),),
        ),
        Panel(
            title="Before it comes to that",
            description="Failures, retries and messages of dead workers per second: what precedes dead letters.",
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
    description="Tasks and messages that were put aside, by queue and code, and what precedes them.",
    variables=(Variable(name="queue", query="label_values(citadel_dead_letters, queue)"),),
    rows=(KEPT, COMING),
)
