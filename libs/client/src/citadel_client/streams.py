"""Streams of a run that go on after a lost connection: when to connect again, and when to give up."""

import time
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import httpx
from pydantic import ValidationError

from citadel_client.decoders import Decoder
from citadel_client.errors import CallTimedOut, CitadelApiError, ServerUnreachable, UnexpectedReply
from citadel_client.options import CONNECT_TIMEOUT_S, CallOptions
from citadel_client.problems import from_response, from_transport

T = TypeVar("T")
STEADY_S = 5.0
"""Failures before a connection that lasted this long no longer count."""
IDLE_S = 30.0
"""The server writes to a stream every few seconds; a connection that is silent for this long is taken for dead."""


class Stream(Generic[T]):
    """State of one stream over all its connections.

    Args:
        path: Path below the base URL.
        decoder: Decodes the items.
        options: How failed connections are retried.
        timeout: Seconds for the whole stream; None for no limit.
        idle: Seconds without a byte before it connects again.
    """

    def __init__(
        self,
        path: str,
        decoder: Decoder[T],
        options: CallOptions,
        *,
        timeout: float | None = None,
        idle: float = IDLE_S,
    ) -> None:
        self._path = path
        self._decoder = decoder
        self._options = options
        self._timeout = timeout
        self._deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        self._idle = idle
        self._made = 0
        self._opened_at: float | None = None

    @property
    def ended(self) -> bool:
        """Return whether every item has come."""
        return self._decoder.ended

    @property
    def _url(self) -> str:
        return self._path + self._decoder.query

    def request(self) -> dict[str, Any]:
        """Return the arguments of httpx's `stream` for the next connection, which asks for what has not come yet.

        Raises:
            CallTimedOut: No time is left.
        """
        self._made += 1
        self._opened_at = None
        self._check_time()
        left = min(self._idle, self._deadline - time.monotonic())
        timeout = httpx.Timeout(left, connect=min(CONNECT_TIMEOUT_S, left))
        return {"method": "GET", "url": self._url, "headers": self._decoder.headers, "timeout": timeout}

    def opened(self, response: httpx.Response) -> None:
        """Begin to decode an answer; the body of an error has been read.

        Raises:
            CitadelApiError: The server refuses.
        """
        if not response.is_success:
            raise from_response(response)
        self._decoder.begin()
        self._opened_at = time.monotonic()

    def take(self, piece: bytes) -> Iterator[T]:
        """Yield the items that the bytes complete.

        Raises:
            CallTimedOut: No time is left.
            CitadelApiError: The server cannot go on.
        """
        self._check_time()
        try:
            for found in self._decoder.take(piece):
                self._made = 0
                yield found
        except (ValidationError, ValueError, TypeError, AttributeError) as error:
            raise UnexpectedReply(f"{self._url} does not stream what a Citadel server does") from error

    def finish(self) -> Iterator[T]:
        """Yield the items left when the server ends the connection in good order.

        Raises:
            ServerUnreachable: The stream is not at its end.
        """
        yield from self._decoder.finish()
        if not self.ended:
            raise ServerUnreachable("the server ended the connection before the stream's end")

    def delay_after(self, failure: httpx.TransportError | CitadelApiError) -> float:
        """Return the seconds to wait before the next connection.

        Raises:
            CitadelApiError: There is no next connection.
        """
        if self._opened_at is not None and isinstance(failure, httpx.ReadTimeout):
            return 0.0  # an open stream that is silent has not failed: the next connection shows if the server lives
        if self._opened_at is not None and time.monotonic() - self._opened_at > STEADY_S:
            self._made = 1
        error = failure if isinstance(failure, CitadelApiError) else from_transport(failure, self._options.base_url)
        delay = self._options.retry.delay(max(1, self._made), error)
        if delay is None:
            raise error
        return max(0.0, min(delay, self._deadline - time.monotonic()))

    def _check_time(self) -> None:
        if time.monotonic() >= self._deadline:
            raise CallTimedOut(f"the stream did not end within {self._timeout:g} s; the run goes on")
