"""The protocol without the network: generators that say what to send and when to wait.

A flow yields `Send` and `Pause` and is given answers; a driver (see `drivers`) performs them, blocking or
not. So retries, deadlines and polling are written once for both colours.
"""

import time
from collections.abc import AsyncIterable, Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from citadel_client.errors import CallTimedOut, CitadelApiError, InvalidRequest, UnexpectedReply
from citadel_client.problems import from_response, from_transport
from citadel_client.retries import RetryPolicy

T = TypeVar("T")
JSON = "application/json"
Content = bytes | Iterable[bytes] | AsyncIterable[bytes]
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Failures before anything could reach the server."""


@dataclass(frozen=True, kw_only=True)
class Send:
    """Perform one HTTP exchange."""

    method: str
    path: str
    content: Content | None
    timeout: float
    content_type: str = JSON


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Wait for some seconds."""

    seconds: float


Flow = Generator[Send | Pause, Any, T]


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One operation of the HTTP API.

    Attributes:
        method: HTTP method.
        path: Path below the base URL.
        read: Makes the result of a good answer.
        body: Makes the request's JSON, or its content as it is sent; may raise ValidationError.
        content_type: What the content is.
        good: Statuses, beside 2xx, whose body is an answer.
        repeatable: Whether it may be made again when it may have reached the server.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: Callable[[], BaseModel | Content] | None = None
    content_type: str = JSON
    good: frozenset[int] = frozenset()
    repeatable: bool = True

    def content(self) -> Content | None:
        """The request's body.

        Raises:
            InvalidRequest: The arguments are not what the API takes.
        """
        if self.body is None:
            return None
        try:
            made = self.body()
            return made.model_dump_json(exclude_none=True).encode() if isinstance(made, BaseModel) else made
        except (ValidationError, ValueError, TypeError) as error:
            raise InvalidRequest(_first_line(error)) from error

    def result(self, response: httpx.Response) -> T:
        """What the answer means."""
        if not response.is_success and response.status_code not in self.good:
            raise from_response(response)
        try:
            return self.read(response)
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            message = f"{response.url} did not answer as a Citadel server does"
            raise UnexpectedReply(message, status=response.status_code) from error


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).splitlines()[0]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How calls are made: where to, how long all attempts of one may take, and how it is retried."""

    base_url: str
    timeout: float
    retry: RetryPolicy = field(default_factory=RetryPolicy)


def exchange(call: Call[T], terms: Terms) -> Flow[T]:
    """Make a call, again where that can help, within the time allowed."""
    deadline = time.monotonic() + terms.timeout
    made = 0
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise CallTimedOut
        made += 1
        try:
            response = yield Send(
                method=call.method,
                path=call.path,
                content=call.content(),
                timeout=left,
                content_type=call.content_type,
            )
            return call.result(response)
        except httpx.TransportError as broken:
            failure = from_transport(broken, terms.base_url)
            again = call.repeatable or isinstance(broken, NOT_SENT)
        except CitadelApiError as refused:
            failure, again = refused, call.repeatable
        delay = terms.retry.delay(made, failure) if again else None
        if delay is None or delay >= deadline - time.monotonic():
            raise failure
        yield Pause(seconds=delay)
