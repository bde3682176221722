"""The launch of one Celery worker: a thread pool, one queue, a graceful stop."""

import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from celery import signals
from celery.platforms import SecurityWarning

from citadel_common import logs
from citadel_common.delivery.worker_registry import WorkerIdentity, held_message_keys
from citadel_common.redaction import secrets_of
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.startup_checks import refuse_unusable
from citadel_common.supervisor import Supervisor, supervisor_of
from citadel_common.tasks.app import create_app
from citadel_common.tasks.builtin import BuiltinTasks
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.telemetry import NULL_METRICS, Metrics
from citadel_common.worker.health import Health
from citadel_common.worker.heartbeat import HeartbeatLoop
from citadel_common.worker.panel import Panel
from citadel_common.worker.pool import GuardedPool
from citadel_common.worker.remote_control import RemoteControl
from citadel_common.worker.revocations import Revocations
from citadel_common.worker.timer_release import TimerRelease
from citadel_contracts import Queue

log = structlog.get_logger(__name__)
LAST_RESORT = 10.0
"""Seconds after the grace period at which a worker that still runs is ended; peers take over what it held."""

GOODBYE = 5.0
"""Seconds after that within which its process is gone."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """The callbacks of a service in its worker.

    Attributes:
        start: Called once, before the first task, with the runtime; registers the tasks.
        interrupt: Called when the grace of a stop is over: running work must end now.
        close: Called last.
        revoke: Called with the ids of revoked tasks, to end what they began elsewhere than in their threads; those of
            other services and of tasks long ended are among them. It is called again if it raises a `CitadelError`.
    """

    start: Callable[[TaskRuntime], None]
    interrupt: Callable[[], None]
    close: Callable[[], None]
    revoke: Callable[[Sequence[str]], None] = lambda _: None


def run_worker(queue: Queue, settings: CommonSettings, service: Service, metrics: Metrics = NULL_METRICS) -> None:
    """Run a worker until SIGTERM or SIGINT."""
    logs.configure(settings.log, service=queue.value, secrets=secrets_of(settings))
    refuse_unusable(settings)
    signals.setup_logging.connect(_keep_logging, weak=False)
    # Its reason, pickled messages, does not apply: only JSON is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    identity = WorkerIdentity.of_this_process(queue.value)
    app = create_app(settings, queue=queue, **held_message_keys(identity.id))
    runtime = TaskRuntime.create(app, settings, identity, metrics)
    app.conf.broker_transport_options |= {
        "holdings": runtime.holdings,
        "on_malformed": runtime.dead_letter_raw,
        "on_wrong_key": runtime.wrong_key,
    }
    runtime.interrupt = service.interrupt
    supervisor = supervisor_of()
    health = Health(runtime, supervisor)
    health.start()
    BuiltinTasks(runtime).register(app)
    service.start(runtime)
    revocations = Revocations(runtime, service.revoke)
    runtime.learn_revokes = revocations.learn
    revocations.start()
    heartbeat = HeartbeatLoop(runtime)
    timers = TimerRelease(runtime)
    _when_ready(runtime, heartbeat, timers, health)
    _on_stop_signal(runtime, service, supervisor)
    worker = app.Worker(**_options(queue, settings, identity))
    if settings.worker.remote_control:
        _listen(runtime, revocations, heartbeat, worker)
    try:
        worker.start()
    finally:
        service.close()
        timers.stop()
        heartbeat.stop()
        health.stop()


def _listen(runtime: TaskRuntime, revocations: Revocations, heartbeat: HeartbeatLoop, worker: Any) -> None:
    """Answer Celery's remote control."""

    def prefetch() -> int:
        qos = getattr(getattr(worker, "consumer", None), "qos", None)
        return getattr(qos, "value", 0)

    panel = Panel(runtime, revocations, heartbeat.announce, prefetch)
    learn_all = functools.partial(revocations.learn, all_of_them=True)
    RemoteControl(runtime, panel.answer, learn_all).start()


def _keep_logging(**_: Any) -> None:
    """Keep Celery from setting up logging: it does not while this signal has a receiver."""


def _options(queue: Queue, settings: CommonSettings, identity: WorkerIdentity) -> dict[str, Any]:
    """Return the options of the worker program; its command line would load a shell that no worker needs."""
    return {
        "hostname": identity.id,
        "pool_cls": GuardedPool,
        "concurrency": settings.worker.concurrency,
        "queues": [queue.value],
        "loglevel": settings.log.level.upper(),
        "quiet": True,
        "task_events": settings.worker.task_events,
        "without_gossip": True,
        "without_mingle": True,
        "without_heartbeat": True,
    }


def _when_ready(runtime: TaskRuntime, heartbeat: HeartbeatLoop, timers: TimerRelease, health: Health) -> None:
    """Start the heartbeat and the timers when the consumer is ready, and report readiness after the first beat."""

    def ready(**_: Any) -> None:
        heartbeat.start()
        timers.start()
        health.ready()
        log.info("worker_ready", worker=runtime.identity.id, concurrency=runtime.settings.worker.concurrency)

    signals.worker_ready.connect(ready, weak=False)


def _on_stop_signal(runtime: TaskRuntime, service: Service, supervisor: Supervisor) -> None:
    """Stop the worker in steps when the process is told to."""

    def stopping(**_: Any) -> None:
        """Celery calls this in its signal handler, so logging, which may fail there, comes last."""
        runtime.stopping.set()
        grace = runtime.settings.worker.stop_grace
        _later(grace, service.interrupt)
        _later(grace + LAST_RESORT, _end_process)
        supervisor.stopping(within=grace + LAST_RESORT + GOODBYE)
        log.info("worker_stopping", running=len(runtime.running.tasks()))

    signals.worker_shutting_down.connect(stopping, weak=False)


def _later(seconds: float, action: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


def _end_process() -> None:
    log.error("worker_ended_by_force")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
