"""The worker registry: identities and heartbeats of workers, in the broker's Redis.

Times of heartbeats are the broker's. Who takes work from silent workers does not even trust that clock, which jumps at
a failover: a `SilenceWatch` sees heartbeats change.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from redis import Redis

import os
import socket
import uuid
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class WorkerIdentity:
    """One worker process.

    Attributes:
        id: Unique over all time.
        queue: The queue it serves.
        host: Host name.
        pid: Process id on that host.
        machine: Id of the process table that `pid` is in; empty if it is unknown.
        born: The process's start time there, which tells a reused pid apart.
    """

    id: str
    queue: str
    host: str
    pid: int
    machine: str
    born: str

    @classmethod
    def of_this_process(cls, queue: str) -> "WorkerIdentity":
        """Return the identity of the calling process."""
        host, pid = socket.gethostname(), os.getpid()
        return cls(
            id=f"{queue}@{host}:{pid}:{uuid.uuid4().hex[:8]}",
            queue=queue,
            host=host,
            pid=pid,
            machine=_machine(),
            born=_born(pid),
        )


def surely_dead(*, machine: str, pid: int, born: str) -> bool:
    """Return whether that process ran on this machine and is gone; False if that cannot be known."""
    return bool(machine) and machine == _machine() and _born(pid) != born


def _machine() -> str:
    """Return boot id and pid namespace (Linux), which are equal if and only if pids mean the same processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """Return field 22 of /proc/PID/stat, the start time in ticks; empty if the process is gone.

    A zombie with threads that still end counts as alive: its sockets are open, and Redis may hand a message to one.
    """
    process = Path(f"/proc/{pid}")
    try:
        stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
        threads = len(list((process / "task").iterdir()))
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state == "Z" and threads <= 1 else fields[18]


WORKERS = "citadel:workers"
"""Hash of worker id → its last heartbeat."""
_BEAT = """
local now = redis.call('TIME')
local seen_at = string.format('%d.%06d', now[1], now[2])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], string.sub(ARGV[2], 1, -2) .. ',"seen_at":' .. seen_at .. '}')
return seen_at
"""
"""Stores a heartbeat, a JSON object, with the server's time; older workers compare that with their own clocks.

It removes first: a full Redis refuses scripts that begin by adding, and only workers that are seen can empty it.
"""
UNACKED_PREFIX = "citadel:unacked:"


def held_message_keys(worker_id: str) -> dict[str, str]:
    """Return kombu transport options that keep a worker's unacknowledged messages under keys of its own.

    With them, peers reclaim a dead worker's messages as soon as its heartbeat stops. They need not wait for the
    visibility timeout, which must outlast the longest task.
    """
    return {
        "unacked_key": f"{UNACKED_PREFIX}{worker_id}",
        "unacked_index_key": f"{UNACKED_PREFIX}{worker_id}:index",
        "unacked_mutex_key": f"{UNACKED_PREFIX}{worker_id}:mutex",
    }


INBOX = ":inbox:"
"""Part of an inbox's key between those of the held hash and of the lane."""


def inbox_of(worker_id: str, lane_key: str) -> str:
    """Return the key of the list into which Redis moves what arrives in a lane while the worker waits."""
    return f"{UNACKED_PREFIX}{worker_id}{INBOX}{lane_key}"


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The state of a worker at its last beat; times are seconds since the epoch by the broker's clock."""

    id: str
    queue: str
    host: str
    pid: int
    machine: str
    born: str
    concurrency: int
    running: int
    processed: int
    failed: int
    started_at: float
    seen_at: float
    stopped: bool = False

    def is_dead(self, *, silence: float, dead_after: float) -> bool:
        """Return whether the process is gone, or its `silence` in seconds is longer than `dead_after`."""
        if self.stopped or silence > dead_after:
            return True
        return surely_dead(machine=self.machine, pid=self.pid, born=self.born)

    def silence(self, now: float) -> float:
        """Return the seconds since the beat; `now` is the broker's time."""
        return now - self.seen_at


class SilenceWatch:
    """The silences of workers, as one process sees them on its monotonic clock.

    Only time in which the process looked counts: after a pause of its own, or of Redis, silence is no sign of death.

    Args:
        most: Seconds that count between two looks at most.
    """

    def __init__(self, *, most: float) -> None:
        self._most = most
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: all silences begin anew."""
        self._looked_at: float | None = None
        self._seen: dict[str, tuple[float, float]] = {}

    def look(self, beats: Iterable[Heartbeat]) -> dict[str, float]:
        """Return for how many seconds each worker has not beaten, by its id."""
        now = time.monotonic()
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, self._most)
        before, self._looked_at, self._seen = self._seen, now, {}
        for beat in beats:
            seen_at, silence = before.get(beat.id, (None, 0.0))
            self._seen[beat.id] = beat.seen_at, silence + passed if seen_at == beat.seen_at else 0.0
        return {worker_id: silence for worker_id, (_, silence) in self._seen.items()}


class WorkerRegistry:
    """The registry of heartbeats; `client` is a client of the broker's Redis."""

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._beat: Any = client.register_script(_BEAT)

    def beat(self, identity: WorkerIdentity, **state: Any) -> float:
        """Store a heartbeat; `state` gives the other fields of `Heartbeat`. Return the broker's time."""
        fields = vars(Heartbeat(**vars(identity), seen_at=0.0, **state))
        del fields["seen_at"]
        return float(self._beat(keys=[WORKERS], args=[identity.id, orjson.dumps(fields)]))

    def all(self) -> Iterator[Heartbeat]:
        """Yield the last heartbeat of every worker in the registry, dead ones included."""
        for beat, _ in self.stored():
            yield beat

    def stored(self) -> Iterator[tuple[Heartbeat, bytes]]:
        """Yield them with their stored forms, by which a script can tell that none has come since."""
        beats: Any = self._client.hvals(WORKERS)
        for stored in beats:
            yield parse(stored), stored

    def forget(self, worker_id: str) -> None:
        """Remove a worker from the registry."""
        self._client.hdel(WORKERS, worker_id)


def parse(stored: bytes | str) -> Heartbeat:
    """Return the heartbeat of a stored form; fields of later versions are ignored."""
    known = Heartbeat.__dataclass_fields__
    return Heartbeat(**{name: value for name, value in orjson.loads(stored).items() if name in known})
