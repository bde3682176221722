"""Admission of new runs: the backlog of steps that nobody has begun, and the bytes that are stored, have limits.

Only submissions are refused. What belongs to a run that was accepted (its steps, items and sub-runs) goes on.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog
from psycopg.errors import QueryCanceled

from citadel_common.errors import Overloaded, StorageFull
from citadel_common.stores.postgres import Cursor, Database
from citadel_common.telemetry import NULL_METRICS, Metrics, names
from citadel_orchestration.db import capacity

if TYPE_CHECKING:
    from citadel_orchestration.settings import EngineSettings

log = structlog.get_logger(__name__)
T = TypeVar("T")
BACKLOG_FRESH = 1.0
"""Seconds that a count of steps is used; runs taken meanwhile are added to it."""
AT_LIMIT = 0.25
"""Seconds that it is used once it has reached the limit."""
SPARED = 10
"""Times that a reading took, in which it is not repeated."""
STORAGE_FRESH = 5.0
"""Seconds that a measure of the stored bytes is used."""
MOST_KEYS = 1000
"""Concurrency keys whose counts are kept; the least recently used ones go first."""
FREED = 0.1
"""Share of the limit that is to be free again when a refused caller comes back."""
SHORTEST, LONGEST = 1.0, 60.0
"""Bounds of the seconds after which a refused caller is told to come back."""


class Reading(Generic[T]):
    """A value read from the database and kept for some seconds; thread-safe.

    While one thread reads it again, the others use the last value. A value that took long to read is kept for longer.
    """

    def __init__(self, database: Database, read: Callable[[Cursor], T], *, fresh: float) -> None:
        self._database = database
        self._read = read
        self._fresh = fresh
        self._lock = threading.Lock()
        self._value: T | None = None
        self._read_at = float("-inf")
        self._took = 0.0

    def get(self, *, fresh: float | None = None) -> T:
        """Return the value, read again if it is older than `fresh` seconds, where these are given.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        value, fresh = self._value, max(self._fresh if fresh is None else fresh, SPARED * self._took)
        if value is not None and (self._age < fresh or not self._lock.acquire(blocking=False)):
            return value
        if value is None:
            self._lock.acquire()
        try:
            if self._value is None or self._age >= fresh:
                started = time.monotonic()
                with self._database.cursor() as cursor:
                    self._value = self._read(cursor)
                self._read_at = time.monotonic()
                self._took = self._read_at - started
            return self._value
        finally:
            self._lock.release()

    @property
    def _age(self) -> float:
        return time.monotonic() - self._read_at


@dataclass(frozen=True, kw_only=True)
class StorageUse:
    """Bytes in use in PostgreSQL, or those allocated on its disk while these are below the limit; None: no limit."""

    bytes: int
    limit: int | None

    @property
    def is_full(self) -> bool:
        """Return whether no more is to be stored."""
        return self.limit is not None and self.bytes >= self.limit

    def __str__(self) -> str:
        """Return the use for messages."""
        used = f"{self.bytes / 2**20:.1f} MiB"
        return used if self.limit is None else f"{used} of {self.limit / 2**20:.1f} MiB"


class RunAdmission:
    """Refuses new runs while too many steps wait or too many bytes are stored; thread-safe.

    Args:
        database: Of the runs.
        settings: Of the process.
        metrics: Counts refusals.
    """

    def __init__(self, database: Database, settings: "EngineSettings", metrics: Metrics = NULL_METRICS) -> None:
        self._database = database
        self._max_of_key = settings.workflows.max_runs_per_key
        self._keys: dict[str, Reading[int]] = {}
        self._max_backlog = settings.workflows.max_backlog
        self._max_of_caller = settings.workflows.max_backlog_per_caller
        self._max_bytes = settings.storage.max_bytes
        self._metrics = metrics
        self._ready = Reading(
            database, lambda cursor: capacity.unbegun_steps(cursor, most=self._max_backlog), fresh=BACKLOG_FRESH
        )
        self._lock = threading.Lock()
        self._counted: capacity.UnbegunSteps | None = None
        self._taken: Counter[str] = Counter()
        self._bytes = Reading(database, self._measure, fresh=STORAGE_FRESH)
        self._measured = 0

    def check(self, caller: str | None) -> None:
        """Check that a run of `caller` is taken; None for a Celery task.

        Raises:
            Overloaded: Too many steps wait.
            StorageFull: Too many bytes are stored.
            StoreUnavailable: PostgreSQL does not answer.
        """
        self.check_storage()
        name = caller or ""
        refusal = self._refusal(self._ready.get(), name)
        if refusal is not None:
            refusal = self._refusal(self._ready.get(fresh=AT_LIMIT), name)
        if refusal is not None:
            self._metrics.count(names.REFUSED, 1, reason="backlog")
            raise refusal

    def _refusal(self, ready: capacity.UnbegunSteps, caller: str) -> Overloaded | None:
        """Return why a run of the caller is not taken; else count it as taken."""
        with self._lock:
            if self._counted is not ready:
                self._counted, self._taken = ready, Counter()
            total, mine = ready.total + self._taken.total(), ready.by_caller.get(caller, 0) + self._taken[caller]
            if total < self._max_backlog and (self._max_of_caller is None or mine < self._max_of_caller):
                self._taken[caller] += 1
                return None
        if total >= self._max_backlog:
            return self._overloaded(ready, total, self._max_backlog, "")
        return self._overloaded(ready, mine, self._max_of_caller or 0, " of this caller")

    def check_key(self, key: str | None) -> None:
        """Check that a concurrency key takes one more run; None for a run without one.

        Raises:
            Overloaded: Too many runs of the key have not ended.
            StoreUnavailable: PostgreSQL does not answer.
        """
        if key is None:
            return
        with self._lock:
            reading = self._keys.pop(key, None) or self._reading_of(key)
            self._keys[key] = reading
            if len(self._keys) > MOST_KEYS:
                self._keys.pop(next(iter(self._keys)))
        if (found := reading.get()) >= self._max_of_key:
            self._metrics.count(names.REFUSED, 1, reason="concurrency_key")
            raise Overloaded(
                f"{found} runs of the concurrency key {key!r} have not ended, the limit is {self._max_of_key};"
                " try later",
                retry_after=LONGEST,
            )

    def _reading_of(self, key: str) -> Reading[int]:
        most = self._max_of_key
        return Reading(
            self._database,
            lambda cursor: capacity.unfinished_of_key(cursor, key, most=most),
            fresh=BACKLOG_FRESH,
        )

    def check_storage(self) -> None:
        """Check that there is room for more data.

        Raises:
            StorageFull: Too many bytes are stored.
            StoreUnavailable: PostgreSQL does not answer.
        """
        if self._max_bytes is not None and (use := self.storage_use()).is_full:
            self._metrics.count(names.REFUSED, 1, reason="storage")
            raise StorageFull(
                f"runs and tasks hold {use} (CITADEL_STORAGE__MAX_BYTES); running work goes on; try again once clean-up"
                " has removed finished runs"
            )

    def storage_use(self) -> "StorageUse":
        """Return the bytes that are stored, and their limit.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        return StorageUse(bytes=self._bytes.get(), limit=self._max_bytes)

    def _measure(self, cursor: Cursor) -> int:
        """Return the bytes in use; they are counted only where the tables' size on disk is over the budget."""
        allocated = capacity.allocated_bytes(cursor)
        if self._max_bytes is None or allocated < self._max_bytes:
            return allocated
        try:
            with cursor.connection.transaction():
                self._measured = capacity.stored_bytes(cursor)
        except QueryCanceled:
            log.warning("stored_bytes_not_measured", allocated=allocated, last=self._measured)
        return self._measured

    def _overloaded(self, ready: capacity.UnbegunSteps, found: int, limit: int, whose: str) -> Overloaded:
        excess = found - (1 - FREED) * limit
        wait = LONGEST if ready.ended_per_second <= 0 else excess / ready.ended_per_second
        return Overloaded(
            f"{found} steps{whose} wait for a worker or a slot, the limit is {limit}; try later",
            retry_after=min(LONGEST, max(SHORTEST, round(wait))),
        )
