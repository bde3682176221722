"""Operations of the HTTP API: the request, how its answer is read, and when it is made again."""

import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from citadel_client.errors import CallTimedOut, CitadelApiError, InvalidRequest, TaskFailed, UnexpectedReply, facts_of
from citadel_client.options import CONNECT_TIMEOUT_S, CallOptions
from citadel_client.problems import from_response, from_transport
from citadel_contracts.api import TaskStatus

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
JSON = "application/json"
PAGE = 100
"""Items that a page of a list has at most."""
Content = bytes | Iterable[bytes] | AsyncIterable[bytes]
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Failures before anything could reach the server."""


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[T]):
    """One operation of the HTTP API.

    Attributes:
        method: HTTP method.
        path: Path and query below the base URL.
        read: Reads the result from a good answer.
        content: Body of the request, or a function that returns it anew for each attempt.
        content_type: Media type of the body.
        accepted: Statuses, besides 2xx, whose body is an answer.
        repeatable: Whether it may be made again when the server may have received it.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    content: bytes | Callable[[], Content] | None = None
    content_type: str = JSON
    accepted: frozenset[int] = frozenset()
    repeatable: bool = True

    def request(self, timeout: float) -> dict[str, Any]:
        """Return the arguments of httpx's `request` for one attempt of `timeout` seconds."""
        return {
            "method": self.method,
            "url": self.path,
            "content": self.content() if callable(self.content) else self.content,
            "headers": {"Content-Type": self.content_type} if self.content is not None else {},
            "timeout": httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT_S, timeout)),
        }

    def result(self, response: httpx.Response) -> T:
        """Return the result.

        Raises:
            CitadelApiError: The server refuses.
            UnexpectedReply: The answer is not that of a Citadel server.
        """
        if not response.is_success and response.status_code not in self.accepted:
            raise from_response(response)
        try:
            return self.read(response)
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            message = f"{response.url} did not answer as a Citadel server does"
            raise UnexpectedReply(message, status=response.status_code) from error


def read_as(model: type[M]) -> Callable[[httpx.Response], M]:
    """Return a reader of answers whose JSON is a `model`."""
    return lambda response: model.model_validate_json(response.content)


def get(path: str, model: type[M]) -> Operation[M]:
    """Return the operation that gets a `model`."""
    return Operation(method="GET", path=path, read=read_as(model))


def get_json(path: str) -> Operation[Any]:
    """Return the operation that gets any JSON."""
    return Operation(method="GET", path=path, read=lambda response: orjson.loads(response.content))


def post(path: str, model: type[M], content: bytes | None = None, *, repeatable: bool = True) -> Operation[M]:
    """Return the operation that sends JSON and is answered by a `model`."""
    return Operation(method="POST", path=path, read=read_as(model), content=content, repeatable=repeatable)


def path_of(*parts: str) -> str:
    """Return the path of a resource; a part may hold any character."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def query(parameters: Mapping[str, Any], *more: tuple[str, str]) -> str:
    """Return the query of a URL, with its question mark; parameters that are None are left out."""
    given = [(name, query_value(value)) for name, value in parameters.items() if value is not None]
    return f"?{urlencode([*given, *more])}"


def query_value(value: object) -> str:
    """Return a parameter's value as text; times in ISO 8601."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def encode(model: type[BaseModel], /, **fields: Any) -> bytes:
    """Return the JSON of a request body.

    Raises:
        InvalidRequest: The fields are not what the API takes.
    """
    try:
        return model(**fields).model_dump_json(exclude_none=True).encode()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidRequest(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, TypeError) as error:
        raise InvalidRequest(str(error).splitlines()[0]) from error


def dump(value: object, name: str = "the request") -> bytes:
    """Return the JSON of plain values and NumPy arrays.

    Raises:
        InvalidRequest: The value cannot be written as JSON; the message calls it `name`.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        raise InvalidRequest(f"{name} is not JSON: {error}") from error


def result_of(status: TaskStatus, read: Callable[[dict[str, Any]], T]) -> T | None:
    """Return the result of a task; None while it runs.

    Raises:
        TaskFailed: The task failed or was revoked.
        UnexpectedReply: The result does not have the form that `read` expects.
    """
    if status.status in {"failed", "revoked"}:
        failure = status.error
        message = failure.message if failure else f"the task was {status.status}"
        facts = {"code": status.status} if failure is None else facts_of(failure)
        raise TaskFailed(message, **facts | {"trace_id": status.trace_id})
    if status.status != "succeeded":
        return None
    try:
        return read(status.result or {})
    except ValidationError as error:
        raise UnexpectedReply(f"the result of task {status.task_id} does not have the expected form") from error


class Attempts:
    """The attempts of one call, within its timeout.

    Args:
        options: How the call is retried.
        timeout: Seconds for all attempts; the options' by default.
    """

    def __init__(self, options: CallOptions, timeout: float | None = None) -> None:
        self._options = options
        self._deadline = time.monotonic() + (options.timeout if timeout is None else timeout)
        self._made = 0

    def begin(self) -> float:
        """Count an attempt and return the seconds it may take.

        Raises:
            CallTimedOut: No time is left.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise CallTimedOut
        self._made += 1
        return left

    def delay_after(self, failure: httpx.TransportError | CitadelApiError, *, repeatable: bool) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            CitadelApiError: There is no next attempt.
        """
        repeatable = repeatable or isinstance(failure, NOT_SENT)
        error = failure if isinstance(failure, CitadelApiError) else from_transport(failure, self._options.base_url)
        delay = self._options.retry.delay(self._made, error) if repeatable else None
        if delay is None or delay >= self._deadline - time.monotonic():
            raise error
        return delay
