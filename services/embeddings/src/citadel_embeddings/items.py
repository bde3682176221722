"""The types that pass between the engine and the endpoints: a text, its result, and a batch of texts."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import structlog
from opentelemetry.trace import Span

from citadel_common.deadline import Deadline
from citadel_common.embeddings.vectors import Stored
from citadel_common.errors import CitadelError
from citadel_common.telemetry import tracing
from citadel_contracts import Lane

log = structlog.get_logger(__name__)

CHARS_PER_TOKEN = 4
"""Rough, for budgets only."""
Source = Literal["cache", "shared", "backend", "error"]
"""Where the result of a text came from; see the metric `citadel_texts_total`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextResult:
    """Vector or error of one text.

    Attributes:
        stored: The vector, and whether its text was cut; None where there is an error.
        error: Why there is no vector.
        tokens: Tokens that a backend counted: an even share of its call.
        may_be_kept: Whether it is known that the vector is of the version of the model that its key names.
        source: Where the vector came from; `shared` if another request or another process had it computed.
    """

    stored: Stored | None = None
    error: CitadelError | None = None
    tokens: int = 0
    may_be_kept: bool = True
    source: Source = "backend"

    @classmethod
    def failed(cls, error: CitadelError) -> Self:
        """Return the result of a text without a vector."""
        return cls(error=error, source="error")

    def as_shared(self) -> Self:
        """Return the same result for a caller who joined the computation of another."""
        return self if self.error is not None else replace(self, source="shared")


@dataclass(frozen=True, kw_only=True)
class BatchKey:
    """The properties that texts must share to travel in one backend call.

    Attributes:
        backend: Name of the backend.
        model: Name of the model.
        version: Version of the model; None if its servers name none.
        dimensions: Length asked for; None for the model's own.
        own_dimensions: The model's own length; None if it is not known.
        max_tokens: The model's context; None if it is not known.
        options: Backend options as canonical JSON.
        matryoshka: Whether its vectors may be shortened.
        cut: Whether texts that are too long are cut; otherwise they are refused.
    """

    backend: str
    model: str
    dimensions: int | None
    own_dimensions: int | None
    max_tokens: int | None
    options: bytes
    version: str | None = None
    matryoshka: bool = False
    cut: bool = False

    @property
    def vector_size(self) -> int | None:
        """Length that the vectors must have; None if it is not known."""
        return self.dimensions or self.own_dimensions


@dataclass(slots=True, eq=False)
class Item:
    """One distinct text under way, for all who wait for it.

    Attributes:
        key: Cache key.
        text: The text with its prefix.
        lane: The most urgent lane of its callers.
        deadline: The latest deadline of its callers.
        future: Answered with the result.
        since: When it began to wait for a server, on the monotonic clock.
        claimed: Whether this process holds the claim on its key: its vector is stored, then the claim released.
        result: The result, from when it is known; `answer` passes it on.
        queued: Whether it waits for a batch.
        crashes: Calls with it during which a server ended.
        waiting: Callers that have not been cancelled.
        abandoned: Whether it was taken out of the queue because none is left; a later caller begins anew.
        callers: Spans of its callers, where they are exported.
    """

    key: str
    text: str
    lane: Lane
    deadline: Deadline
    future: asyncio.Future[TextResult]
    since: float
    claimed: bool = False
    result: TextResult | None = None
    queued: bool = False
    crashes: int = 0
    waiting: int = 0
    abandoned: bool = False
    callers: list[Span] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Estimated tokens."""
        return len(self.text) // CHARS_PER_TOKEN + 1

    def add_current_span(self) -> None:
        """Note the current span as one of the callers'."""
        if tracing.is_on() and tracing.is_sampled():
            self.callers.append(tracing.current_span())

    def extend_deadline(self, deadline: Deadline) -> None:
        """Let the item live as long as another caller waits for it."""
        self.deadline = max(self.deadline, deadline, key=lambda either: either.at)

    def answer(self) -> None:
        """Give the result, if there is one, to the callers."""
        if self.result is not None and not self.future.done():
            self.future.set_result(self.result)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Items of one backend call.

    Attributes:
        key: What they share.
        items: At least one.
        truncate: Whether the backend may cut texts that are too long.
        avoid: URLs that failed at these texts or answered them with unusable vectors.
        attempt: How often a single text has been tried, this attempt included.
        spare_until: Time on the monotonic clock until which the last URL alive is not risked for these texts.
    """

    key: BatchKey
    items: Sequence[Item]
    truncate: bool = False
    avoid: frozenset[str] = frozenset()
    attempt: int = 1
    spare_until: float = 0.0

    @property
    def tokens(self) -> int:
        """Estimated tokens of all texts."""
        return sum(item.tokens for item in self.items)

    @property
    def deadline(self) -> Deadline:
        """The deadline of the most patient caller; callers may join while a call is under way."""
        return max((item.deadline for item in self.items), key=lambda deadline: deadline.at)

    @property
    def since(self) -> float:
        """When the last of the items began to wait for a server."""
        return max(item.since for item in self.items)


def fail_if_crashed(items: Iterable[Item], task: asyncio.Task[None]) -> None:
    """Done-callback of a task that owes items a result: answer them with an internal error if the task crashed."""
    if task.cancelled() or task.exception() is None:
        return
    log.error("engine_task_crashed", exc_info=task.exception())
    for item in items:
        item.result = item.result or TextResult.failed(CitadelError(f"internal error: {task.exception()!r}"))
        item.answer()
