"""The error classes of Citadel.

Each error's docstring is its default message. `code` is the stable name in API bodies, results, logs and
counters; `status` the HTTP status; `transient` says whether the same call can succeed later.
"""

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


def by_name(name: str) -> type[CitadelError]:
    """The error class of that name; CitadelError where there is none."""
    found = globals().get(name)
    return found if isinstance(found, type) and issubclass(found, CitadelError) else CitadelError


def by_code(code: str) -> type[CitadelError]:
    """The error class with that code; CitadelError where there is none."""
    classes = (kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, CitadelError))
    return next((kind for kind in classes if kind.code == code), CitadelError)
