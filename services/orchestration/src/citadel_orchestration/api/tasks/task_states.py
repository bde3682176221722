"""The state of a task: from its stored result, or from the record of accepted tasks."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import orjson

from citadel_common.delivery.accepted_tasks import LEASES, MESSAGES
from citadel_common.errors import StoreUnavailable, from_result
from citadel_common.stores.redis import ERRORS
from citadel_orchestration.api.http.errors import TaskNotFound
from citadel_orchestration.api.tasks.results import META_PREFIX

if TYPE_CHECKING:
    from redis.asyncio import Redis

_STATES = {
    "STARTED": "running",
    "PROGRESS": "running",
    "RETRY": "retrying",
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "REVOKED": "revoked",
}


async def task_status(
    client: "Redis", task_id: str, *, timeout: float, is_recorded: Callable[[str], Awaitable[bool]]
) -> bytes:
    """The body of `GET /v1/tasks/{id}`, a `TaskStatus`.

    Args:
        client: Of the results store, which has to answer within `timeout` seconds.
        task_id: The task.
        timeout: Seconds.
        is_recorded: Asks PostgreSQL for a task that Redis does not know: it may have been emptied.

    Raises:
        TaskNotFound: Neither a result nor a record of it exists.
        StoreUnavailable: A store does not answer.
    """
    try:
        async with asyncio.timeout(timeout):
            envelope, lease, meta = await _read(client, task_id)
    except ERRORS:
        raise StoreUnavailable from None
    if meta is not None:
        return orjson.dumps(_of_meta(task_id, orjson.loads(meta)))
    if not envelope and not await is_recorded(task_id):
        raise TaskNotFound(f"there is no task {task_id!r}, or its result has expired")
    return orjson.dumps({"task_id": task_id, "status": "running" if _is_held(lease) else "queued"})


async def _read(client: "Redis", task_id: str) -> tuple[bool, bytes | None, bytes | None]:
    """Record and lease first: a task that ends meanwhile then has its result."""
    pipe = client.pipeline(transaction=False)
    pipe.hexists(MESSAGES, task_id)
    pipe.hget(LEASES, task_id)
    pipe.get(META_PREFIX + task_id)
    envelope, lease, meta = await pipe.execute()
    return envelope, lease, meta


def _of_meta(task_id: str, meta: dict[str, Any]) -> dict[str, Any]:
    state = _STATES.get(meta["status"], "running")
    status: dict[str, Any] = {"task_id": task_id, "status": state}
    if meta["status"] == "PROGRESS":
        status["progress"] = meta["result"]
    elif state == "succeeded":
        status["result"] = meta["result"]
    elif state in {"failed", "retrying"}:
        status["error"] = from_result(meta.get("result")).data.model_dump()
    return status


def _is_held(lease: bytes | None) -> bool:
    """Whether a worker's lease is in force: `<worker> <expiry>`."""
    return lease is not None and float(lease.rpartition(b" ")[2]) > time.time()
