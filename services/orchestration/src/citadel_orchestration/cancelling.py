"""Cancelling calls whose clients need a moment to close their connections."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def cancelled_once(call: Coroutine[Any, Any, T]) -> T:
    """A call's result; it is cancelled at most once, and not waited for then, however often its caller is cancelled.

    httpx closes a connection in answer to a cancel, some steps of the event loop later. A second cancel in between
    (two time limits that end together) stops it: the server goes on answering, and the pool has a connection less.
    """
    task = asyncio.create_task(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        raise
