"""The error classes of Citadel.

A class has a `code` of its own, which `citadel_contracts.errors` lists with its HTTP status and whether the same
call can succeed later. Its docstring is its default message. Errors cross processes as `ErrorData`: `CitadelError.data`
gives it, `from_data` takes it.
"""

from typing import Any, Self

from citadel_common.text import printable
from citadel_contracts.errors import INTERNAL, KINDS, ErrorData, FieldError, place_of, pointer_of

_CLASSES: dict[str, "type[CitadelError]"] = {}


class CitadelError(Exception):
    """Something went wrong inside Citadel.

    Whatever a message quotes is made fit to be stored and shown, and cut; see `citadel_common.text`.

    Args:
        message: What is wrong, where, and what to do; the docstring's first line by default.
        field: Name or path of the argument at fault.
        index: Which item of a list in `field` is at fault.
        retry_after: Seconds after which to try again, where that is known.
        errors: The bad fields by their JSON pointers.
        calls: Calls of an LLM that the step has made so far.
    """

    code: str = INTERNAL
    status: int = KINDS[INTERNAL].status
    retryable: bool = KINDS[INTERNAL].retryable

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        index: int | None = None,
        retry_after: float | None = None,
        errors: tuple[FieldError, ...] = (),
        calls: int | None = None,
    ) -> None:
        super().__init__(printable(message) or type(self).default_message())
        self.field = None if field is None else printable(field)
        self.index = index
        self.retry_after = retry_after
        self.errors = tuple(_printable(bad) for bad in errors)
        self.calls = calls

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Enter the class into the registry; its status and whether it is retryable follow from its code."""
        super().__init_subclass__(**kwargs)
        if cls.code not in KINDS or _CLASSES.setdefault(cls.code, cls) is not cls:
            raise TypeError(f"{cls.__qualname__} needs a code of its own in citadel_contracts.errors.KINDS")
        cls.status, cls.retryable = KINDS[cls.code].status, KINDS[cls.code].retryable

    @property
    def message(self) -> str:
        """Return what happened and what to do."""
        return str(self.args[0])

    @property
    def data(self) -> ErrorData:
        """Return the error for the wire."""
        return ErrorData(
            code=self.code,
            message=self.message,
            field=self.field,
            index=self.index,
            retryable=self.retryable,
            retry_after=self.retry_after,
            errors=self.errors,
            calls=self.calls,
        )

    @classmethod
    def default_message(cls) -> str:
        """Return the docstring's first line."""
        return (cls.__doc__ or cls.code).strip().splitlines()[0]

    @classmethod
    def at(cls, field: str, problem: str, index: int | None = None) -> Self:
        """Return an error about one field, or about one item of it; its message starts with that name."""
        errors = (FieldError(pointer=pointer_of(field, index), detail=problem),)
        return cls(f"{place_of(field, index)}: {problem}", field=field, index=index, errors=errors)

    def about(self, field: str, index: int | None = None) -> Self:
        """Return the same error about another field, as the caller names it."""
        known = self.field is not None and len(self.errors) == 1
        moved = type(self).at(field, self.errors[0].detail if known else self.message, index)
        moved.code, moved.status = self.code, self.status
        moved.retryable, moved.retry_after, moved.calls = self.retryable, self.retry_after, self.calls
        return moved


_CLASSES[INTERNAL] = CitadelError


def _printable(bad: FieldError) -> FieldError:
    shown = {"pointer": printable(bad.pointer), "detail": printable(bad.detail)}
    return bad if (bad.pointer, bad.detail) == tuple(shown.values()) else bad.model_copy(update=shown)


def from_data(data: ErrorData) -> CitadelError:
    """Return the error that came over the wire, of the class of its code where this process has that class."""
    kind = _CLASSES.get(data.code, CitadelError)
    error = kind(
        data.message,
        field=data.field,
        index=data.index,
        retry_after=data.retry_after,
        errors=data.errors,
        calls=data.calls,
    )
    error.code, error.status, error.retryable = data.code, data.status, data.retryable
    return error


def from_result(stored: Any) -> CitadelError:
    """Return the error in the result of a Celery task that failed.

    A worker of an older version names only the class; an exception of Celery's own counts as `internal`.
    """
    failure = stored if isinstance(stored, dict) else {}
    if "error" in failure:
        return from_data(ErrorData.model_validate(failure["error"]))
    parts = failure.get("exc_message", "")
    message = " ".join(map(str, parts)) if isinstance(parts, list) else str(parts)
    named = {kind.__name__: kind for kind in _CLASSES.values()}
    return named.get(str(failure.get("exc_type")), CitadelError)(message)


class InvalidInput(CitadelError):
    """The input is not valid."""

    code = "invalid_input"


class UnknownModel(InvalidInput):
    """No backend has this model."""

    code = "model_not_found"


class TextRejected(InvalidInput):
    """The backend refuses this text."""

    code = "text_rejected"


class BadVector(CitadelError):
    """The backend answered with an unusable vector (wrong length, not finite, or zero)."""

    code = "bad_vector"


class BackendUnavailable(CitadelError):
    """No embedding backend answers; check that it runs and that its URL is right."""

    code = "backend_unavailable"


class BackendRefused(CitadelError):
    """The embedding backend refuses the request; check its API key and settings."""

    code = "backend_refused"


class StoreUnavailable(CitadelError):
    """A store does not answer; check that Redis runs and that its URL is right."""

    code = "store_unavailable"


class StoreBusy(StoreUnavailable):
    """A store has no room for this now; try again later."""

    code = "store_busy"


class StoreFull(StoreUnavailable):
    """A store's disk is full; make room."""

    code = "store_full"


class StoreConflict(StoreUnavailable):
    """Another transaction was in the way; try again."""

    code = "store_conflict"


class StoreMisconfigured(StoreUnavailable):
    """A store lacks a right, a table or a file that Citadel needs; its administrator has to mend that."""

    code = "store_misconfigured"


class StoreFailed(StoreUnavailable):
    """A store failed, and nobody knows whether the same can succeed later."""

    code = "store_failed"


class StoreRejected(CitadelError):
    """A store cannot keep this value."""

    code = "store_rejected"


class DeadlineExceeded(CitadelError):
    """The work did not finish within its deadline."""

    code = "deadline_exceeded"


class Overloaded(CitadelError):
    """The backlog is past its limit; try again later."""

    code = "overloaded"


class StorageFull(CitadelError):
    """A store is full: it takes nothing new until something was removed."""

    code = "storage_full"


class UndecodableMessage(CitadelError):
    """A message on the queue could not be decoded."""

    code = "undecodable_message"


class DeliveriesExhausted(CitadelError):
    """The task's worker died each time it was delivered; the task is a dead letter now."""

    code = "deliveries_exhausted"


class InvalidDefinition(InvalidInput):
    """The workflow definition is not valid."""

    code = "invalid_definition"


class ExpressionFailed(InvalidInput):
    """An expression could not be evaluated."""

    code = "expression_failed"


class PayloadTooLarge(InvalidInput):
    """A payload is over its limit."""

    code = "payload_too_large"


class NotFound(CitadelError):
    """There is no such thing."""

    code = "not_found"


class Conflict(CitadelError):
    """The state of the run does not allow that."""

    code = "conflict"


class LlmUnavailable(CitadelError):
    """The LLM endpoint does not answer; check that it runs and that its URL is right."""

    code = "llm_unavailable"


class LlmRefused(CitadelError):
    """The LLM endpoint refuses the request; check its model, API key and settings."""

    code = "llm_refused"


class BadLlmOutput(CitadelError):
    """The LLM's answer is not what was asked for."""

    code = "bad_llm_output"


class VectorStoreUnavailable(CitadelError):
    """The vector store does not answer; check that Qdrant runs and that its URL is right."""

    code = "vector_store_unavailable"


class VectorStoreRefused(CitadelError):
    """The vector store refuses the request."""

    code = "vector_store_refused"


class StepTimedOut(CitadelError):
    """The step did not finish within its timeout."""

    code = "step_timed_out"


class StartTimedOut(CitadelError):
    """The step waited for its start for longer than its start timeout; no attempt was made meanwhile."""

    code = "start_timed_out"


class RunTimedOut(CitadelError):
    """The run did not finish within its deadline."""

    code = "run_timed_out"


class WorkerLost(CitadelError):
    """The step's worker died each time it was tried."""

    code = "worker_lost"


class KeyOfAncestor(CitadelError):
    """The sub-workflow has the concurrency key of a run that waits for it."""

    code = "key_of_ancestor"


class SubRunFailed(CitadelError):
    """The sub-workflow failed."""

    code = "sub_run_failed"
