"""Status of the server that `citadel top` shows, with rates since the last one."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from citadel_client import Citadel
from citadel_client.errors import CallTimedOut, CitadelApiError, ServerUnreachable
from citadel_contracts.api import DeadLetterList, HealthResponse, QueueStats, WorkerInfo
from citadel_contracts.runs import UNFINISHED, RunSummary

T = TypeVar("T")
ROWS = 8
"""Maximum number of unfinished runs."""
FAILED = 3
"""Maximum number of failed runs, and of dead letters."""


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """Status at one moment; parts that the server did not answer are None or empty, and `problems` says why.

    Attributes:
        at: Seconds since the epoch.
        reachable: Whether the server answered at all.
        rates: Tasks ended per second by queue; queues whose workers have sent one heartbeat are missing.
    """

    at: float
    reachable: bool = True
    problems: tuple[str, ...] = ()
    health: HealthResponse | None = None
    queues: Sequence[QueueStats] = ()
    workers: Sequence[WorkerInfo] = ()
    rates: dict[str, float | None] = field(default_factory=dict)
    unfinished: Sequence[RunSummary] = ()
    failed: Sequence[RunSummary] = ()
    dead_letters: DeadLetterList | None = None


@dataclass(frozen=True, kw_only=True)
class _Heartbeat:
    seen_at: str
    processed: int
    rate: float | None = None


class Rates:
    """Tasks per second, computed from the counters in successive heartbeats of workers."""

    def __init__(self) -> None:
        self._heartbeats: dict[str, _Heartbeat] = {}

    def of(self, workers: Sequence[WorkerInfo]) -> dict[str, float | None]:
        """Return the rates by queue, of the workers that were there before."""
        self._heartbeats = {worker.id: self._heartbeat(worker) for worker in workers}
        found: dict[str, float | None] = defaultdict(lambda: None)
        for worker in workers:
            rate = self._heartbeats[worker.id].rate
            if rate is not None:
                found[worker.queue] = (found[worker.queue] or 0.0) + rate
        return dict(found)

    def _heartbeat(self, worker: WorkerInfo) -> _Heartbeat:
        before = self._heartbeats.get(worker.id)
        if before is None:
            return _Heartbeat(seen_at=worker.last_seen_at, processed=worker.processed)
        if before.seen_at == worker.last_seen_at:
            return before
        seconds = _seconds(worker.last_seen_at) - _seconds(before.seen_at)
        rate = max(0.0, (worker.processed - before.processed) / seconds) if seconds > 0 else before.rate
        return _Heartbeat(seen_at=worker.last_seen_at, processed=worker.processed, rate=rate)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


class StatusReader:
    """Reader of a server's status."""

    def __init__(self, citadel: Citadel) -> None:
        self._citadel = citadel
        self._rates = Rates()
        self._problems: list[str] = []

    def read(self) -> ServerStatus:
        """Return the status; a server that does not answer is not an error."""
        self._problems = []
        try:
            return self._read()
        except (ServerUnreachable, CallTimedOut) as error:
            return ServerStatus(at=time.time(), reachable=False, problems=(error.message,))

    def _read(self) -> ServerStatus:
        citadel = self._citadel
        health = self._part("health", citadel.health)
        queues = self._part("queues", citadel.queues)
        workers = self._part("workers", citadel.workers) or []
        runs = self._part("runs", self._unfinished)
        failed = self._part("runs", lambda: list(citadel.runs.list(limit=FAILED, status="failed")))
        dead_letters = self._part("dead letters", lambda: citadel.dead_letters.page(limit=FAILED))
        return ServerStatus(
            at=time.time(),
            problems=tuple(dict.fromkeys(self._problems)),
            health=health,
            queues=queues or (),
            workers=workers,
            rates=self._rates.of(workers),
            unfinished=runs or (),
            failed=failed or (),
            dead_letters=dead_letters,
        )

    def _unfinished(self) -> list[RunSummary]:
        found = [run for status in UNFINISHED for run in self._citadel.runs.list(limit=ROWS, status=status)]
        return sorted(found, key=lambda run: run.created_at, reverse=True)[:ROWS]

    def _part(self, name: str, get: Callable[[], T]) -> T | None:
        """Return one part of the status; None, and a problem noted, if it fails or the key has no scope for it."""
        try:
            return get()
        except (ServerUnreachable, CallTimedOut):
            raise
        except CitadelApiError as error:
            self._problems.append(f"{name}: {error.message}")
            return None
