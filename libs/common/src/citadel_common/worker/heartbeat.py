"""The heartbeat loop of a worker.

Each beat updates the worker registry, publishes the statistics, renews leases, reclaims the messages of dead peers,
learns of revokes and publishes accepted tasks whose message was lost. A Redis that is down never makes a worker
unhealthy: a restart would not help.
"""

import threading
import time
from typing import TYPE_CHECKING

import structlog

from citadel_common.delivery.redelivery import Reclaimer
from citadel_common.delivery.republishing import Republisher
from citadel_common.delivery.worker_registry import WorkerRegistry
from citadel_common.stores.redis import ERRORS, connect
from citadel_common.tasks.app import clock_of
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.tasks.stats import StatsPublisher
from citadel_common.worker.events import WorkerEvents

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)
SWEEP_LOCK = "citadel:accepted:sweep"


class HeartbeatLoop:
    """Two threads that act every `worker.heartbeat_interval` seconds, from `start` to `stop`.

    One keeps the worker alive in its peers' eyes. The other one has what may take long: if a beat had to wait for it,
    peers would take a busy worker to be dead, and its tasks with it.
    """

    def __init__(self, runtime: TaskRuntime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings.worker
        self._broker = connect(runtime.settings.broker_url, runtime.settings.stores)
        self._registry = WorkerRegistry(self._broker)
        self._reclaimer = Reclaimer(self._broker, runtime.metrics, dead_after=self._settings.dead_after)
        self._republisher = Republisher(runtime.app, self._broker, runtime.accepted, runtime.metrics)
        self._stats = StatsPublisher(self._broker, runtime.stats, runtime.identity.id)
        self._events = WorkerEvents(self._broker, runtime)
        self._clock = clock_of(runtime.app)
        self._started_at: float | None = None
        self._stop = threading.Event()
        self._is_seen = False
        self._threads = [
            threading.Thread(target=self._every_interval, args=(act,), name=name, daemon=True)
            for name, act in (("heartbeat", self._keep_alive), ("caretaker", self._look_after))
        ]
        runtime.holdings.announce = lambda: self._try(self._beat, "heartbeat")

    def start(self) -> None:
        """Send the first beat, then start the threads: peers know of the worker before its first task."""
        self._try(self._beat, "heartbeat")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop beating and mark the worker as stopped, so that peers reclaim what it held at once."""
        self._stop.set()
        if not self._threads[0].is_alive():
            return
        for thread in self._threads:
            thread.join(timeout=self._settings.heartbeat_interval)
        self._try(self._stats.flush, "stats")
        self._try(lambda: self._beat(stopped=True), "goodbye")
        if self._settings.remote_control:
            self._try(self._events.goodbye, "goodbye")

    def announce(self) -> None:
        """Send the worker's event to those who watch it, such as Flower."""
        if self._settings.remote_control:
            self._events.beat()

    def _every_interval(self, act: "Callable[[], None]") -> None:
        while True:
            act()
            if self._stop.wait(self._settings.heartbeat_interval):
                return

    def _keep_alive(self) -> None:
        """Do what tells peers that this worker lives; nothing that takes longer may come in between."""
        self._is_seen = self._try(self._beat, "heartbeat")
        self._try(self._renew_leases, "renew")

    def _look_after(self) -> None:
        """Look after the tasks of dead peers and those whose messages are missing, and publish the statistics."""
        if self._is_seen:
            self._try(self._reclaim, "reclaim")
        self._try(self._runtime.learn_revokes, "revokes")
        self._try(self.announce, "events")
        self._try(self._stats.flush, "stats")
        self._try(self._republish, "republish")

    def _try(self, step: "Callable[[], None]", name: str) -> bool:
        try:
            step()
        except ERRORS as error:
            self._reclaimer.lost_connection()
            log.warning("pulse_step_failed", step=name, error=type(error).__name__)
            return False
        except Exception:
            log.exception("pulse_step_crashed", step=name)
            return False
        return True

    def _beat(self, *, stopped: bool = False) -> None:
        self._started_at = self._started_at or self._clock.now()
        running, lease = self._runtime.running, self._runtime.holdings.lease
        asked_at, sent_at = time.monotonic(), lease.now()
        server_time = self._registry.beat(
            self._runtime.identity,
            concurrency=self._settings.concurrency,
            running=len(running.tasks()),
            processed=running.processed,
            failed=running.failed,
            started_at=self._started_at,
            stopped=stopped,
        )
        self._clock.observe(server_time, asked_at=asked_at)
        lease.renewed(sent_at)

    def _reclaim(self) -> None:
        identity = self._runtime.identity
        self._reclaimer.reclaim(own_id=identity.id)
        self._runtime.holdings.peers = self._reclaimer.living[identity.queue]

    def _renew_leases(self) -> None:
        mine = [task.task_id for task in self._runtime.running.tasks() if task.accepted]
        if mine:
            asked_at = time.monotonic()
            renewed = self._runtime.accepted.renew(mine, self._runtime.identity.id)
            self._runtime.running.renewed(renewed, at=asked_at)

    def _republish(self) -> None:
        """Publish accepted tasks whose messages are missing; one worker of the fleet at a time does it."""
        interval = int(self._settings.heartbeat_interval * 1000)
        if not self._runtime.results.set(SWEEP_LOCK, self._runtime.identity.id, nx=True, px=interval):
            return
        self._republisher.look()
