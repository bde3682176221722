"""Handlers of the monitoring queue's tasks: check or measure, record the result, return it."""

import threading
import time
from typing import TYPE_CHECKING, Any, cast

import structlog

from citadel_common.history import History, Kind
from citadel_common.stores.redis import ERRORS
from citadel_common.tasks.base import TaskContext, register
from citadel_common.timestamps import utc_now
from citadel_contracts import COLLECT_SYSTEM_METRICS, SYSTEM_HEALTH_CHECK
from citadel_contracts.monitoring import (
    CollectSystemMetrics,
    CollectSystemMetricsResult,
    HealthStatus,
    SystemHealthCheck,
    SystemHealthCheckResult,
)
from citadel_monitoring.health.report import HealthReporter
from citadel_monitoring.machine import Machine

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger(__name__)
SETTLING = 120.0
"""Seconds after the start in which servers that are down may still be starting."""
RECHECK = 10.0
"""Seconds between the checks meanwhile."""


class MonitoringTasks:
    """Handlers of the tasks."""

    def __init__(self, reporter: HealthReporter, machine: Machine, history: History) -> None:
        self._reporter = reporter
        self._machine = machine
        self._history = history

    def register(self, app: "Celery") -> None:
        """Register the handlers with an app."""
        register(app, SYSTEM_HEALTH_CHECK, self.system_health_check)
        register(app, COLLECT_SYSTEM_METRICS, self.collect_system_metrics)

    def system_health_check(self, payload: SystemHealthCheck, context: TaskContext) -> SystemHealthCheckResult:
        """Check every service that the settings name."""
        del payload, context  # a check has a deadline of its own, far below a task's
        return self._check()

    def check_until_up(self, stopping: threading.Event) -> None:
        """Check right after the start, and again while servers that start at the same time are not up yet.

        The first periodic check may be minutes away.
        """
        settled = time.monotonic() + SETTLING
        while self._check()["health_status"]["status"] != "ok" and time.monotonic() < settled:
            if stopping.wait(RECHECK):
                return

    def _check(self) -> SystemHealthCheckResult:
        status = self._reporter.report()
        _log_problems(status)
        result: SystemHealthCheckResult = {"success": True, "health_status": status, "timestamp": utc_now()}
        if status["services"]["results"]["status"] != "down":
            self._record("health", cast("dict[str, Any]", result))
        return result

    def collect_system_metrics(self, payload: CollectSystemMetrics, context: TaskContext) -> CollectSystemMetricsResult:
        """Measure processors, memory and disk."""
        del payload, context
        result: CollectSystemMetricsResult = {
            "success": True,
            "metrics": self._machine.metrics(),
            "timestamp": utc_now(),
        }
        self._record("metrics", cast("dict[str, Any]", result))
        return result

    def _record(self, kind: Kind, result: dict[str, Any]) -> None:
        """Add a result to the history; if that fails, the history has a gap and the task still succeeds."""
        try:
            self._history.record(kind, result)
        except ERRORS as error:
            log.warning("history_not_recorded", kind=kind, error=type(error).__name__)


def _log_problems(status: HealthStatus) -> None:
    problems = [each["detail"] for each in status["services"].values() if each["status"] in ("down", "slow")]
    if problems:
        log.warning("health_checked", status=status["status"], problems=problems)
