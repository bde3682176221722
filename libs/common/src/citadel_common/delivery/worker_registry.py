"""Heartbeats of workers in the broker's Redis, and the list of the living."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from citadel_common.worker.identity import WorkerIdentity, surely_dead

if TYPE_CHECKING:
    from redis import Redis

WORKERS = "citadel:workers"
"""Hash of worker id → its last heartbeat."""
UNACKED_PREFIX = "citadel:unacked:"


def held_message_keys(worker_id: str) -> dict[str, str]:
    """Kombu transport options: what a worker holds unacknowledged is kept under keys of its own.

    So peers can give back a dead worker's messages as soon as its heartbeat stops, without waiting for the
    visibility timeout that must outlast the longest task.
    """
    return {
        "unacked_key": f"{UNACKED_PREFIX}{worker_id}",
        "unacked_index_key": f"{UNACKED_PREFIX}{worker_id}:index",
        "unacked_mutex_key": f"{UNACKED_PREFIX}{worker_id}:mutex",
    }


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What a worker says of itself; times are seconds since the epoch."""

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

    def is_dead(self, *, dead_after: float) -> bool:
        """Whether its process is gone, or silent for too long (seconds)."""
        if self.stopped or time.time() - self.seen_at > dead_after:
            return True
        return surely_dead(machine=self.machine, pid=self.pid, born=self.born)


class WorkerRegistry:
    """The register of heartbeats; `client` is a client of the broker's Redis."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def beat(self, identity: WorkerIdentity, **state: Any) -> None:
        """Records a heartbeat; `state` is the rest of `Heartbeat`'s fields."""
        beat = Heartbeat(**vars(identity), seen_at=time.time(), **state)
        self._client.hset(WORKERS, identity.id, orjson.dumps(vars(beat)))

    def all(self) -> Iterator[Heartbeat]:
        """The last heartbeat of every worker that was not yet forgotten."""
        for stored in self._client.hvals(WORKERS):
            yield parse(stored)

    def forget(self, worker_id: str) -> None:
        """Removes a worker from the register."""
        self._client.hdel(WORKERS, worker_id)


def parse(stored: bytes | str) -> Heartbeat:
    """A stored heartbeat; fields of later versions are ignored."""
    known = Heartbeat.__dataclass_fields__
    return Heartbeat(**{name: value for name, value in orjson.loads(stored).items() if name in known})
