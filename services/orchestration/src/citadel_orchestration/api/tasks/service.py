"""Accepted tasks: recorded before they are published, shown until their results expire."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from citadel_common.delivery.accepted_tasks import LEASES, MESSAGES, RESULT_PREFIX, TRACE_PREFIX, TaskMessage
from citadel_common.errors import StoreUnavailable, from_result
from citadel_common.micro_batching import MicroBatcher
from citadel_common.settings.common import CommonSettings
from citadel_common.stores.postgres import repeated
from citadel_common.stores.redis import ERRORS
from citadel_common.telemetry import tracing
from citadel_contracts import AnyTaskSpec
from citadel_orchestration.api.http.errors import TaskNotFound
from citadel_orchestration.api.tasks.publisher import BacklogLimit, Publisher
from citadel_orchestration.db import accepted_tasks
from citadel_orchestration.wiring import Wiring

if TYPE_CHECKING:
    from redis.asyncio import Redis

BATCH_SIZE = 64
"""Accepted tasks recorded in one transaction, which concurrent requests share."""
_STATES = {
    "STARTED": "running",
    "PROGRESS": "running",
    "RETRY": "retrying",
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "REVOKED": "revoked",
}


class TaskService:
    """Accepts tasks and shows their states; belongs to one event loop.

    Args:
        wiring: The database, where accepted tasks are recorded, and the limit of what is stored there.
        publisher: Publishes accepted tasks.
        backlog: Refuses tasks while too many wait.
        results: Client of the results store.
        settings: Settings of the process.
    """

    def __init__(
        self,
        wiring: Wiring,
        publisher: Publisher,
        backlog: BacklogLimit,
        results: "Redis",
        settings: CommonSettings,
    ) -> None:
        self._database = wiring.database
        self._admission = wiring.admission
        self._publisher = publisher
        self._backlog = backlog
        self._results = results
        self._settings = settings
        self._batcher: MicroBatcher[TaskMessage, None] = MicroBatcher(self._record, max_size=BATCH_SIZE)

    async def accept(self, spec: AnyTaskSpec, kwargs: dict[str, Any]) -> str:
        """Record a task, publish it, and return its id. Once recorded, the task is the workers' to finish.

        Raises:
            Overloaded: The queue's backlog has reached the limit.
            StorageFull: Too many bytes are stored.
            StoreUnavailable: The task could not be recorded; nothing was accepted.
        """
        await self._backlog.check(spec.queue)
        message = TaskMessage(
            task_id=str(uuid.uuid4()),
            name=spec.name,
            kwargs=kwargs,
            priority=spec.lane.value,
            trace=tracing.carrier(),
        )
        await self._batcher.run([message])
        await self._publisher.publish_accepted(message)
        return message.task_id

    async def status(self, task_id: str) -> bytes:
        """Return the state of a task, a `TaskStatus` as JSON.

        Raises:
            TaskNotFound: The task has neither a result nor a record.
            StoreUnavailable: A store does not answer.
        """
        try:
            async with asyncio.timeout(self._settings.stores.timeout):
                is_known, is_held, trace, meta = await self._read(task_id)
        except ERRORS:
            raise StoreUnavailable from None
        if meta is not None:
            return orjson.dumps(_status_of(task_id, trace, orjson.loads(meta)))
        carrier = orjson.loads(trace) if trace else {} if is_known else await self._recorded(task_id)
        if carrier is None:
            raise TaskNotFound(f"there is no task {task_id!r}, or its result has expired")
        state = "running" if is_held else "queued"
        return orjson.dumps({"task_id": task_id, "status": state} | _known(tracing.trace_id_in(carrier)))

    async def _read(self, task_id: str) -> tuple[bool, bool, bytes | None, bytes | None]:
        """Return whether the task is accepted, whether a worker holds it, its trace context and its result."""
        pipe = self._results.pipeline(transaction=False)
        # The result is read last: a task that ends meanwhile has left the first three, but then has its result.
        pipe.hexists(MESSAGES, task_id)
        pipe.hget(LEASES, task_id)
        pipe.get(TRACE_PREFIX + task_id)
        pipe.get(RESULT_PREFIX + task_id)
        pipe.time()
        is_known, lease, trace, meta, (seconds, _) = await pipe.execute()
        return is_known, _is_held(lease, seconds), trace, meta

    async def _recorded(self, task_id: str) -> dict[str, str] | None:
        """Return the trace context that PostgreSQL has of a task; None if it has no such task.

        PostgreSQL knows tasks that Redis does not know, if Redis was emptied.
        """
        try:
            found = uuid.UUID(task_id)
        except ValueError:
            return None

        def call() -> dict[str, str] | None:
            with self._database.cursor() as cursor:
                return accepted_tasks.trace_of(cursor, found)

        return await asyncio.to_thread(call)

    async def _record(self, messages: Sequence[TaskMessage]) -> Sequence[None]:
        def call() -> None:
            self._admission.check_storage()
            with self._database.cursor() as cursor:
                accepted_tasks.add(cursor, messages, first_look=self._settings.accepted.first_look)

        await asyncio.to_thread(repeated(call))
        return [None] * len(messages)


def _status_of(task_id: str, trace: bytes | None, meta: dict[str, Any]) -> dict[str, Any]:
    """Return the status of a task by its result; while it is not final, `trace` may hold its trace context."""
    state = _STATES.get(meta["status"], "running")
    trace_id = meta.get("trace_id") or tracing.trace_id_in(orjson.loads(trace) if trace else None)
    status: dict[str, Any] = {"task_id": task_id, "status": state} | _known(trace_id)
    if meta["status"] == "PROGRESS":
        status["progress"] = meta["result"]
    elif state == "succeeded":
        status["result"] = meta["result"]
    elif state in {"failed", "retrying"}:
        status["error"] = _known(trace_id) | from_result(meta.get("result")).data.model_dump()
    return status


def _known(trace_id: str | None) -> dict[str, Any]:
    return {} if trace_id is None else {"trace_id": trace_id}


def _is_held(lease: bytes | None, now: float) -> bool:
    """Return whether a lease, `<worker> <expiry>`, is in force; `now` is the server's time."""
    return lease is not None and float(lease.rpartition(b" ")[2]) > now
