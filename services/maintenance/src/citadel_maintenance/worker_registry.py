"""Clean-up of the worker registry, and of what dead workers left behind in the broker.

Peers give back the messages that a dead worker held as long as they find the worker in the registry. A worker that
holds messages but is not registered (it was forgotten while it was paused, and died before its next heartbeat) would
keep them for ever. The clean-up registers such a worker again as stopped, and any peer does the rest.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from citadel_common.delivery.server_clock import ServerClock
from citadel_common.delivery.worker_registry import INBOX, UNACKED_PREFIX, WORKERS, Heartbeat, held_message_keys, parse
from citadel_maintenance.jobs.runner import Job

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
FIRST_SEEN = "citadel:maintenance:unregistered"
"""Hash of worker id → when it was first found to hold messages without being registered, in seconds since the epoch."""
KEPT = 24 * 3600
"""Seconds beyond the grace period after which that hash expires."""
SILENT = 24 * 3600.0
"""Seconds of silence after which an entry that no peer has removed goes, if its worker holds nothing."""
UNREADABLE = "workers_unreadable"
LONG_GONE = "workers_long_gone"
HELD = "messages_of_unknown_workers"
INDEX = "unacked_indexes"
_INDEX_SUFFIX = ":index"
_SUFFIXES = (_INDEX_SUFFIX, ":mutex")
# Each script checks in the same step that what it acts on is still as it was read: the worker may have beaten,
# registered or taken a message meanwhile.
_FORGET = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
_REMOVE_INDEX = """
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
return redis.call('UNLINK', KEYS[2])
"""
_REGISTER = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
"""


class WorkerRegistryCleanup:
    """Checks entries of the registry, and keys of held messages.

    Args:
        job: The run of the task.
        client: Client of the broker's Redis.
        dead_after: Seconds of silence after which a worker counts as dead.
        grace: Seconds until the leftovers of an unknown worker count as abandoned.
    """

    def __init__(self, job: Job, client: "Redis", *, dead_after: float, grace: float) -> None:
        self._job = job
        self._client = client
        self._dead_after = dead_after
        self._grace = grace
        self._clock = ServerClock(client)
        self._forget: Any = client.register_script(_FORGET)
        self._remove_index: Any = client.register_script(_REMOVE_INDEX)
        self._register: Any = client.register_script(_REGISTER)

    def check_entries(self) -> None:
        """Remove entries of the registry that cannot be read, or whose workers are long gone."""
        entries: Any = self._client.hgetall(WORKERS)
        self._job.counters.examined += len(entries)
        for worker_id, stored in entries.items():
            kind = self._kind_of(worker_id.decode(errors="replace"), stored)
            if kind is not None:
                removed = 1 if self._job.dry_run else int(self._forget(keys=[WORKERS], args=[worker_id, stored]))
                self._job.counters.add(kind, removed=removed)

    def _kind_of(self, worker_id: str, stored: bytes) -> str | None:
        try:
            beat = parse(stored)
            silence = beat.silence(self._clock.now())
            if not beat.is_dead(silence=silence, dead_after=max(SILENT, self._dead_after)):
                return None
        except (ValueError, TypeError, AttributeError):
            return UNREADABLE
        return LONG_GONE if silence > SILENT and not self._client.exists(UNACKED_PREFIX + worker_id) else None

    def check_held(self, names: Sequence[str]) -> None:
        """Check keys of held messages, given without their prefix."""
        for name in names:
            if name.endswith(_INDEX_SUFFIX):
                self._check_index(name.removesuffix(_INDEX_SUFFIX))
            elif not name.endswith(_SUFFIXES):
                self._check_messages(name, worker_id=name.partition(INBOX)[0])

    def _check_index(self, worker_id: str) -> None:
        keys = held_message_keys(worker_id)
        hash_key, index_key = keys["unacked_key"], keys["unacked_index_key"]
        if self._client.exists(hash_key) or self._client.hexists(WORKERS, worker_id):
            return
        newest: Any = self._client.zrange(index_key, -1, -1, withscores=True)
        if newest and self._clock.now() - newest[0][1] < self._grace:
            return
        size = int(self._client.memory_usage(index_key) or 0)
        args = {"keys": [hash_key, index_key, WORKERS], "args": [worker_id]}
        removed = 1 if self._job.dry_run else int(self._remove_index(**args))
        self._job.counters.add(INDEX, removed=removed, bytes_freed=size * removed)

    def _check_messages(self, name: str, *, worker_id: str) -> None:
        """Check a held hash or an inbox."""
        if self._client.hexists(WORKERS, worker_id):
            self._client.hdel(FIRST_SEEN, worker_id)
            return
        abandoned = self._is_abandoned(worker_id)
        repaired = int(abandoned and (self._job.dry_run or self._register_stopped(name, worker_id)))
        self._job.counters.add(HELD, repaired=repaired)

    def _is_abandoned(self, worker_id: str) -> bool:
        """Return whether an unknown worker has held its messages for longer than the grace period."""
        now = self._clock.now()
        if not self._job.dry_run:
            self._client.hsetnx(FIRST_SEEN, worker_id, str(now))
            self._client.expire(FIRST_SEEN, int(self._grace) + KEPT)
        first: Any = self._client.hget(FIRST_SEEN, worker_id)
        return first is not None and now - float(first) >= self._grace

    def _register_stopped(self, name: str, worker_id: str) -> bool:
        """Register a worker as stopped; return whether it still held messages and was still unknown."""
        keys = [UNACKED_PREFIX + name, WORKERS]
        registered = self._register(keys=keys, args=[worker_id, _last_heartbeat(worker_id, self._clock.now())])
        self._client.hdel(FIRST_SEEN, worker_id)
        log.warning("unknown_worker_entered", worker=worker_id)
        return bool(registered)


def _last_heartbeat(worker_id: str, now: float) -> bytes:
    """Return the heartbeat that a worker of that id would send when it stops."""
    queue, _, place = worker_id.partition("@")
    beat = Heartbeat(
        id=worker_id,
        queue=queue,
        host=place.partition(":")[0],
        pid=0,
        machine="",
        born="",
        concurrency=0,
        running=0,
        processed=0,
        failed=0,
        started_at=0.0,
        seen_at=now,
        stopped=True,
    )
    return orjson.dumps(vars(beat))
