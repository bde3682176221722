"""The report of one health check: services, machine, and the overall state.

- `down`: a required service is down. Required are the broker, the result store, PostgreSQL, a Qdrant server if one is
  configured, and one URL of each embedding backend.
- `degraded`: anything else is down, or anything is slow.
- `ok`: otherwise. An embedded Qdrant counts as up: it lives in the orchestration worker.
"""

from collections.abc import Iterable, Mapping

from citadel_common.deadline import Deadline
from citadel_common.loop_thread import LoopThread
from citadel_common.timestamps import utc_now
from citadel_contracts.monitoring import HealthStatus, OverallStatus, ServiceHealth, ServiceReport, ServiceStatus
from citadel_monitoring.health.check import HealthCheck, Limits
from citadel_monitoring.health.dependencies import dependencies
from citadel_monitoring.machine import Machine, server_ip
from citadel_monitoring.settings import MonitoringSettings

EVERY_REDIS = ("broker", "results", "cache")


class HealthReporter:
    """Checks of the dependencies that the settings name; thread-safe. The checks run on the loop's thread."""

    def __init__(self, settings: MonitoringSettings, machine: Machine, loop: LoopThread) -> None:
        self._machine = machine
        self._loop = loop
        self._deadline = settings.monitoring.check_deadline
        self._dependencies = dependencies(settings)
        self._check = HealthCheck(self._dependencies, Limits(deadline=self._deadline, slow=settings.monitoring.slow))

    def report(self) -> HealthStatus:
        """Check the services, measure the machine meanwhile, and return the report."""
        deadline = Deadline.after(self._deadline)
        call = self._loop.submit(self._check.run())
        stats = self._machine.stats(at_most=self._deadline)
        services = self._loop.result(call, deadline)
        status = self._overall(services)
        states = {name: each["status"] for name, each in services.items()}
        return {
            "timestamp": utc_now(),
            "server_ip": server_ip(),
            "system_metrics": stats,
            "service_health": store_health(states),
            "overall_health": status != "down",
            "status": status,
            "services": services,
        }

    def _overall(self, services: dict[str, ServiceReport]) -> OverallStatus:
        return overall_status((each.group, each.required, services[each.name]["status"]) for each in self._dependencies)


def overall_status(services: Iterable[tuple[str, bool, ServiceStatus]]) -> OverallStatus:
    """Return the state of the whole.

    Args:
        services: For each service its group, whether the group is required, and its state. Services of one group
            replace each other.
    """
    states: dict[str, set[ServiceStatus]] = {}
    required: set[str] = set()
    for group, is_required, status in services:
        states.setdefault(group, set()).add(status)
        required |= {group} if is_required else set()
    if any(states[group] == {"down"} for group in required):
        return "down"
    return "degraded" if any(status in ("down", "slow") for found in states.values() for status in found) else "ok"


def store_health(services: Mapping[str, ServiceStatus]) -> ServiceHealth:
    """Return whether the stores answer: every Redis, Qdrant, PostgreSQL."""
    return {
        "redis": all(services[name] != "down" for name in EVERY_REDIS),
        "qdrant": services["qdrant"] != "down",
        "postgres": services["postgres"] != "down",
    }
