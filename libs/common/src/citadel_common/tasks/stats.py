"""Statistics of tasks, added up for the whole fleet in the broker's Redis.

A worker counts in memory and adds its counts to the fleet's at each heartbeat. So counting costs a task no call to a
store, and a killed worker loses only the counts since its last heartbeat.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

STATS = "citadel:figures"
"""Hash of `subject kind label` → number; the subject is a task or, for dead letters, a queue."""
FLUSHED_PREFIX = "citadel:figures:flushed:"
"""Prefix of a key per worker: the number of its last flush, so that no flush counts twice."""
FLUSHED_TTL = 24 * 3600
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, float("inf"))
"""Upper bounds, in seconds, of the histograms' buckets."""
_LABELS = tuple(str(bound) for bound in BUCKETS)
OUTCOMES = ("succeeded", "failed", "retried", "handed_back", "dead_lettered", "ignored", "revoked")

ENDED = "ended"
"""Kind: ends of a task; the label is its outcome."""
FAILURES = "failures"
"""Kind: failures and dead letters of a task; the label is the error's code."""
RUNTIME = "runtime"
"""Kind: runs of a task by duration; the label is the bucket."""
WAIT = "wait"
"""Kind: runs of a task by the time in the queue; the label is the bucket."""
DEAD_LETTERS = "dead_letters"
"""Kind: dead letters of a queue; the label is the error's code."""
SUM = "sum"
"""Label beside the buckets: the sum of the values, in seconds."""

Field = tuple[str, str, str]
"""Subject, kind, label."""
_ADD = """
if redis.call('GET', KEYS[2]) == ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
for i = 3, #ARGV, 2 do redis.pcall('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
"""
"""Adds a flush, unless it is the one added last: its answer may have been lost."""


class TaskStats:
    """The counts of one process since the last `take`; thread-safe."""

    def __init__(self) -> None:
        self._counts: dict[Field, float] = {}
        self._lock = threading.Lock()

    def ended(self, task: str, outcome: str, *, seconds: float, code: str | None = None) -> None:
        """Count a task's end after `seconds`; `code` is the error's if it failed."""
        bucket = _LABELS[bisect_left(BUCKETS, seconds)]
        with self._lock:
            self._add((task, ENDED, outcome), 1)
            self._add((task, RUNTIME, bucket), 1)
            self._add((task, RUNTIME, SUM), seconds)
            if code is not None:
                self._add((task, FAILURES, code), 1)

    def waited(self, task: str, seconds: float) -> None:
        """Count a start, after that many seconds in the queue."""
        bucket = _LABELS[bisect_left(BUCKETS, seconds)]
        with self._lock:
            self._add((task, WAIT, bucket), 1)
            self._add((task, WAIT, SUM), seconds)

    def dead_lettered(self, queue: str, code: str) -> None:
        """Count a dead letter."""
        with self._lock:
            self._add((queue, DEAD_LETTERS, code), 1)

    def take(self) -> dict[Field, float]:
        """Return the counts since the last call."""
        with self._lock:
            taken, self._counts = self._counts, {}
        return taken

    def _add(self, field: Field, amount: float) -> None:
        self._counts[field] = self._counts.get(field, 0) + amount


class StatsPublisher:
    """Adds a process's counts to the fleet's.

    Args:
        client: Client of the broker's Redis.
        stats: The process's counts.
        worker_id: Id of the process, unique over all time.
    """

    def __init__(self, client: "Redis", stats: TaskStats, worker_id: str) -> None:
        self._stats = stats
        self._keys = [STATS, FLUSHED_PREFIX + worker_id]
        self._script: Any = client.register_script(_ADD)
        self._lock = threading.Lock()
        self._number = 0
        self._pending: dict[Field, float] = {}

    def flush(self) -> None:
        """Add the counts; those that failed to be added are tried again first, and never count twice.

        Raises:
            redis.RedisError: The broker does not answer; nothing is lost.
        """
        with self._lock:
            self._hand_over()
            self._pending = self._stats.take()
            self._number += 1
            self._hand_over()

    def _hand_over(self) -> None:
        if not self._pending:
            return
        pairs = [part for field, amount in self._pending.items() for part in (" ".join(field), repr(float(amount)))]
        self._script(keys=self._keys, args=[self._number, FLUSHED_TTL, *pairs])
        self._pending = {}


def parse_stats(stored: Mapping[bytes, bytes]) -> Iterator[tuple[Field, float]]:
    """Yield the fields and numbers of the fleet's hash; anything else in it is skipped."""
    for name, number in stored.items():
        parts = name.decode(errors="replace").rsplit(" ", 2)
        try:
            subject, kind, label = parts
            yield (subject, kind, label), float(number)
        except ValueError:
            continue
