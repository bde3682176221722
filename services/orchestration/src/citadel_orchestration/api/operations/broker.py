"""Queues and live workers, read from the broker."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

from citadel_common.delivery import misrouted
from citadel_common.delivery.misrouted import MISROUTED, MisroutedList
from citadel_common.delivery.queues import QueueState, QueueStateQuery
from citadel_common.delivery.worker_registry import WORKERS, Heartbeat, parse
from citadel_common.errors import StoreUnavailable
from citadel_common.stores.redis import ERRORS
from citadel_common.text import printable
from citadel_common.timestamps import from_epoch
from citadel_contracts import Queue
from citadel_contracts.api import QueueStats, WorkerInfo
from citadel_contracts.maintenance import MisroutedMessages

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")


class BrokerInspector:
    """Lists queues and workers.

    Every method raises StoreUnavailable when the broker does not answer in time.

    Args:
        client: Client of the broker's Redis.
        dead_after: Seconds without a heartbeat after which a worker counts as dead.
        timeout: Seconds that the broker may take.
    """

    def __init__(self, client: "Redis", *, dead_after: float, timeout: float) -> None:
        self._client = client
        self._dead_after = dead_after
        self._timeout = timeout

    async def workers(self) -> list[WorkerInfo]:
        """Return the live workers."""
        return [_worker_info(beat) for beat in await self._live()]

    async def count_live(self, queue: Queue) -> int:
        """Return how many live workers serve a queue."""
        return sum(beat.queue == queue for beat in await self._live())

    async def queues(self) -> list[QueueStats]:
        """Return the state of every queue."""
        beats, _ = await self._heartbeats()
        query = QueueStateQuery(beats, dead_after=self._dead_after)
        pipe = self._client.pipeline(transaction=False)
        query.ask(pipe)
        pipe.hvals(MISROUTED)
        *counts, stored = await self._in_time(pipe.execute())
        found = misrouted.parse(stored)
        return [_queue_stats(state, found) for state in query.answer(counts)]

    async def _live(self) -> list[Heartbeat]:
        beats, now = await self._heartbeats()
        return [beat for beat in beats if not beat.is_dead(silence=beat.silence(now), dead_after=self._dead_after)]

    async def _heartbeats(self) -> tuple[list[Heartbeat], float]:
        """Return the last heartbeats, and the broker's time in seconds."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hvals(WORKERS)
        pipe.time()
        stored, (seconds, _) = await self._in_time(pipe.execute())
        return [parse(beat) for beat in stored], seconds

    async def _in_time(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except ERRORS:
            raise StoreUnavailable("the broker does not answer; check that Redis runs") from None


def _queue_stats(state: QueueState, found: Sequence[MisroutedList]) -> QueueStats:
    return QueueStats(
        name=state.queue.value,
        lanes=state.lanes,
        ready=state.ready,
        scheduled=state.scheduled,
        unacked=state.unacked,
        workers=len(state.workers),
        misrouted=[_misrouted(one) for one in found if one.queue == state.queue],
    )


def _misrouted(found: MisroutedList) -> MisroutedMessages:
    return MisroutedMessages(
        key=printable(found.key),
        database=found.database,
        task=found.task,
        messages=found.messages,
        moved=found.moved,
        reason=found.reason,
        help=found.help,
        at=from_epoch(found.at),
    )


def _worker_info(beat: Heartbeat) -> WorkerInfo:
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
