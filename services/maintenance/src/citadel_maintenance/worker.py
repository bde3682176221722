"""The maintenance worker process.

Two threads are enough. Every clean-up works in batches of milliseconds and checks its time limit and the worker's
stop between them, so no task needs a process of its own that could be ended from outside.
"""

from citadel_common.settings.common import load
from citadel_common.stores.postgres import Database
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.telemetry import Metrics
from citadel_common.telemetry.pipeline import process_telemetry
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import Queue
from citadel_maintenance.jobs.runner import JobRunner
from citadel_maintenance.settings import MaintenanceSettings
from citadel_maintenance.stores import Stores
from citadel_maintenance.tasks import MaintenanceTasks


def main() -> None:
    """Run the worker until it is told to stop."""
    settings = load(MaintenanceSettings)
    with process_telemetry(settings.telemetry, service=Queue.MAINTENANCE.value) as metrics:
        run_worker(Queue.MAINTENANCE, settings, _service(settings, metrics), metrics)


def _service(settings: MaintenanceSettings, metrics: Metrics) -> Service:
    stores = Stores.connect(settings)
    database = Database(settings.postgres_dsn, settings.postgres, name="maintenance", metrics=metrics)

    def start(runtime: TaskRuntime) -> None:
        database.open()
        runner = JobRunner(runtime, stores.results, settings.maintenance)
        MaintenanceTasks(runner, stores, database, settings, metrics).register(runtime.app)

    def close() -> None:
        database.close()
        stores.close()

    # After the grace, work that still runs loses its connections: its batch either was committed or is rolled back.
    return Service(start=start, interrupt=close, close=close)
