"""Handlers of the monitoring queue's tasks: check or measure, record the result, return it."""

from datetime import UTC, datetime
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
            self._history.record(kind, datetime.now(UTC), result)
        except ERRORS as error:
            log.warning("history_not_recorded", kind=kind, error=type(error).__name__)


def _log_problems(status: HealthStatus) -> None:
    problems = [each["detail"] for each in status["services"].values() if each["status"] in ("down", "slow")]
    if problems:
        log.warning("health_checked", status=status["status"], problems=problems)
