"""The report of one health check: services, figures of the machine, and what they mean together."""

from citadel_common.timestamps import utc_now
from citadel_contracts.monitoring import HealthStatus, OverallStatus, ServiceReport
from citadel_monitoring.health import rule
from citadel_monitoring.health.check import HealthCheck, Limits
from citadel_monitoring.health.dependencies import dependencies
from citadel_monitoring.loop import LoopThread
from citadel_monitoring.settings import MonitoringSettings
from citadel_monitoring.system.figures import Machine, server_ip


class HealthReporter:
    """Checks what the settings name; thread-safe. The checks run on the loop's thread."""

    def __init__(self, settings: MonitoringSettings, machine: Machine, loop: LoopThread) -> None:
        self._machine = machine
        self._loop = loop
        self._deadline = settings.monitoring.check_deadline
        self._dependencies = dependencies(settings)
        self._check = HealthCheck(self._dependencies, Limits(deadline=self._deadline, slow=settings.monitoring.slow))

    def report(self) -> HealthStatus:
        """One check; the machine is measured meanwhile."""
        call = self._loop.begin(self._check.run())
        figures = self._machine.figures(at_most=self._deadline)
        services = self._loop.result_of(call, self._deadline)
        status = self._overall(services)
        states = {name: each["status"] for name, each in services.items()}
        return {
            "timestamp": utc_now(),
            "server_ip": server_ip(),
            "system_metrics": figures,
            "service_health": rule.seed_health(states),
            "overall_health": status != "down",
            "status": status,
            "services": services,
        }

    def _overall(self, services: dict[str, ServiceReport]) -> OverallStatus:
        return rule.overall((each.group, each.required, services[each.name]["status"]) for each in self._dependencies)
