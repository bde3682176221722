"""Readers of the Redis servers: queues, workers and tasks in the broker, dead letters in results, and the cache."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from citadel_common.delivery import misrouted
from citadel_common.delivery.dead_letters import COUNTS, parse_counts
from citadel_common.delivery.misrouted import MISROUTED, REASONS, MisroutedList
from citadel_common.delivery.queues import QueueState, QueueStateQuery
from citadel_common.delivery.worker_registry import WorkerRegistry
from citadel_common.embeddings.keys import STATS_KEY
from citadel_common.tasks.stats import STATS, parse_stats
from citadel_contracts import Queue
from citadel_monitoring.exporter import metrics
from citadel_monitoring.exporter.message_ages import OldestMessages
from citadel_monitoring.exporter.metrics import Sample
from citadel_monitoring.exporter.sources import Samples
from citadel_monitoring.exporter.tasks import dead_letter_samples, task_samples

if TYPE_CHECKING:
    from redis import Redis


class BrokerReader:
    """Reader of queues, workers and tasks.

    Args:
        client: Client of the broker's Redis.
        dead_after: Seconds of silence after which a worker counts as dead.
    """

    def __init__(self, client: "Redis", *, dead_after: float) -> None:
        self._client = client
        self._workers = WorkerRegistry(client)
        self._oldest = OldestMessages(client)
        self._dead_after = dead_after

    def read(self) -> Samples:
        """Read them in four round trips, whatever is queued."""
        query = QueueStateQuery(list(self._workers.all()), dead_after=self._dead_after)
        pipe = self._client.pipeline(transaction=False)
        query.ask(pipe)
        pipe.hvals(MISROUTED)
        pipe.hgetall(STATS)
        pipe.info("memory")
        *counts, stored, stats, memory = pipe.execute()
        found = [sample for state in query.answer(counts) for sample in _queue(state)]
        found += [
            Sample(metrics.OLDEST, (queue.value, lane), age) for (queue, lane), age in self._oldest.ages().items()
        ]
        found += _misrouted(misrouted.parse(stored))
        return [*found, *task_samples(parse_stats(stats)), *_memory("broker", memory)]


class ResultReader:
    """Reader of dead letters; `client` is a client of the result store."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def read(self) -> Samples:
        """Read them in one round trip."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(COUNTS)
        pipe.info("memory")
        counts, memory = pipe.execute()
        return [*dead_letter_samples(parse_counts(counts)), *_memory("results", memory)]


class CacheReader:
    """Reader of the embedding cache; `client` is a client of its server."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def read(self) -> Samples:
        """Read it in one round trip. Hits are the workers' counts: the server's own include other keys."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hmget(STATS_KEY, "hits", "misses", "errors")
        pipe.dbsize()
        pipe.info("stats")
        pipe.info("memory")
        (hits, misses, errors), entries, stats, memory = pipe.execute()
        return [
            Sample(metrics.CACHE_ENTRIES, (), entries),
            Sample(metrics.CACHE_HITS, (), int(hits or 0)),
            Sample(metrics.CACHE_MISSES, (), int(misses or 0)),
            Sample(metrics.CACHE_ERRORS, (), int(errors or 0)),
            Sample(metrics.CACHE_EVICTIONS, (), int(stats.get("evicted_keys", 0))),
            *_memory("cache", memory),
        ]


def _queue(state: QueueState) -> Iterator[Sample]:
    queue = state.queue.value
    yield from (Sample(metrics.READY, (queue, lane), count) for lane, count in state.lanes.items())
    yield Sample(metrics.SCHEDULED, (queue,), state.scheduled)
    yield Sample(metrics.UNACKED, (queue,), state.unacked)
    yield Sample(metrics.WORKERS, (queue,), len(state.workers))
    yield Sample(metrics.CONCURRENCY, (queue,), sum(beat.concurrency for beat in state.workers))
    yield Sample(metrics.RUNNING, (queue,), sum(beat.running for beat in state.workers))


def _misrouted(found: Sequence[MisroutedList]) -> Iterator[Sample]:
    counts: Counter[tuple[str, str]] = Counter()
    for one in found:
        counts[one.queue, one.reason] += one.messages
    for queue, reason in itertools.product(Queue, REASONS):
        yield Sample(metrics.MISROUTED, (queue.value, reason), counts[queue.value, reason])


def _memory(role: str, memory: Mapping[str, Any]) -> Iterator[Sample]:
    yield Sample(metrics.MEMORY, (role,), int(memory["used_memory"]))
    yield Sample(metrics.MEMORY_LIMIT, (role,), int(memory.get("maxmemory", 0)))
