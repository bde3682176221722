"""Keys and entries that nobody will ever ask for again.

Every key that Citadel writes, where it lives, and what ends it:

| key | store | ended by | looked at here |
|---|---|---|---|
| `citadel:embedding:…` | cache | time to live | no: `cleanup_expired_cache` |
| `citadel:cache:stats` | cache | one key | no |
| `citadel:cache:stats:PROCESS` | cache | time to live | no |
| `citadel:models`, `citadel:collections`, `citadel:broker:epoch` | results, broker | one key each | no |
| `citadel:accepted`, `…:due`, `…:leases`, `…:sweep` | results | the task's end | no: `citadel.purge_results` |
| `citadel:accepted:trace:TASK` | results | the task's end, time to live | no |
| `citadel:deliveries:TASK` | results | time to live, not set where a task was handed back first | gets one |
| `citadel:dead-letters`, `…:heads`, `…:by-time`, `…:counts` | results | age | no: `citadel.purge_dead_letters` |
| `citadel:dead-letters:claim:LETTER` | results | time to live | gets one if it has none |
| `citadel:history:KIND` | results | number, time to live | no |
| `citadel:rate:CALLER:MINUTE` | results | time to live, set in a second step | gets one if it has none |
| `citadel:workers` | broker | peers, once the worker is dead | entries that cannot be read, or are long silent |
| `citadel:unacked:WORKER` | broker | peers, once the worker is dead | a worker nobody knows is made known again |
| `citadel:unacked:WORKER:index` | broker | with the hash | goes where the hash is gone, and the worker |
| `citadel:unacked:WORKER:mutex` | broker | time to live | no |
| `citadel:figures`, `citadel:beat`, `citadel:beat:…` | broker | as many fields as tasks, entries | no |
| `citadel:figures:flushed:WORKER` | broker | time to live | gets one if it has none |
| `citadel:steps:embedded` | broker | the engine, which takes its entries | no |
| `citadel:maintenance:lease:TASK`, `…:lap:TASK` | results | time to live | gets one if it has none |
| `citadel:maintenance:models`, `…:unregistered` | results, broker | time to live | no |
| `celery-task-meta-TASK` | results | time to live | no |
| queues, `_kombu.binding.QUEUE` | broker | Celery | no |

Keys of other names are never touched: a Redis may be shared.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from citadel_common.delivery.dead_letters import CLAIM_PREFIX
from citadel_common.delivery.redelivery import KEPT as DELIVERIES_KEPT
from citadel_common.delivery.redelivery import PREFIX as DELIVERIES_PREFIX
from citadel_common.delivery.worker_registry import UNACKED_PREFIX
from citadel_common.tasks.stats import FLUSHED_PREFIX, FLUSHED_TTL
from citadel_maintenance.laps import KEPT as LAPS_KEPT
from citadel_maintenance.laps import PREFIX as LAPS_PREFIX
from citadel_maintenance.lease import PREFIX as LEASES_PREFIX
from citadel_maintenance.register import WorkerRegister
from citadel_maintenance.scanning import scan, server_of
from citadel_maintenance.upkeep import Job

if TYPE_CHECKING:
    from redis import Redis

PATTERN = "citadel:[dfmru]*"
"""The keys looked at, and no vectors, should they live in the same Redis."""
_NEVER_EXPIRES = -1
RATE_PREFIX = "citadel:rate:"
"""Of the API's rate limit."""


class Family(NamedTuple):
    """Keys that must expire.

    Attributes:
        prefix: What their names begin with.
        kind: As reported.
        ttl: Seconds that one without a time to live is given.
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
    Family(LAPS_PREFIX, "laps_without_ttl", LAPS_KEPT),
)


class OrphanCleanup:
    """One run.

    Args:
        job: Pace, counts, place.
        stores: Clients of the stores, each server once, by a name.
        register: Of the workers.
        count: Keys looked at per step.
    """

    def __init__(self, job: Job, stores: "dict[str, Redis]", register: WorkerRegister, *, count: int) -> None:
        self._job = job
        self._stores = stores
        self._register = register
        self._count = count
        self._place = job.lap.load()

    def run(self) -> bool:
        """Walks over every store; whether it got to the end."""
        self._register.tidy()
        for name, client in self._stores.items():
            if not self._walk(name, client):
                return False
        self._job.lap.end()
        return True

    def _walk(self, name: str, client: "Redis") -> bool:
        server = server_of(client)
        saved = self._place.get(name, {})
        cursor: int | None = saved.get("cursor", 0) if saved.get("server") == server else 0
        if cursor is None:
            return True  # an earlier run got to the end of this store, and not of another
        while self._job.pace.goes_on():
            with self._job.pace.batch():
                keys, cursor = scan(client, PATTERN, cursor=cursor, count=self._count)
                self._look(client, keys)
            self._place[name] = {"server": server, "cursor": cursor or None}
            self._job.lap.save(self._place, now=not cursor)
            if cursor == 0:
                return True
        self._job.lap.save(self._place, now=True)
        return False

    def _look(self, client: "Redis", keys: Sequence[str]) -> None:
        self._job.tallies.examined += len(keys)
        self._bound(client, keys)
        held = [key.removeprefix(UNACKED_PREFIX) for key in keys if key.startswith(UNACKED_PREFIX)]
        self._register.judge(held)

    def _bound(self, client: "Redis", keys: Sequence[str]) -> None:
        found = [(key, family) for key in keys for family in FAMILIES if key.startswith(family.prefix)]
        pipe = client.pipeline(transaction=False)
        for key, _ in found:
            pipe.pttl(key)
        for (key, family), ttl in zip(found, pipe.execute() if found else [], strict=True):
            if ttl == _NEVER_EXPIRES:
                tally = self._job.tallies.of(family.kind)
                tally.examined += 1
                tally.repaired += 1 if self._job.dry_run else _expire(client, key, family.ttl)


def _expire(client: "Redis", key: str, ttl: int) -> int:
    answer: Any = client.expire(key, ttl)
    return int(answer)
