"""The machines, the stores' memory, and the stack that watches."""

from compose.observability.dashboards.panels import Dashboard, Panel, Query, Row, Variable

_HOST = '{instance=~"$host"}'

MACHINE = Row(
    title="Machine",
    panels=(
        Panel(
            title="Processors in use",
            description="Of all the machine's processors; waiting for disks is not use.",
            unit="percentunit",
            limits=(0, 1),
            bounds=(0.8, 0.95),
            queries=(
                Query(
                    '1 - sum by (instance) (rate(system_cpu_time_seconds_total{instance=~"$host",'
                    ' state=~"idle|wait"}[$__rate_interval]))'
                    f" / sum by (instance) (rate(system_cpu_time_seconds_total{_HOST}[$__rate_interval]))",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            title="Load against processors",
            description="Processes that run or want to, per processor. Above 1 some wait for their turn.",
            unit="short",
            bounds=(1, 2),
            queries=(
                Query(
                    f"sum by (instance) (system_cpu_load_average_1m{_HOST})"
                    f" / sum by (instance) (system_cpu_logical_count{_HOST})",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            title="Processor time by kind",
            description="Processors by what they do. `steal` is what other guests of the machine take.",
            unit="short",
            stacked=True,
            queries=(
                Query(
                    'sum by (state) (rate(system_cpu_time_seconds_total{instance=~"$host",'
                    ' state!="idle"}[$__rate_interval]))',
                    "{{state}}",
                ),
            ),
        ),
        Panel(
            title="Memory",
            description="By use; what is cached or buffered can be had back.",
            unit="bytes",
            stacked=True,
            queries=(Query(f"sum by (state) (system_memory_usage_bytes{_HOST})", "{{state}}"),),
        ),
        Panel(
            title="Pages fetched from disk",
            description="Major faults and swapping per second: memory is short when they last.",
            unit="ops",
            queries=(
                Query(
                    'sum by (type) (rate(system_paging_faults_total{instance=~"$host",'
                    ' type="major"}[$__rate_interval]))',
                    "{{type}} faults",
                ),
                Query(
                    'sum by (direction) (rate(system_paging_operations_total{instance=~"$host",'
                    ' type="major"}[$__rate_interval]))',
                    "{{direction}}",
                ),
            ),
        ),
        Panel(
            title="Disks in use",
            description="Share of time in which the disk had something to do.",
            unit="percentunit",
            limits=(0, 1),
            queries=(
                Query(
                    f"sum by (device) (rate(system_disk_io_time_seconds_total{_HOST}[$__rate_interval]))", "{{device}}"
                ),
            ),
        ),
    ),
)

_SERVICE = "sum by (service, instance)"
LIMITS = Row(
    title="Limits",
    panels=(
        Panel(
            title="Processors against their limit",
            description="Used by each process's control group, of what it may use; those without a limit are not here.",
            unit="percentunit",
            bounds=(0.8, 0.95),
            queries=(
                Query(
                    f"{_SERVICE} (rate(citadel_cgroup_cpu_seconds_total[$__rate_interval]))"
                    f" / ({_SERVICE} (citadel_cgroup_cpu_limit_cores) > 0)",
                    "{{service}} {{instance}}",
                ),
            ),
        ),
        Panel(
            title="Throttled",
            description="Time slices in which the limit held the control group up. Well below 100 % of use, too.",
            unit="percentunit",
            limits=(0, 1),
            bounds=(0.1, 0.25),
            queries=(
                Query(
                    f"{_SERVICE} (rate(citadel_cgroup_cpu_throttled_periods_total[$__rate_interval]))"
                    f" / ({_SERVICE} (rate(citadel_cgroup_cpu_periods_total[$__rate_interval])) > 0)",
                    "{{service}} {{instance}}",
                ),
            ),
        ),
        Panel(
            title="Memory against its limit",
            description="Page cache included, which is given up first: full and steady is well, rising anew is not.",
            unit="percentunit",
            limits=(0, 1),
            bounds=(0.8, 0.95),
            queries=(
                Query(
                    f"{_SERVICE} (citadel_cgroup_memory_bytes) / ({_SERVICE} (citadel_cgroup_memory_limit_bytes) > 0)",
                    "{{service}} {{instance}}",
                ),
            ),
        ),
        Panel(
            title="Memory in use",
            description="By each process's control group, page cache included; all there is where no limit is set.",
            unit="bytes",
            width=12,
            queries=(Query(f"{_SERVICE} (citadel_cgroup_memory_bytes)", "{{service}} {{instance}}"),),
        ),
        Panel(
            title="Pressure",
            description="Share of time in which some thread waited for a resource. Not told by cgroup version 1.",
            unit="percentunit",
            width=12,
            limits=(0, 1),
            queries=(
                Query(
                    "max by (service, resource) (rate(citadel_cgroup_pressure_seconds_total[$__rate_interval]))",
                    "{{service}} {{resource}}",
                ),
            ),
        ),
    ),
)

FLEET = Row(
    title="Fleet",
    panels=(
        Panel(
            title="Processes that answer",
            description="Of each service: those whose metrics port answers, and those that are there by name.",
            unit="short",
            queries=(
                Query('sum by (service) (up{job=~"citadel-processes|citadel-api"})', "{{service}} up"),
                Query('count by (service) (up{job=~"citadel-processes|citadel-api"})', "{{service}} known"),
            ),
        ),
        Panel(
            title="Saturation of workers",
            description="Tasks that run, of those that could. Full workers on an idle machine want more of them.",
            unit="percentunit",
            limits=(0, 1),
            queries=(Query("queue:citadel_saturation:ratio", "{{queue}}"),),
        ),
        Panel(
            title="API processes without PostgreSQL",
            description="They answer what needs the record with 503 at once, and look every half second.",
            unit="short",
            queries=(Query('sum(citadel_breakers_open{backend="postgresql"})', "processes"),),
        ),
        Panel(
            title="Memory of Redis against its limit",
            description="Broker and results refuse writes when full; the cache evicts, and is meant to be full.",
            unit="percentunit",
            limits=(0, 1),
            bounds=(0.7, 0.8),
            queries=(Query("citadel_redis_memory_used_bytes / (citadel_redis_memory_limit_bytes > 0)", "{{role}}"),),
        ),
        Panel(
            title="Memory of Redis",
            description="By role; one server may have several. It is all there is where no limit is set.",
            unit="bytes",
            queries=(Query("citadel_redis_memory_used_bytes", "{{role}}"),),
        ),
        Panel(
            title="Time to read the stores",
            description="How long the exporter's last reading of each store took. Tenths of a second are a lot.",
            unit="s",
            queries=(Query("max by (source) (citadel_exporter_read_seconds)", "{{source}}"),),
        ),
        Panel(
            title="Readings that failed",
            description="Scrapes that a store did not answer in time.",
            unit="ops",
            queries=(Query("sum by (source) (rate(citadel_exporter_errors_total[$__rate_interval]))", "{{source}}"),),
        ),
    ),
)

WATCHERS = Row(
    title="What watches",
    panels=(
        Panel(
            title="Spans through the collector",
            description="Received, and sent on to Tempo: what is between them was not kept.",
            unit="ops",
            queries=(
                Query("sum(rate(otelcol_receiver_accepted_spans_total[$__rate_interval]))", "received"),
                Query("sum(rate(otelcol_exporter_sent_spans_total[$__rate_interval]))", "sent"),
            ),
        ),
        Panel(
            title="Spans of the processes",
            description="Handed to the collector, not taken by it, or dropped because the queue was full.",
            unit="ops",
            queries=(
                Query(
                    "sum by (service, outcome) (rate(citadel_spans_total[$__rate_interval]))", "{{service}} {{outcome}}"
                ),
            ),
        ),
        Panel(
            title="Spans lost",
            description="Refused for want of memory, queue full, not taken by Tempo, or pushed out unjudged.",
            unit="ops",
            queries=(
                Query("sum(rate(otelcol_receiver_refused_spans_total[$__rate_interval]))", "refused"),
                Query("sum(rate(otelcol_exporter_enqueue_failed_spans_total[$__rate_interval]))", "queue full"),
                Query("sum(rate(otelcol_exporter_send_failed_spans_total[$__rate_interval]))", "not taken"),
                Query(
                    "sum(rate(otelcol_processor_tail_sampling_sampling_trace_dropped_too_early_total"
                    "[$__rate_interval]))",
                    "traces unjudged",
                ),
            ),
        ),
        Panel(
            title="The stack's own processors",
            description="Processors used by collector, Tempo, Loki, Prometheus and Grafana.",
            unit="short",
            stacked=True,
            queries=(
                Query('sum by (job) (rate(process_cpu_seconds_total{job!~"citadel-.*"}[$__rate_interval]))', "{{job}}"),
                Query("sum by (job) (rate(otelcol_process_cpu_seconds_total[$__rate_interval]))", "{{job}}"),
            ),
        ),
    ),
)

PAGE = Dashboard(
    uid="citadel-hosts",
    title="Citadel · Hosts",
    description="Processors, memory and disks of the machine; limits of processes, stores, and the stack that watches.",
    variables=(Variable(name="host", query="label_values(system_cpu_load_average_1m, instance)"),),
    rows=(MACHINE, LIMITS, FLEET, WATCHERS),
)
