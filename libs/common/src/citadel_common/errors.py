"""The error classes of Citadel.

Each error's docstring is its default message. `code` is the stable name in API bodies, results, logs and
counters; `status` the HTTP status; `transient` says whether the same call can succeed later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class CitadelError(Exception):
    """Something went wrong inside Citadel."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    transient: ClassVar[bool] = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message or type(self).default_message())

    @property
    def message(self) -> str:
        """What happened and what to do."""
        return str(self.args[0])

    @classmethod
    def default_message(cls) -> str:
        """The docstring's first line."""
        return (cls.__doc__ or cls.code).strip().splitlines()[0]


class InvalidInput(CitadelError):
    """The input is not valid."""

    code = "invalid_input"
    status = 422

    @classmethod
    def at(cls, field: str, problem: str) -> "InvalidInput":
        """An error whose message starts with the field's name."""
        return cls(f"{field}: {problem}")


class UnknownModel(InvalidInput):
    """No backend has this model."""

    code = "model_not_found"
    status = 404


class TextRejected(InvalidInput):
    """The backend refuses this text."""

    code = "text_rejected"


class BadVector(CitadelError):
    """The backend answered with an unusable vector (wrong length, not finite, or zero)."""

    code = "bad_vector"
    status = 502


class BackendUnavailable(CitadelError):
    """No embedding backend answers; check that it runs and that its URL is right."""

    code = "backend_unavailable"
    status = 503
    transient = True


class BackendRefused(CitadelError):
    """The embedding backend refuses the request; check its API key and settings."""

    code = "backend_refused"
    status = 502


class StoreUnavailable(CitadelError):
    """A store does not answer; check that Redis runs and that its URL is right."""

    code = "store_unavailable"
    status = 503
    transient = True


class DeadlineExceeded(CitadelError):
    """The work did not finish within its deadline."""

    code = "deadline_exceeded"
    status = 504


class Overloaded(CitadelError):
    """The backlog is past its limit; try again later."""

    code = "overloaded"
    status = 503
    transient = True


class UndecodableMessage(CitadelError):
    """A message on the queue could not be decoded."""

    code = "undecodable_message"
    status = 400


class DeliveriesExhausted(CitadelError):
    """The task's worker died each time it was delivered; it was put aside as a dead letter."""

    code = "deliveries_exhausted"


class InvalidDefinition(InvalidInput):
    """The workflow definition is not valid."""

    code = "invalid_definition"

    def __init__(self, message: str = "", problems: Sequence["Problem"] | None = None) -> None:
        super().__init__(message)
        self.problems = tuple(problems or ())


class ExpressionFailed(InvalidInput):
    """An expression could not be evaluated."""

    code = "expression_failed"


class PayloadTooLarge(InvalidInput):
    """A payload is over its limit."""

    code = "payload_too_large"
    status = 413


class NotFound(CitadelError):
    """There is no such thing."""

    code = "not_found"
    status = 404


class Conflict(CitadelError):
    """The state of the run does not allow that."""

    code = "conflict"
    status = 409


class LlmUnavailable(CitadelError):
    """The LLM endpoint does not answer; check that it runs and that its URL is right."""

    code = "llm_unavailable"
    status = 503
    transient = True


class LlmRefused(CitadelError):
    """The LLM endpoint refuses the request; check its model, API key and settings."""

    code = "llm_refused"
    status = 502


class BadLlmOutput(CitadelError):
    """The LLM's answer is not what was asked for."""

    code = "bad_llm_output"
    status = 502
    transient = True


class VectorStoreUnavailable(CitadelError):
    """The vector store does not answer; check that Qdrant runs and that its URL is right."""

    code = "vector_store_unavailable"
    status = 503
    transient = True


class VectorStoreRefused(CitadelError):
    """The vector store refuses the request."""

    code = "vector_store_refused"
    status = 422


class StepTimedOut(CitadelError):
    """The step did not finish within its timeout."""

    code = "step_timed_out"
    status = 504
    transient = True


class RunTimedOut(CitadelError):
    """The run did not finish within its deadline."""

    code = "run_timed_out"
    status = 504


class WorkerLost(CitadelError):
    """The step's worker died each time it was tried."""

    code = "worker_lost"


class SubRunFailed(CitadelError):
    """The sub-workflow failed."""

    code = "sub_run_failed"


class SignalMissing(CitadelError):
    """The signal did not come within its timeout."""

    code = "signal_missing"
    status = 504


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong with a document.

    Attributes:
        pointer: Where, as a JSON pointer (RFC 6901); empty for the whole.
        message: What is wrong and what to do.
        code: Stable name of the kind.
    """

    pointer: str
    message: str
    code: str


def by_name(name: str) -> type[CitadelError]:
    """The error class of that name; CitadelError where there is none."""
    found = globals().get(name)
    return found if isinstance(found, type) and issubclass(found, CitadelError) else CitadelError


def by_code(code: str) -> type[CitadelError]:
    """The error class with that code; CitadelError where there is none."""
    classes = (kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, CitadelError))
    return next((kind for kind in classes if kind.code == code), CitadelError)
