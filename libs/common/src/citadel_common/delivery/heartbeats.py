"""The worker's pulse: one thread that tells the living from the dead.

Each beat reports to the register, hands over what was counted, renews leases, gives back dead peers' messages and
publishes accepted tasks whose message was lost. Redis being down never makes a worker unhealthy: a restart would not
help.
"""

import threading
import time
from typing import TYPE_CHECKING

import structlog
from celery import Celery

from citadel_common.delivery.accepted_tasks import HEADER as ACCEPTED_HEADER
from citadel_common.delivery.accepted_tasks import TaskMessage
from citadel_common.delivery.reclaiming import Reclaimer
from citadel_common.delivery.worker_registry import WorkerRegistry
from citadel_common.stores.redis import ERRORS, connect
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.telemetry import names, tracing
from citadel_common.worker.stats import StatsPublisher

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)
SWEEP_LOCK = "citadel:accepted:sweep"


class HeartbeatLoop:
    """Beats every `worker.heartbeat_interval` seconds, from `start` to `stop`."""

    def __init__(self, runtime: TaskRuntime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.worker
        self._broker = connect(runtime.settings.broker_url, runtime.settings.stores)
        self._presence = WorkerRegistry(self._broker)
        self._reaper = Reclaimer(runtime.app, self._broker, runtime.metrics, dead_after=self._settings.dead_after)
        self._ledger = StatsPublisher(self._broker, runtime.stats, runtime.identity.id)
        self._started_at = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Starts beating; the first beat comes before the first task, so that its death is noticed."""
        self._try(self._beat, "heartbeat")
        self._thread.start()

    def stop(self) -> None:
        """Stops beating and marks the worker as gone, so that what it still held is taken over at once."""
        self._stop.set()
        if not self._thread.is_alive():
            return
        self._thread.join(timeout=self._settings.heartbeat_interval)
        self._try(self._ledger.flush, "figures")
        self._try(lambda: self._beat(stopped=True), "goodbye")

    def _run(self) -> None:
        while True:
            self._try(self._beat, "heartbeat") and self._try(self._take_over, "take_over")
            self._try(self._ledger.flush, "figures")
            self._try(self._renew_leases, "renew")
            self._try(self._republish, "republish")
            if self._stop.wait(self._settings.heartbeat_interval):
                return

    def _try(self, step: "Callable[[], None]", name: str) -> bool:
        try:
            step()
        except ERRORS as error:
            self._reaper.lost_connection()
            log.warning("pulse_step_failed", step=name, error=type(error).__name__)
            return False
        except Exception:
            log.exception("pulse_step_crashed", step=name)
            return False
        return True

    def _beat(self, *, stopped: bool = False) -> None:
        running = self._runtime.running
        self._presence.beat(
            self._runtime.identity,
            concurrency=self._settings.concurrency,
            running=len(running.tasks()),
            processed=running.processed,
            failed=running.failed,
            started_at=self._started_at,
            stopped=stopped,
        )

    def _take_over(self) -> None:
        self._reaper.reclaim(own_id=self._runtime.identity.id)

    def _renew_leases(self) -> None:
        mine = [task.task_id for task in self._runtime.running.tasks() if task.accepted]
        if mine:
            self._runtime.accepted.renew(mine, self._runtime.identity.id)

    def _republish(self) -> None:
        """One worker of the fleet at a time looks for lost messages."""
        interval = int(self._settings.heartbeat_interval * 1000)
        if not self._runtime.results.set(SWEEP_LOCK, self._runtime.identity.id, nx=True, px=interval):
            return
        for envelope in self._runtime.accepted.take_due():
            publish_accepted(self._runtime.app, envelope)
            self._runtime.metrics.count(names.REPUBLISHED, 1)
            log.warning("accepted_task_republished", task_id=envelope.task_id, looks=envelope.looks)


def publish_accepted(app: Celery, envelope: TaskMessage) -> None:
    """Publishes an accepted task's message, as part of the trace in which it was accepted."""
    with tracing.continuing(envelope.trace):
        app.send_task(
            envelope.name,
            kwargs=envelope.kwargs,
            task_id=envelope.task_id,
            priority=envelope.priority,
            headers=envelope.trace | {ACCEPTED_HEADER: 1},
        )
