"""Removal of keys and entries that nobody will use again.

Every key that Citadel writes, where it lives, what ends it, and what this clean-up does about it:

| key | store | ended by | here |
|---|---|---|---|
| `citadel:embedding:…` | cache | time to live | no: `cleanup_expired_cache` |
| `citadel:cache:stats` | cache | one key | no |
| `citadel:cache:stats:PROCESS` | cache | time to live | no |
| `citadel:models`, `citadel:collections`, `citadel:broker:epoch` | results, broker | one key each | no |
| `citadel:accepted`, `…:due`, `…:leases`, `…:sweep` | results | the task's end | no: `citadel.purge_results` |
| `citadel:accepted:trace:TASK` | results | the task's end, time to live | no |
| `citadel:deliveries:TASK` | results | time to live, absent if a task was handed back first | sets it |
| `citadel:dead-letters`, `…:heads`, `…:by-time`, `…:counts` | results | age | no: `citadel.purge_dead_letters` |
| `citadel:dead-letters:claim:LETTER` | results | time to live | sets it if absent |
| `citadel:history:KIND` | results | number of entries, time to live | no |
| `citadel:rate:CALLER:MINUTE` | results | time to live, set in a second step | sets it if absent |
| `citadel:workers` | broker | peers, once the worker is dead | removes unreadable and long silent entries |
| `citadel:unacked:WORKER` | broker | peers, once the worker is dead | registers unknown workers again |
| `citadel:unacked:WORKER:inbox:LANE` | broker | the worker, or peers once it is dead | registers it again |
| `citadel:unacked:WORKER:index` | broker | with the hash | removes it if hash and worker are gone |
| `citadel:unacked:WORKER:mutex` | broker | time to live | no |
| `citadel:timers:QUEUE:…` | broker | the messages' time | no: `timers` |
| `citadel:figures`, `citadel:beat`, `citadel:beat:…` | broker | one field per task or entry | no |
| `citadel:figures:flushed:WORKER` | broker | time to live | sets it if absent |
| `citadel:misrouted` | broker | time to live, `citadel.reroute_messages` | no |
| `citadel:steps:embedded` | broker | the engine, which takes its entries | no |
| `citadel:maintenance:lease:TASK`, `…:lap:TASK` | results | time to live | sets it if absent |
| `citadel:maintenance:models`, `…:unregistered` | results, broker | time to live | no |
| `citadel:published:TASK:…` | broker | time to live | no |
| `celery-task-meta-TASK`, `celery-taskset-meta-GROUP…` | results | time to live | no |
| queues, `_kombu.binding.QUEUE` | broker | Celery | no |

Keys of other names are never touched, because a Redis may be shared.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from citadel_common.delivery.dead_letters import CLAIM_PREFIX
from citadel_common.delivery.redelivery import KEPT as DELIVERIES_KEPT
from citadel_common.delivery.redelivery import PREFIX as DELIVERIES_PREFIX
from citadel_common.delivery.worker_registry import UNACKED_PREFIX
from citadel_common.tasks.stats import FLUSHED_PREFIX, FLUSHED_TTL
from citadel_maintenance.jobs.cursor import PREFIX as CURSORS_PREFIX
from citadel_maintenance.jobs.cursor import TTL as CURSORS_TTL
from citadel_maintenance.jobs.lease import PREFIX as LEASES_PREFIX
from citadel_maintenance.jobs.runner import Job
from citadel_maintenance.scanning import scan, server_of
from citadel_maintenance.worker_registry import WorkerRegistryCleanup

if TYPE_CHECKING:
    from redis import Redis

PATTERN = "citadel:[dfmru]*"
"""The keys to examine; it skips the vectors of a cache in the same Redis."""
_NEVER_EXPIRES = -1
RATE_PREFIX = "citadel:rate:"
"""Prefix of the API's rate limits."""


class Family(NamedTuple):
    """Keys that must expire.

    Attributes:
        prefix: Prefix of their names.
        kind: Kind under which they are counted.
        ttl: Seconds to live that a key without a time to live gets.
    """

    prefix: str
    kind: str
    ttl: int


FAMILIES = (
    Family(DELIVERIES_PREFIX, "deliveries_without_ttl", DELIVERIES_KEPT),
    Family(CLAIM_PREFIX, "claims_without_ttl", 60),
    Family(RATE_PREFIX, "rates_without_ttl", 60),
    Family(FLUSHED_PREFIX, "figures_without_ttl", FLUSHED_TTL),
    Family(LEASES_PREFIX, "leases_without_ttl", 60),
    Family(CURSORS_PREFIX, "laps_without_ttl", CURSORS_TTL),
)


class OrphanCleanup:
    """One run of `citadel.purge_orphans`.

    Args:
        job: The run of the task.
        stores: Clients of the stores by name, each server once.
        workers: Clean-up of the worker registry.
        count: Keys examined per batch.
    """

    def __init__(self, job: Job, stores: "dict[str, Redis]", workers: WorkerRegistryCleanup, *, count: int) -> None:
        self._job = job
        self._stores = stores
        self._workers = workers
        self._count = count
        self._position = job.cursor.load()

    def run(self) -> bool:
        """Examine every store; return whether that reached the end."""
        self._workers.check_entries()
        for name, client in self._stores.items():
            if not self._examine(name, client):
                return False
        self._job.cursor.clear()
        return True

    def _examine(self, name: str, client: "Redis") -> bool:
        server = server_of(client)
        saved = self._position.get(name, {})
        cursor: int | None = saved.get("cursor", 0) if saved.get("server") == server else 0
        if cursor is None:
            return True  # an earlier run reached the end of this store, but not of another one
        for _ in self._job.throttle.batches():
            keys, cursor = scan(client, PATTERN, cursor=cursor or 0, count=self._count)
            self._process(client, keys)
            self._position[name] = {"server": server, "cursor": cursor or None}
            self._job.cursor.save(self._position, now=not cursor)
            if cursor == 0:
                return True
        self._job.cursor.save(self._position, now=True)
        return False

    def _process(self, client: "Redis", keys: Sequence[str]) -> None:
        self._job.counters.examined += len(keys)
        self._set_missing_ttls(client, keys)
        self._workers.check_held([key.removeprefix(UNACKED_PREFIX) for key in keys if key.startswith(UNACKED_PREFIX)])

    def _set_missing_ttls(self, client: "Redis", keys: Sequence[str]) -> None:
        found = [(key, family) for key in keys for family in FAMILIES if key.startswith(family.prefix)]
        pipe = client.pipeline(transaction=False)
        for key, _ in found:
            pipe.pttl(key)
        for (key, family), ttl in zip(found, pipe.execute() if found else [], strict=True):
            if ttl == _NEVER_EXPIRES:
                repaired = 1 if self._job.dry_run else _expire(client, key, family.ttl)
                self._job.counters.add(family.kind, repaired=repaired)


def _expire(client: "Redis", key: str, ttl: int) -> int:
    answer: Any = client.expire(key, ttl)
    return int(answer)
