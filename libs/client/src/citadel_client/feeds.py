"""Streams that go on after a drop: when to connect again, and when to give up."""

import time
from collections.abc import Iterator
from typing import Generic, TypeVar

import httpx
from pydantic import ValidationError

from citadel_client.decoders import Decoder
from citadel_client.errors import CallTimedOut, CitadelApiError, ServerUnreachable, UnexpectedReply
from citadel_client.flow import Terms
from citadel_client.problems import from_response, from_transport

T = TypeVar("T")
CONNECT_TIMEOUT_S = 5.0
STEADY_S = 5.0
"""A connection that lasted this long says that the server is well: failures before it no longer count."""
IDLE_S = 30.0
"""A follower hears from the server every few seconds; after this long its connection is taken for dead."""


class Feed(Generic[T]):
    """One stream of the server, over as many connections as it takes; a driver performs it.

    Args:
        path: Path below the base URL.
        decoder: Makes things of bytes.
        terms: How failed connections are retried.
        timeout: Seconds for all of it; None for as long as it takes.
        idle: Seconds without a byte after which it is connected anew.
    """

    def __init__(
        self, path: str, decoder: Decoder[T], terms: Terms, *, timeout: float | None = None, idle: float = IDLE_S
    ) -> None:
        self._path = path
        self._decoder = decoder
        self._terms = terms
        self._timeout = timeout
        self._deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        self._idle = idle
        self._made = 0
        self._opened_at: float | None = None

    @property
    def path(self) -> str:
        """Where to ask next: for what has not come yet."""
        return self._path + self._decoder.query()

    @property
    def ended(self) -> bool:
        """Whether everything has come."""
        return self._decoder.ended

    def headers(self) -> dict[str, str]:
        """Headers of the next request."""
        return self._decoder.headers()

    def timeouts(self) -> httpx.Timeout:
        """Timeouts of the next request.

        Raises:
            CallTimedOut: There is no time left.
        """
        self._made += 1
        self._opened_at = None
        self._check_time()
        left = min(self._idle, self._deadline - time.monotonic())
        return httpx.Timeout(left, connect=min(CONNECT_TIMEOUT_S, left))

    def opened(self, response: httpx.Response) -> None:
        """The server answers; for an error the body has been read.

        Raises:
            CitadelApiError: It refuses.
        """
        if not response.is_success:
            raise from_response(response)
        self._decoder.begin()
        self._opened_at = time.monotonic()

    def take(self, piece: bytes) -> Iterator[T]:
        """What the bytes complete.

        Raises:
            CallTimedOut: The time is over.
            CitadelApiError: The server cannot go on.
        """
        self._check_time()
        try:
            for found in self._decoder.take(piece):
                self._made = 0
                yield found
        except (ValidationError, ValueError, TypeError, AttributeError) as error:
            raise UnexpectedReply(f"{self.path} does not stream what a Citadel server does") from error

    def finish(self) -> Iterator[T]:
        """What is left at a connection's end in good order.

        Raises:
            ServerUnreachable: It was not the stream's end.
        """
        yield from self._decoder.finish()
        if not self.ended:
            raise ServerUnreachable("the server ended the connection before the stream's end")

    def pause_after(self, failure: httpx.TransportError | CitadelApiError) -> float:
        """Seconds until the next connection.

        Raises:
            CitadelApiError: There is to be none.
        """
        if self._opened_at is not None and isinstance(failure, httpx.ReadTimeout):
            return 0.0  # nothing was new; the server is asked again, which shows whether it lives
        if self._opened_at is not None and time.monotonic() - self._opened_at > STEADY_S:
            self._made = 1
        error = failure if isinstance(failure, CitadelApiError) else from_transport(failure, self._terms.base_url)
        delay = self._terms.retry.delay(max(1, self._made), error)
        if delay is None:
            raise error
        return max(0.0, min(delay, self._deadline - time.monotonic()))

    def _check_time(self) -> None:
        if time.monotonic() >= self._deadline:
            raise CallTimedOut(f"the stream did not end within {self._timeout:g} s; the run goes on")
