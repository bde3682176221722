"""Builds the service: checks on a loop of their own, figures, history."""

from citadel_common.history import History
from citadel_common.stores.redis import connect
from citadel_common.tasks.runtime import TaskRuntime
from citadel_monitoring.health.report import HealthReporter
from citadel_monitoring.loop import LoopThread
from citadel_monitoring.settings import MonitoringSettings
from citadel_monitoring.system.figures import Machine
from citadel_monitoring.tasks import MonitoringTasks


class MonitoringService:
    """All parts of the monitoring worker, and their end."""

    def __init__(self, settings: MonitoringSettings) -> None:
        self._settings = settings
        self._loop = LoopThread()
        self._results = connect(settings.results, settings.stores)

    def start(self, runtime: TaskRuntime) -> None:
        """Registers the tasks."""
        fragment = self._settings.monitoring
        machine = Machine(fragment)
        history = History(self._results, max_entries=fragment.history_entries, ttl=fragment.history_ttl)
        reporter = HealthReporter(self._settings, machine, self._loop)
        MonitoringTasks(reporter, machine, history).register(runtime.app)

    def interrupt(self) -> None:
        """Hands running checks back."""
        self._loop.interrupt()

    def close(self) -> None:
        """Closes everything."""
        self._loop.close()
        self._results.close()
