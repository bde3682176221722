"""Connections to one server: calls with retries, streams with reconnects."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

import httpx

from citadel_client.errors import CitadelApiError
from citadel_client.operations import PAGE, Attempts, Operation, get
from citadel_client.options import CallOptions
from citadel_client.streams import Stream
from citadel_contracts.api import DeadLetterList
from citadel_contracts.runs import RunList

T = TypeVar("T")
P = TypeVar("P", RunList, DeadLetterList)


class AsyncConnection:
    """Pool of connections to one server, with the options of every call."""

    def __init__(self, http: httpx.AsyncClient, options: CallOptions) -> None:
        self.options = options
        self._http = http

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, operation: Operation[T], *, timeout: float | None = None) -> T:
        """Perform an operation, retried while that can help.

        Args:
            operation: What to send and how to read the answer.
            timeout: Seconds for all attempts; the client's by default.

        Raises:
            CitadelApiError: It failed.
        """
        attempts = Attempts(self.options, timeout)
        while True:
            try:
                response = await self._http.request(**operation.request(attempts.begin()))
                return operation.result(response)
            except (httpx.TransportError, CitadelApiError) as failure:
                delay = attempts.delay_after(failure, repeatable=operation.repeatable)
            await asyncio.sleep(delay)

    async def pages(
        self, model: type[P], items: Callable[[P], list[T]], path: Callable[[str | None, int], str], limit: int | None
    ) -> AsyncIterator[T]:
        """Yield the items of a list, whose pages are fetched when they are needed.

        Args:
            model: Model of a page.
            items: Returns the items of a page.
            path: Returns the path of a page, for a cursor and a number of items.
            limit: Maximum number of items; None for all.
        """
        cursor, left = None, limit
        while left is None or left > 0:
            page = await self.call(get(path(cursor, PAGE if left is None else min(PAGE, left)), model))
            found = items(page)
            for item in found:
                yield item
            cursor, left = page.next_cursor, None if left is None else left - len(found)
            if cursor is None:
                return

    async def stream(self, stream: Stream[T]) -> AsyncIterator[T]:
        """Yield the items of a stream, connecting again when a connection is lost.

        Raises:
            CitadelApiError: The stream cannot go on.
        """
        while not stream.ended:
            try:
                async with aclosing(self._connected(stream)) as items:
                    async for item in items:
                        yield item
            except (httpx.TransportError, CitadelApiError) as failure:
                await asyncio.sleep(stream.delay_after(failure))

    async def _connected(self, stream: Stream[T]) -> AsyncGenerator[T, None]:
        async with self._http.stream(**stream.request()) as response:
            if not response.is_success:
                await response.aread()
            stream.opened(response)
            async for piece in response.aiter_bytes():
                for item in stream.take(piece):
                    yield item
                if stream.ended:
                    return
            for item in stream.finish():
                yield item
