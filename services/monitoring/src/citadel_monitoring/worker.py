"""The monitoring worker process."""

import threading

from citadel_common.history import History
from citadel_common.loop_thread import LoopThread
from citadel_common.settings.common import load
from citadel_common.stores.redis import connect
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.telemetry.pipeline import process_telemetry
from citadel_common.worker.launch import Service, run_worker
from citadel_contracts import Queue
from citadel_monitoring.health.report import HealthReporter
from citadel_monitoring.machine import Machine
from citadel_monitoring.settings import MonitoringSettings
from citadel_monitoring.tasks import MonitoringTasks


def main() -> None:
    """Run the worker until it is told to stop."""
    settings = load(MonitoringSettings)
    with process_telemetry(settings.telemetry, service=Queue.MONITORING.value) as metrics:
        run_worker(Queue.MONITORING, settings, _service(settings), metrics)


def _service(settings: MonitoringSettings) -> Service:
    # The loop outlives every check: what a check gives up on, such as a name that does not resolve, ends there by
    # itself while nobody waits for it.
    loop = LoopThread("checks")
    results = connect(settings.results, settings.stores)
    stopping = threading.Event()

    def start(runtime: TaskRuntime) -> None:
        fragment = settings.monitoring
        machine = Machine(fragment)
        history = History(results, max_entries=fragment.history_entries, ttl=fragment.history_ttl)
        tasks = MonitoringTasks(HealthReporter(settings, machine, loop), machine, history)
        tasks.register(runtime.app)
        threading.Thread(target=tasks.check_until_up, args=(stopping,), name="first-check", daemon=True).start()

    def close() -> None:
        stopping.set()
        loop.close()
        results.close()

    return Service(start=start, interrupt=loop.interrupt, close=close)
