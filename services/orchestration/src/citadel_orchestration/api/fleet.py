"""What the broker tells of queues and workers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from citadel_common.contracts import Queue
from citadel_common.contracts.api import QueueStats, WorkerInfo
from citadel_common.timestamps import from_epoch
from citadel_common.worker.presence import WORKERS, Heartbeat, parse, unacked_options
from citadel_orchestration.api.backlog import by_lane, lists_of

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Fleet:
    """Queues and workers.

    Args:
        client: Client of the broker's Redis.
        dead_after: Seconds of silence after which a worker counts as gone.
    """

    def __init__(self, client: "Redis", *, dead_after: float) -> None:
        self._client = client
        self._dead_after = dead_after

    async def workers(self) -> list[WorkerInfo]:
        """The live workers."""
        return [_info(beat) for beat in await self._heartbeats() if self._lives(beat)]

    async def count_live(self, queue: Queue) -> int:
        """How many live workers serve a queue."""
        return sum(beat.queue == queue and self._lives(beat) for beat in await self._heartbeats())

    async def queues(self) -> list[QueueStats]:
        """Every queue."""
        beats = await self._heartbeats()
        pipe = self._client.pipeline(transaction=False)
        for queue in Queue:
            for name in lists_of(queue):
                pipe.llen(name)
        for beat in beats:
            pipe.hlen(unacked_options(beat.id)["unacked_key"])
        counts: list[int] = await pipe.execute()
        per_queue = len(lists_of(Queue.EMBEDDINGS))
        held = counts[per_queue * len(Queue) :]
        return [
            self._stats(queue, counts[index * per_queue : (index + 1) * per_queue], beats, held)
            for index, queue in enumerate(Queue)
        ]

    def _stats(
        self, queue: Queue, lengths: Sequence[int], beats: Sequence[Heartbeat], held: Sequence[int]
    ) -> QueueStats:
        mine = [(beat, count) for beat, count in zip(beats, held, strict=True) if beat.queue == queue]
        return QueueStats(
            name=queue.value,
            lanes=by_lane(lengths),
            ready=sum(lengths),
            unacked=sum(count for _, count in mine),
            workers=sum(self._lives(beat) for beat, _ in mine),
        )

    async def _heartbeats(self) -> list[Heartbeat]:
        stored: Any = await self._client.hvals(WORKERS)
        return [parse(beat) for beat in stored]

    def _lives(self, beat: Heartbeat) -> bool:
        return not beat.is_dead(dead_after=self._dead_after)


def _info(beat: Heartbeat) -> WorkerInfo:
    return WorkerInfo(
        id=beat.id,
        queue=beat.queue,
        host=beat.host,
        pid=beat.pid,
        concurrency=beat.concurrency,
        running=beat.running,
        processed=beat.processed,
        failed=beat.failed,
        started_at=from_epoch(beat.started_at),
        last_seen_at=from_epoch(beat.seen_at),
    )
