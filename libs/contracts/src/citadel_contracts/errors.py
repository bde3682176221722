"""Errors on the wire: one form for the queue, the database, task results and HTTP, and the list of codes."""

import email.utils
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


@dataclass(frozen=True)
class ErrorKind:
    """Meaning of an error code.

    Attributes:
        status: HTTP status of the answer.
        retryable: Whether the same call can succeed later.
        retry_after: Seconds after which a retry makes sense, where the error itself names none.
    """

    status: int
    retryable: bool = False
    retry_after: float = 1.0


INTERNAL = "internal"
_DAY = 86_400.0
KINDS: Mapping[str, ErrorKind] = {
    INTERNAL: ErrorKind(500),
    # requests
    "invalid_input": ErrorKind(422),
    "invalid_definition": ErrorKind(422),
    "expression_failed": ErrorKind(422),
    "model_not_found": ErrorKind(404),
    "text_rejected": ErrorKind(422),
    "text_too_long": ErrorKind(400),
    "payload_too_large": ErrorKind(413),
    "undecodable_message": ErrorKind(400),
    "not_found": ErrorKind(404),
    "conflict": ErrorKind(409),
    # HTTP
    "malformed_request": ErrorKind(400),
    "url_too_long": ErrorKind(414),
    "headers_too_large": ErrorKind(431),
    "headers_timed_out": ErrorKind(408),
    "too_many_connections": ErrorKind(429, retryable=True, retry_after=5),
    "too_many_streams": ErrorKind(429, retryable=True, retry_after=5),
    "malformed_body": ErrorKind(400),
    "unauthorized": ErrorKind(401),
    "forbidden": ErrorKind(403),
    "task_not_found": ErrorKind(404),
    "method_not_allowed": ErrorKind(405),
    "upload_stalled": ErrorKind(408),
    "body_too_large": ErrorKind(413),
    "unsupported_media_type": ErrorKind(415),
    "rate_limited": ErrorKind(429, retryable=True),
    "stopping": ErrorKind(503, retryable=True),
    # embedding backends
    "bad_vector": ErrorKind(502),
    "backend_refused": ErrorKind(502),
    "backend_failed": ErrorKind(502, retryable=True),
    "backend_unavailable": ErrorKind(503, retryable=True, retry_after=5),
    "backend_timed_out": ErrorKind(504, retryable=True, retry_after=5),
    "model_changed": ErrorKind(503, retryable=True),
    # LLM endpoints
    "bad_llm_output": ErrorKind(502, retryable=True),
    "llm_refused": ErrorKind(502),
    "llm_unavailable": ErrorKind(503, retryable=True),
    # stores
    "store_unavailable": ErrorKind(503, retryable=True),
    "store_busy": ErrorKind(503, retryable=True, retry_after=2),
    "store_full": ErrorKind(503, retryable=True, retry_after=30),
    "store_conflict": ErrorKind(503, retryable=True),
    "store_misconfigured": ErrorKind(503, retryable=True, retry_after=30),
    "store_failed": ErrorKind(503, retryable=True, retry_after=5),
    "store_rejected": ErrorKind(422),
    "vector_store_refused": ErrorKind(422),
    "vector_store_unavailable": ErrorKind(503, retryable=True),
    # tasks, steps and runs
    "overloaded": ErrorKind(503, retryable=True, retry_after=2),
    "storage_full": ErrorKind(503, retryable=True, retry_after=60),
    "deadline_exceeded": ErrorKind(504),
    "deliveries_exhausted": ErrorKind(500),
    "step_timed_out": ErrorKind(504, retryable=True),
    "start_timed_out": ErrorKind(504, retryable=True),
    "run_timed_out": ErrorKind(504),
    "worker_lost": ErrorKind(500),
    "sub_run_failed": ErrorKind(500),
    "key_of_ancestor": ErrorKind(422),
}
"""All codes of Citadel. They are stable; one of a newer version counts as `internal`."""


def kind_of(code: str) -> ErrorKind:
    """Return the meaning of a code; an unknown one means `internal`."""
    return KINDS.get(code, KINDS[INTERNAL])


class _Sparse(BaseModel):
    """A model that is sent without what is not known; readers ignore fields that they do not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_serializer(mode="wrap")
    def _known(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None and value != ()}


LONGEST = 500
"""Characters of a name, pointer or detail; clients send names of any length."""


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


Shown = Annotated[str, AfterValidator(_shown)]


class FieldError(_Sparse):
    """One bad field; `code` names the kind of badness where there are many."""

    pointer: Shown
    detail: Shown
    code: str | None = None


class ErrorData(_Sparse):
    """An error as data.

    Attributes:
        code: Stable name of the kind.
        message: What is wrong, where, and what to do.
        field: Name or path of the argument at fault, such as `text` or `batch_data[3].text`.
        index: Which item of a list in `field` is at fault.
        retryable: Whether the same call can succeed later; from the code where an older version did not say.
        retry_after: Seconds after which to try again, where that is known.
        errors: The bad fields, each by its JSON pointer.
        trace_id: Id of the trace in which the error happened.
        calls: Calls of an LLM that the step has made so far, in all its attempts.
    """

    code: str = INTERNAL
    message: str = ""
    field: Shown | None = None
    index: int | None = None
    retryable: bool = Field(default_factory=lambda given: kind_of(given.get("code", INTERNAL)).retryable)
    retry_after: float | None = None
    errors: tuple[FieldError, ...] = ()
    trace_id: str | None = None
    calls: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status; of a code that this version does not know, 500, or 503 where a retry may help."""
        unknown = HTTPStatus.SERVICE_UNAVAILABLE if self.retryable else HTTPStatus.INTERNAL_SERVER_ERROR
        return KINDS[self.code].status if self.code in KINDS else unknown


def place_of(field: str, index: int | None = None) -> str:
    """Return the name of a field, or of one item of it, such as `text[3]`."""
    return field if index is None else f"{field}[{index}]"


def pointer_of(field: str, index: int | None = None) -> str:
    """Return the JSON pointer of a field's path, or of one item of it, such as `/batch_data/3/text`."""
    return json_pointer(place_of(field, index).replace("[", ".").replace("]", "").split("."))


def json_pointer(path: Iterable[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) of the names and indices that lead to a value."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def path_of_pointer(pointer: str) -> tuple[str, ...]:
    """Return the names and indices of a JSON pointer, all as strings."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def seconds_of_retry_after(header: str | None, date: str | None = None, age: str | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, a day at most: a number, or a date (RFC 9110).

    Args:
        header: Its value.
        date: The response's Date, which tells the server's clock; the clocks of two hosts may differ by hours.
        age: The response's Age, which a cache adds that has kept it for so many seconds.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        seconds = _time_of(header) - server_time(date, age)
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _DAY)


def server_time(date: str | None, age: str | None = None) -> float:
    """Return the seconds since the epoch by the clock that wrote a response's Date; by this host's without it."""
    seconds = math.nan if date is None else _time_of(date)
    return time.time() if math.isnan(seconds) else seconds + (int(age) if age is not None and age.isdecimal() else 0)


def _time_of(date: str) -> float:
    """Return the seconds since the epoch of a date in a header; NaN if it is not one."""
    try:
        moment = email.utils.parsedate_to_datetime(date)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return math.nan
