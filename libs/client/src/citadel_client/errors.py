"""What can go wrong when talking to a Citadel server."""

import re
from typing import ClassVar

from citadel_contracts.api import FieldError
from citadel_contracts.runs import RunView

ITEM_POINTER = re.compile(r"^/input/(\d+)$")
TEXT_CODES = frozenset({"text_rejected", "bad_vector"})


class CitadelApiError(Exception):
    """The server answered with an error.

    Attributes:
        message: What happened and what to do.
        status: HTTP status; None where there was no answer.
        code: Stable name of the error.
        trace_id: Id under which the server's traces and logs have this request.
        errors: Bad fields, by JSON pointer.
        retry_after: Seconds the server asks to wait.
    """

    default_code: ClassVar[str] = "error"
    transient: ClassVar[bool] = False

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        trace_id: str | None = None,
        errors: tuple[FieldError, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        super().__init__(self.message)
        self.status = status
        self.code = code or self.default_code
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
        """Positions of the texts that the server named as bad, and why."""
        found = ((ITEM_POINTER.match(error.pointer), error.detail) for error in self.errors)
        return {int(match[1]): detail for match, detail in found if match}

    @property
    def concerns_texts(self) -> bool:
        """Whether other texts, with the same options, may do better."""
        return self.code in TEXT_CODES


class InvalidRequest(CitadelApiError):
    """The server refuses the request as invalid."""

    default_code = "invalid_input"

    @property
    def concerns_texts(self) -> bool:
        """Whether a text is at fault: the server names one, or names nothing."""
        return not self.errors or any(error.pointer.startswith("/input") for error in self.errors)


class NotAuthorized(CitadelApiError):
    """The server wants an API key, or a better one: set CITADEL_API_KEY."""

    default_code = "not_authorized"


class NotFound(CitadelApiError):
    """The server has no such thing."""

    default_code = "not_found"


class Conflict(CitadelApiError):
    """The state of things does not allow that."""

    default_code = "conflict"


class RateLimited(CitadelApiError):
    """Too many requests; try again later."""

    default_code = "rate_limited"
    transient = True


class ServerFailed(CitadelApiError):
    """The server failed."""

    default_code = "internal"


class ServiceUnavailable(ServerFailed):
    """The server cannot serve this now; try again later."""

    default_code = "unavailable"
    transient = True


class ServerUnreachable(CitadelApiError):
    """No server answers; is it running? Start it with `citadel dev`."""

    default_code = "unreachable"
    transient = True


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
        run: How it ended, with its steps; `code` is its error's, or else its status.
    """

    default_code = "run_failed"

    def __init__(self, run: RunView) -> None:
        error = run.error
        step = f"step {error.step_id}: " if error and error.step_id else ""
        reason = f": {step}{error.message}" if error else ""
        super().__init__(f"run {run.run_id} {run.status}{reason}", code=error.code if error else run.status)
        self.run = run


class TextsFailed(CitadelApiError):
    """Some texts have no vector; `partial` has the others."""

    default_code = "texts_failed"


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
    """The class for an HTTP status."""
    return BY_STATUS.get(status, ServerFailed if status >= 500 else CitadelApiError)
