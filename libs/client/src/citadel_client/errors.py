"""Errors of calls to a Citadel server."""

from typing import Any, ClassVar

from citadel_contracts.errors import ErrorData, FieldError
from citadel_contracts.runs import RunView

TEXT_CODES = frozenset({"text_rejected", "text_too_long", "bad_vector"})
INPUT = "input"
"""The field of a request that holds the texts."""


class CitadelApiError(Exception):
    """The server answered with an error.

    Attributes:
        message: What happened and what to do.
        status: HTTP status; None if there was no answer.
        code: Stable name of the error.
        field: Name or path of the argument at fault.
        index: Which item of a list in `field` is at fault.
        retryable: Whether the same call can succeed later.
        trace_id: Id under which the server's traces and logs have this request.
        errors: Bad fields, by JSON pointer.
        retry_after: Seconds the server asks to wait.
    """

    default_code: ClassVar[str] = "error"
    retryable: bool = False

    def __init__(  # noqa: PLR0913  (the members of an error)
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        field: str | None = None,
        index: int | None = None,
        retryable: bool | None = None,
        trace_id: str | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        super().__init__(self.message)
        self.status = status
        self.code = code or self.default_code
        self.field = field
        self.index = index
        self.retryable = type(self).retryable if retryable is None else retryable
        self.trace_id = trace_id
        self.errors = errors
        self.retry_after = retry_after

    def __str__(self) -> str:
        facts = [
            self.code,
            f"HTTP {self.status}" if self.status else "",
            f"trace {self.trace_id}" * bool(self.trace_id),
        ]
        fields = [f"\n  {error.pointer}: {error.detail}" for error in self.errors]
        return f"{self.message} ({', '.join(filter(None, facts))})" + "".join(fields)

    @property
    def bad_items(self) -> dict[int, str]:
        """Reasons of the texts that the server named as bad, by position."""
        head = f"/{INPUT}/"
        places = ((error.pointer.removeprefix(head), error.detail) for error in self.errors)
        named = {int(place): detail for place, detail in places if place.isdecimal()}
        return named or ({self.index: self.message} if self.field == INPUT and self.index is not None else {})

    @property
    def concerns_texts(self) -> bool:
        """Return whether single texts are at fault, so that others may succeed with the same options."""
        return self.code in TEXT_CODES


class InvalidRequest(CitadelApiError):
    """The server refuses the request as invalid."""

    default_code = "invalid_input"

    @property
    def concerns_texts(self) -> bool:
        """Return whether single texts are at fault: the server names one, or names no field."""
        return not self.errors or any(error.pointer.startswith(f"/{INPUT}") for error in self.errors)


class NotAuthorized(CitadelApiError):
    """The API key is missing or has not the necessary scope: set CITADEL_API_KEY."""

    default_code = "not_authorized"


class NotFound(CitadelApiError):
    """The resource does not exist."""

    default_code = "not_found"


class Conflict(CitadelApiError):
    """The state of the resource does not allow the operation."""

    default_code = "conflict"


class RateLimited(CitadelApiError):
    """Too many requests; try again later."""

    default_code = "rate_limited"
    retryable = True


class ServerFailed(CitadelApiError):
    """The server failed."""

    default_code = "internal"


class ServiceUnavailable(ServerFailed):
    """The server cannot serve this now; try again later."""

    default_code = "unavailable"
    retryable = True


class ServerUnreachable(CitadelApiError):
    """No server answers; start one with `citadel dev`."""

    default_code = "unreachable"
    retryable = True


class CallTimedOut(CitadelApiError):
    """The server did not answer in time; allow more with `timeout`."""

    default_code = "timeout"


class UnexpectedReply(CitadelApiError):
    """The answer is not what a Citadel server sends; check the URL."""

    default_code = "unexpected_reply"


class TaskFailed(CitadelApiError):
    """The task failed."""

    default_code = "task_failed"


class RunFailed(CitadelApiError):
    """The run did not succeed.

    Attributes:
        run: The run with its steps; `code` is its error's, or its status if it has no error.
    """

    default_code = "run_failed"

    def __init__(self, run: RunView) -> None:
        error = run.error
        step = f"step {error.step_id}: " if error and error.step_id else ""
        reason = f": {step}{error.message}" if error else ""
        message = f"run {run.run_id} {run.status}{reason}"
        facts = {} if error is None else facts_of(error)
        super().__init__(message, **{"code": run.status} | facts | {"trace_id": run.trace_id})
        self.run = run


class TextsFailed(CitadelApiError):
    """Some texts have no vector; `partial` has the others."""

    default_code = "texts_failed"


def facts_of(error: ErrorData) -> dict[str, Any]:
    """Return the arguments of an exception that tell an error."""
    names = ("code", "field", "index", "retryable", "retry_after", "errors", "trace_id", "status")
    return {name: getattr(error, name) for name in names}


BY_STATUS: dict[int, type[CitadelApiError]] = {
    400: InvalidRequest,
    401: NotAuthorized,
    403: NotAuthorized,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    503: ServiceUnavailable,
}


def error_class(status: int) -> type[CitadelApiError]:
    """Return the class for an HTTP status."""
    return BY_STATUS.get(status, ServerFailed if status >= 500 else CitadelApiError)
