"""The process of one candidate: runs in the foreground until SIGTERM or SIGINT."""

import contextlib
import os
import signal
import threading
from types import FrameType

import structlog

from citadel_common import logs
from citadel_common.delivery.worker_registry import WorkerIdentity
from citadel_common.redaction import secrets_of
from citadel_common.settings.common import load
from citadel_common.stores.redis import connect
from citadel_common.supervisor import NULL_SUPERVISOR, Supervisor, supervisor_of
from citadel_common.telemetry.pipeline import metrics_of
from citadel_maintenance.beat.ledger import Ledger
from citadel_maintenance.beat.lock import LeaderLock
from citadel_maintenance.beat.loop import Beat
from citadel_maintenance.beat.messages import Messages
from citadel_maintenance.beat.settings import BeatSettings

log = structlog.get_logger(__name__)
_LONGEST_TURN = 1.0
_TURNS_PER_LOCK = 10
_GOODBYE = 2.0
"""Seconds the release of the lock may take; after that it expires by itself."""
_LAST_SPANS = 5.0
"""Seconds within which the telemetry is closed after that."""


def main() -> None:
    """Runs one candidate; a wrong setting ends it with status 78."""
    settings = load(BeatSettings)
    logs.configure(settings.log, service="beat", secrets=secrets_of(settings))
    with metrics_of(settings.telemetry, service="beat"):
        _run(settings)


def _run(settings: BeatSettings) -> None:
    stop, supervisor = threading.Event(), supervisor_of()
    loop = threading.Thread(target=beat_of(settings, supervisor).run, args=(stop,), name="beat", daemon=True)
    told = _told_to_stop()
    loop.start()
    log.info("beat_ready", entries=sorted(entry.name for entry in settings.beat.entries()))
    os.read(told, 1)
    supervisor.stopping(within=_GOODBYE + _LAST_SPANS)
    log.info("beat_stopping")
    stop.set()
    loop.join(_GOODBYE)


def beat_of(settings: BeatSettings, supervisor: Supervisor = NULL_SUPERVISOR) -> Beat:
    """The candidate that these settings describe."""
    fragment = settings.beat
    client = connect(settings.broker_url, settings.stores)
    token = WorkerIdentity.of_this_process("beat").id
    return Beat(
        fragment.entries(),
        LeaderLock(client, token, ttl=fragment.lock_ttl),
        Ledger(client, token),
        Messages(settings).parcel,
        turn=min(_LONGEST_TURN, fragment.lock_ttl / _TURNS_PER_LOCK),
        health_file=fragment.health_file,
        supervisor=supervisor,
    )


def _told_to_stop() -> int:
    """A descriptor that becomes readable at the first signal: safe where taking a lock in a handler is not."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)

    def handle(_: int, __: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(tell, b"x")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return told
