"""Contracts of the monitoring queue: the two tasks and their results.

The result keys of the first version are public: plain Celery clients depend on them. All others came later.
"""

from typing import Any, Literal, TypedDict

from citadel_contracts.base import Payload, Queue, TaskSpec

ServiceStatus = Literal["up", "down", "slow", "embedded"]
OverallStatus = Literal["ok", "degraded", "down"]


class SystemHealthCheck(Payload):
    """Arguments of `system_health_check`: none."""


class CollectSystemMetrics(Payload):
    """Arguments of `collect_system_metrics`: none."""


class ServiceReport(TypedDict):
    """The state of one service.

    `latency_ms` is None without an answer. `required` says whether Citadel is down without the service, or without all
    URLs of its embedding backend. `detail` is a sentence that names the service, without credentials.
    """

    status: ServiceStatus
    latency_ms: float | None
    required: bool
    detail: str


class ServiceHealth(TypedDict):
    """State of the stores; `redis` stands for broker, results and cache together."""

    redis: bool
    qdrant: bool
    postgres: bool


class SystemStats(TypedDict):
    """The machine in short: percent, and GiB; within limits (a container's), they are of the limits."""

    cpu_percent: float
    memory_percent: float
    memory_available_gb: float
    disk_percent: float
    disk_free_gb: float


class HealthStatus(TypedDict):
    """The result of a health check.

    `services` has the keys `broker`, `results`, `cache`, `postgres`, `qdrant`, `embeddings/<backend>/<host:port>` and
    `llm/<endpoint>`. `status` is `down` when something required is, `degraded` when anything else is down or slow;
    `overall_health` is whether it is not `down`.
    """

    timestamp: str
    server_ip: str
    system_metrics: SystemStats
    service_health: ServiceHealth
    overall_health: bool
    status: OverallStatus
    services: dict[str, ServiceReport]


class SystemHealthCheckResult(TypedDict):
    """Result of `system_health_check`; it succeeds whatever it finds."""

    success: bool
    health_status: HealthStatus
    timestamp: str


class CpuMetrics(TypedDict):
    """Processors: use in percent of `core_count`, which is a fraction under a limit; load as the kernel counts it."""

    usage_percent: float
    core_count: float
    load_average: tuple[float, float, float] | None
    host_usage_percent: float
    host_core_count: int


class MemoryMetrics(TypedDict):
    """Memory in GiB, and its use in percent, within the limit where there is one."""

    total_gb: float
    available_gb: float
    usage_percent: float
    host_total_gb: float
    host_available_gb: float
    host_usage_percent: float


class DiskMetrics(TypedDict):
    """The file system in GiB, and its use in percent."""

    total_gb: float
    free_gb: float
    usage_percent: float


class SystemMetrics(TypedDict):
    """Measurements of `collect_system_metrics`.

    `cgroup` is the worker's own, None if it has none; its keys: `version`, `cpu_limit_cores`, `throttling`,
    `memory_limit_bytes`, `memory_high_bytes`, `memory_current_bytes`, `memory_used_bytes`, `memory_events`, `pressure`.
    """

    timestamp: str
    server_ip: str
    cpu_metrics: CpuMetrics
    memory_metrics: MemoryMetrics
    disk_metrics: DiskMetrics
    cgroup: dict[str, Any] | None


class CollectSystemMetricsResult(TypedDict):
    """Result of `collect_system_metrics`."""

    success: bool
    metrics: SystemMetrics
    timestamp: str


SOFT_LIMIT = 120.0
HARD_LIMIT = 180.0

SYSTEM_HEALTH_CHECK = TaskSpec(
    name="system_health_check",
    queue=Queue.MONITORING,
    payload=SystemHealthCheck,
    result=SystemHealthCheckResult,
    soft_limit=SOFT_LIMIT,
    hard_limit=HARD_LIMIT,
)
COLLECT_SYSTEM_METRICS = TaskSpec(
    name="collect_system_metrics",
    queue=Queue.MONITORING,
    payload=CollectSystemMetrics,
    result=CollectSystemMetricsResult,
    soft_limit=SOFT_LIMIT,
    hard_limit=HARD_LIMIT,
)
