"""What `citadel top` shows: the server's figures at one moment, and rates from one moment to the next."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from citadel_client import Citadel
from citadel_client.errors import CallTimedOut, CitadelApiError, ServerUnreachable
from citadel_contracts.api import DeadLetterList, HealthResponse, QueueStats, WorkerInfo
from citadel_contracts.runs import RunStatus, RunSummary

T = TypeVar("T")
ROWS = 8
"""Runs, and dead letters, of one kind."""
FAILED = 3
UNFINISHED: tuple[RunStatus, ...] = ("queued", "running", "paused")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The server at one moment; what it did not tell is None or empty, and `problems` say why.

    Attributes:
        at: Seconds since the epoch.
        reachable: Whether it answered at all.
        rates: Tasks ended per second by queue; None where two heartbeats have not been seen yet.
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
    letters: DeadLetterList | None = None


@dataclass(frozen=True, kw_only=True)
class _Count:
    seen_at: str
    processed: int
    rate: float | None = None


class Rates:
    """Tasks per second, from what workers say of themselves in successive heartbeats."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def of(self, workers: Sequence[WorkerInfo]) -> dict[str, float | None]:
        """By queue; workers that are seen for the first time, or have gone, do not count."""
        self._counts = {worker.id: self._count(worker) for worker in workers}
        found: dict[str, float | None] = defaultdict(lambda: None)
        for worker in workers:
            rate = self._counts[worker.id].rate
            if rate is not None:
                found[worker.queue] = (found[worker.queue] or 0.0) + rate
        return dict(found)

    def _count(self, worker: WorkerInfo) -> _Count:
        before = self._counts.get(worker.id)
        if before is None:
            return _Count(seen_at=worker.last_seen_at, processed=worker.processed)
        if before.seen_at == worker.last_seen_at:
            return before
        seconds = _seconds(worker.last_seen_at) - _seconds(before.seen_at)
        rate = max(0.0, (worker.processed - before.processed) / seconds) if seconds > 0 else before.rate
        return _Count(seen_at=worker.last_seen_at, processed=worker.processed, rate=rate)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


class Observer:
    """Takes snapshots of a server."""

    def __init__(self, citadel: Citadel) -> None:
        self._citadel = citadel
        self._rates = Rates()
        self._problems: list[str] = []

    def look(self) -> Snapshot:
        """The server now; never fails."""
        self._problems = []
        try:
            return self._look()
        except (ServerUnreachable, CallTimedOut) as error:
            return Snapshot(at=time.time(), reachable=False, problems=(error.message,))

    def _look(self) -> Snapshot:
        citadel = self._citadel
        health = self._asked("health", citadel.health)
        queues = self._asked("queues", citadel.queues)
        workers = self._asked("workers", citadel.workers) or []
        runs = self._asked("runs", self._unfinished)
        failed = self._asked("runs", lambda: list(citadel.runs.list(limit=FAILED, status="failed")))
        letters = self._asked("dead letters", lambda: citadel.dead_letters.page(limit=FAILED))
        return Snapshot(
            at=time.time(),
            problems=tuple(dict.fromkeys(self._problems)),
            health=health,
            queues=queues or (),
            workers=workers,
            rates=self._rates.of(workers),
            unfinished=runs or (),
            failed=failed or (),
            letters=letters,
        )

    def _unfinished(self) -> list[RunSummary]:
        found = [run for status in UNFINISHED for run in self._citadel.runs.list(limit=ROWS, status=status)]
        return sorted(found, key=lambda run: run.created_at, reverse=True)[:ROWS]

    def _asked(self, what: str, question: Callable[[], T]) -> T | None:
        """The answer; a part that fails, or that the key may not see, leaves the others alone."""
        try:
            return question()
        except (ServerUnreachable, CallTimedOut):
            raise
        except CitadelApiError as error:
            self._problems.append(f"{what}: {error.message}")
            return None
