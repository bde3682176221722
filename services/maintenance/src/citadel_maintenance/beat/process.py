"""The process of one candidate, in the foreground until SIGTERM or SIGINT."""

import contextlib
import os
import signal
import threading
from types import FrameType

import structlog

from citadel_common import logs
from citadel_common.delivery.server_clock import ServerClock
from citadel_common.delivery.worker_registry import WorkerIdentity
from citadel_common.redaction import secrets_of
from citadel_common.settings.common import load
from citadel_common.stores.redis import connect
from citadel_common.stores.startup_checks import refuse_unusable
from citadel_common.supervisor import NULL_SUPERVISOR, Supervisor, supervisor_of
from citadel_common.telemetry.pipeline import process_telemetry
from citadel_maintenance.beat.ledger import Ledger
from citadel_maintenance.beat.lock import LeaderLock
from citadel_maintenance.beat.loop import Beat
from citadel_maintenance.beat.messages import MessageFactory
from citadel_maintenance.beat.settings import BeatSettings

log = structlog.get_logger(__name__)
_LONGEST_TURN = 1.0
_TURNS_PER_LOCK = 10
_RELEASE_LIMIT = 2.0
"""Seconds the release of the lock may take; after that the lock expires by itself."""
_TELEMETRY_LIMIT = 5.0
"""Seconds within which the telemetry is closed after that."""


def main() -> None:
    """Run one candidate; exit with status 78 if a setting is wrong."""
    settings = load(BeatSettings)
    logs.configure(settings.log, service="beat", secrets=secrets_of(settings))
    refuse_unusable(settings, uses_cache=False)
    with process_telemetry(settings.telemetry, service="beat"):
        _run(settings)


def _run(settings: BeatSettings) -> None:
    stop, supervisor = threading.Event(), supervisor_of()
    # A daemon: a Redis that hangs in the middle of a call must not hold up the end of the process.
    loop = threading.Thread(target=beat_of(settings, supervisor).run, args=(stop,), name="beat", daemon=True)
    signalled = _stop_signals()
    loop.start()
    log.info("beat_ready", entries=sorted(entry.name for entry in settings.beat.entries()))
    os.read(signalled, 1)
    supervisor.stopping(within=_RELEASE_LIMIT + _TELEMETRY_LIMIT)
    log.info("beat_stopping")
    stop.set()
    loop.join(_RELEASE_LIMIT)


def beat_of(settings: BeatSettings, supervisor: Supervisor = NULL_SUPERVISOR) -> Beat:
    """Return the candidate that the settings describe."""
    fragment = settings.beat
    client = connect(settings.broker_url, settings.stores)
    token = WorkerIdentity.of_this_process("beat").id
    return Beat(
        fragment.entries(),
        LeaderLock(client, token, ttl=fragment.lock_ttl),
        Ledger(client, token),
        MessageFactory(settings).build,
        now=ServerClock(client).now,
        turn=min(_LONGEST_TURN, fragment.lock_ttl / _TURNS_PER_LOCK),
        health_file=fragment.health_file,
        supervisor=supervisor,
    )


def _stop_signals() -> int:
    """Return a file descriptor that becomes readable at the first SIGTERM or SIGINT.

    A handler runs between any two instructions of the main thread. Setting an event there could wait for a lock that
    the interrupted code holds; writing to a pipe takes no lock.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)

    def handle(_: int, __: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writable, b"x")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return readable
