# Generated from _async by `make sync-client`; edits here are lost.
"""Connections to one server: calls with retries, streams with reconnects."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
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


class Connection:
    """Pool of connections to one server, with the options of every call."""

    def __init__(self, http: httpx.Client, options: CallOptions) -> None:
        self.options = options
        self._http = http

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, operation: Operation[T], *, timeout: float | None = None) -> T:
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
                response = self._http.request(**operation.request(attempts.begin()))
                return operation.result(response)
            except (httpx.TransportError, CitadelApiError) as failure:
                delay = attempts.delay_after(failure, repeatable=operation.repeatable)
            time.sleep(delay)

    def pages(
        self, model: type[P], items: Callable[[P], list[T]], path: Callable[[str | None, int], str], limit: int | None
    ) -> Iterator[T]:
        """Yield the items of a list, whose pages are fetched when they are needed.

        Args:
            model: Model of a page.
            items: Returns the items of a page.
            path: Returns the path of a page, for a cursor and a number of items.
            limit: Maximum number of items; None for all.
        """
        cursor, left = None, limit
        while left is None or left > 0:
            page = self.call(get(path(cursor, PAGE if left is None else min(PAGE, left)), model))
            found = items(page)
            yield from found
            cursor, left = page.next_cursor, None if left is None else left - len(found)
            if cursor is None:
                return

    def stream(self, stream: Stream[T]) -> Iterator[T]:
        """Yield the items of a stream, connecting again when a connection is lost.

        Raises:
            CitadelApiError: The stream cannot go on.
        """
        while not stream.ended:
            try:
                with closing(self._connected(stream)) as items:
                    yield from items
            except (httpx.TransportError, CitadelApiError) as failure:
                time.sleep(stream.delay_after(failure))

    def _connected(self, stream: Stream[T]) -> Generator[T, None, None]:
        with self._http.stream(**stream.request()) as response:
            if not response.is_success:
                response.read()
            stream.opened(response)
            for piece in response.iter_bytes():
                for item in stream.take(piece):
                    yield item
                if stream.ended:
                    return
            for item in stream.finish():
                yield item
