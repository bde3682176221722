"""What the broker tells of queues and workers."""

from typing import TYPE_CHECKING, Any

from citadel_common.delivery.queues import QueueState, QueueStateQuery
from citadel_common.delivery.worker_registry import WORKERS, Heartbeat, parse
from citadel_common.timestamps import from_epoch
from citadel_contracts import Queue
from citadel_contracts.api import QueueStats, WorkerInfo

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
        reading = QueueStateQuery(await self._heartbeats(), dead_after=self._dead_after)
        pipe = self._client.pipeline(transaction=False)
        reading.ask(pipe)
        return [_stats(state) for state in reading.answer(await pipe.execute())]

    async def _heartbeats(self) -> list[Heartbeat]:
        stored: Any = await self._client.hvals(WORKERS)
        return [parse(beat) for beat in stored]

    def _lives(self, beat: Heartbeat) -> bool:
        return not beat.is_dead(dead_after=self._dead_after)


def _stats(state: QueueState) -> QueueStats:
    return QueueStats(
        name=state.queue.value,
        lanes=state.lanes,
        ready=state.ready,
        unacked=state.unacked,
        workers=len(state.workers),
    )


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
