"""The register of workers, and what workers that are gone left behind in the broker.

Peers give back what a dead worker held as long as they find it in the register. A worker that holds messages and is
not there (it was forgotten while it was paused, and died before its next heartbeat) would keep them for ever: it is
entered again as one that has stopped, and any peer does the rest.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from citadel_common.delivery.worker_registry import UNACKED_PREFIX, WORKERS, Heartbeat, held_message_keys, parse
from citadel_maintenance.upkeep import Job

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
FIRST_SEEN = "citadel:maintenance:unregistered"
"""Hash of worker id → when it was first found to hold messages without being registered, in seconds since the epoch."""
KEPT = 24 * 3600
"""Seconds for which that is kept beyond the grace."""
SILENT = 24 * 3600.0
"""Seconds of silence after which an entry that no peer has removed goes, if its worker holds nothing."""
UNREADABLE = "workers_unreadable"
LONG_GONE = "workers_long_gone"
HELD = "messages_of_unknown_workers"
INDEX = "unacked_indexes"
_INDEX = ":index"
_PARTS = (_INDEX, ":mutex")
_FORGET = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""
_DROP_INDEX = """
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 then return 0 end
return redis.call('UNLINK', KEYS[2])
"""
_ENTER = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
"""


class WorkerRegister:
    """Judges entries and leftovers.

    Args:
        job: Counts.
        client: Client of the broker's Redis.
        dead_after: Seconds of silence after which a worker counts as gone.
        grace: Seconds until what an unknown worker left behind counts as abandoned.
    """

    def __init__(self, job: Job, client: "Redis", *, dead_after: float, grace: float) -> None:
        self._job = job
        self._client = client
        self._dead_after = dead_after
        self._grace = grace
        self._forget: Any = client.register_script(_FORGET)
        self._drop_index: Any = client.register_script(_DROP_INDEX)
        self._enter: Any = client.register_script(_ENTER)

    def tidy(self) -> None:
        """Looks at the register, which has as many entries as there are workers."""
        entries: Any = self._client.hgetall(WORKERS)
        self._job.tallies.examined += len(entries)
        for worker_id, stored in entries.items():
            kind = self._kind_of(worker_id.decode(errors="replace"), stored)
            if kind is not None:
                tally = self._job.tallies.of(kind)
                tally.examined += 1
                tally.removed += 1 if self._job.dry_run else int(self._forget(keys=[WORKERS], args=[worker_id, stored]))

    def _kind_of(self, worker_id: str, stored: bytes) -> str | None:
        try:
            beat = parse(stored)
            if not beat.is_dead(dead_after=max(SILENT, self._dead_after)):
                return None
            silent = time.time() - beat.seen_at > SILENT
        except (ValueError, TypeError, AttributeError):
            return UNREADABLE
        return LONG_GONE if silent and not self._client.exists(UNACKED_PREFIX + worker_id) else None

    def judge(self, names: Sequence[str]) -> None:
        """Looks at what follows the prefix in keys of unacknowledged messages."""
        for name in names:
            if name.endswith(_INDEX):
                self._judge_index(name.removesuffix(_INDEX))
            elif not name.endswith(_PARTS):
                self._judge_held(name)

    def _judge_index(self, worker_id: str) -> None:
        keys = held_message_keys(worker_id)
        hash_key, index_key = keys["unacked_key"], keys["unacked_index_key"]
        if self._client.exists(hash_key) or self._client.hexists(WORKERS, worker_id):
            return
        newest: Any = self._client.zrange(index_key, -1, -1, withscores=True)
        if newest and time.time() - newest[0][1] < self._grace:
            return
        tally = self._job.tallies.of(INDEX)
        size = int(self._client.memory_usage(index_key) or 0)
        args = {"keys": [hash_key, index_key, WORKERS], "args": [worker_id]}
        removed = 1 if self._job.dry_run else int(self._drop_index(**args))
        tally.examined += 1
        tally.removed += removed
        tally.bytes_freed += size * removed

    def _judge_held(self, worker_id: str) -> None:
        if self._client.hexists(WORKERS, worker_id):
            self._client.hdel(FIRST_SEEN, worker_id)
            return
        now = time.time()
        tally = self._job.tallies.of(HELD)
        tally.examined += 1
        if not self._job.dry_run:
            self._client.hsetnx(FIRST_SEEN, worker_id, str(now))
            self._client.expire(FIRST_SEEN, int(self._grace) + KEPT)
        first: Any = self._client.hget(FIRST_SEEN, worker_id)
        if first is None or now - float(first) < self._grace:
            return
        if self._job.dry_run:
            tally.repaired += 1
            return
        entered = int(self._enter(keys=[UNACKED_PREFIX + worker_id, WORKERS], args=[worker_id, _stopped(worker_id)]))
        tally.repaired += entered
        self._client.hdel(FIRST_SEEN, worker_id)
        log.warning("unknown_worker_entered", worker=worker_id)


def _stopped(worker_id: str) -> bytes:
    """The heartbeat of a worker that says goodbye."""
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
        seen_at=time.time(),
        stopped=True,
    )
    return orjson.dumps(vars(beat))
