"""Dashboard of machines, limits, stores, and the observability stack."""

from compose.observability.dashboards.panels import Dashboard, Panel, Query, Row, Variable

_HOST = '{instance=~"$host"}'

MACHINE = Row(
    title="Machine",
    panels=(
        Panel(
            title="Processors in use",
            description="Share of all the machine's processors; waiting for disks does not count.",
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
            description="Running and runnable processes per processor. Above 1 some wait.",
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
            description="Processors by kind of work. `steal` is time taken by other guests of the machine.",
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
            description="By use; cached and buffered memory can be reclaimed.",
            unit="bytes",
            stacked=True,
            queries=(Query(f"sum by (state) (system_memory_usage_bytes{_HOST})", "{{state}}"),),
        ),
        Panel(
            title="Pages fetched from disk",
            description="Major faults and swapping per second; if they persist, memory is short.",
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
            description="Share of time in which the disk was busy.",
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
            description="Use by each process's control group in percent of its limit; only groups with a limit.",
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
            description="Share of time slices in which the limit throttled the group; possible far below 100 % use.",
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
            description="Includes the page cache, reclaimed first: full and steady is fine, a new rise is not.",
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
            description="By each process's control group, page cache included; for groups without a limit too.",
            unit="bytes",
            width=12,
            queries=(Query(f"{_SERVICE} (citadel_cgroup_memory_bytes)", "{{service}} {{instance}}"),),
        ),
        Panel(
            title="Pressure",
            description="Share of time in which some thread waited for a resource. Not available in cgroup version 1.",
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
    title="Processes and stores",
    panels=(
        Panel(
            title="Processes that answer",
            description="By service: processes whose metrics port answers, and processes that the discovery lists.",
            unit="short",
            queries=(
                Query('sum by (service) (up{job=~"citadel-processes|citadel-api"})', "{{service}} up"),
                Query('count by (service) (up{job=~"citadel-processes|citadel-api"})', "{{service}} known"),
            ),
        ),
        Panel(
            title="Saturation of workers",
            description="Running tasks in percent of capacity. Saturated workers on an idle machine: start more.",
            unit="percentunit",
            limits=(0, 1),
            queries=(Query("queue:citadel_saturation:ratio", "{{queue}}"),),
        ),
        Panel(
            title="API processes without PostgreSQL",
            description="They answer requests that need PostgreSQL with 503 at once, and test it every half second.",
            unit="short",
            queries=(Query('sum(citadel_breakers_open{backend="postgresql"})', "processes"),),
        ),
        Panel(
            title="Memory of Redis against its limit",
            description="Broker and results refuse writes when full; the cache evicts, and is normally full.",
            unit="percentunit",
            limits=(0, 1),
            bounds=(0.7, 0.8),
            queries=(Query("citadel_redis_memory_used_bytes / (citadel_redis_memory_limit_bytes > 0)", "{{role}}"),),
        ),
        Panel(
            title="Memory of Redis",
            description="By role; one server may have several roles. Shown for servers without a limit too.",
            unit="bytes",
            queries=(Query("citadel_redis_memory_used_bytes", "{{role}}"),),
        ),
        Panel(
            title="Time to read the stores",
            description="Duration of the exporter's last reading of each store. Tenths of a second are slow.",
            unit="s",
            queries=(Query("max by (source) (citadel_exporter_read_seconds)", "{{source}}"),),
        ),
        Panel(
            title="Failed readings",
            description="Scrapes that a store did not answer in time.",
            unit="ops",
            queries=(Query("sum by (source) (rate(citadel_exporter_errors_total[$__rate_interval]))", "{{source}}"),),
        ),
    ),
)

WATCHERS = Row(
    title="Observability stack",
    panels=(
        Panel(
            title="Spans through the collector",
            description="Received, and sent to Tempo; the difference was not sampled.",
            unit="ops",
            queries=(
                Query("sum(rate(otelcol_receiver_accepted_spans_total[$__rate_interval]))", "received"),
                Query("sum(rate(otelcol_exporter_sent_spans_total[$__rate_interval]))", "sent"),
            ),
        ),
        Panel(
            title="Spans of the processes",
            description="Exported to the collector, refused by it, or dropped because the queue was full.",
            unit="ops",
            queries=(
                Query(
                    "sum by (service, outcome) (rate(citadel_spans_total[$__rate_interval]))", "{{service}} {{outcome}}"
                ),
            ),
        ),
        Panel(
            title="Spans lost",
            description="Refused (memory full), queue full, not sent to Tempo, or dropped before the decision.",
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
            title="Processors used by the stack",
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
    description="Processors, memory and disks of the machine; limits of processes; stores; observability stack.",
    variables=(Variable(name="host", query="label_values(system_cpu_load_average_1m, instance)"),),
    rows=(MACHINE, LIMITS, FLEET, WATCHERS),
)
