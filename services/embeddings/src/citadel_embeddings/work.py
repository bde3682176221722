"""Units of work between the engine and the backends."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Computed:
    """A vector, and what it cost.

    Attributes:
        stored: The vector.
        tokens: Those it is accounted, an even share of its call.
        shared: Whether it was computed for somebody else: another request, or another process.
    """

    stored: Stored
    tokens: int
    shared: bool = False


@dataclass(frozen=True, kw_only=True)
class CallKey:
    """What texts must have in common to share a call; `options` is canonical JSON."""

    backend: str
    model: str
    dimensions: int | None
    own_dimensions: int | None
    max_tokens: int | None
    options: bytes

    @property
    def expected(self) -> int | None:
        """Length that the vectors must have."""
        return self.dimensions or self.own_dimensions


@dataclass(slots=True, eq=False)
class Item:
    """One text on its way to a backend.

    Attributes:
        key: Cache key.
        text: With its prefix.
        cached: Whether the vector is to be stored, and its claim released.
        lane: The most urgent of those who wait for it.
        deadline: The latest of those who wait for it.
        future: What they wait for.
        since: When it began to wait for a server, on the monotonic clock.
        outcome: What will be answered, once it is stored.
        queued: Whether it waits for a call.
        callers: Spans of those who wait for it, where they are exported.
    """

    key: str
    text: str
    cached: bool
    lane: Lane
    deadline: Deadline
    future: asyncio.Future[Computed]
    since: float
    outcome: Computed | Exception | None = None
    queued: bool = False
    callers: list[Span] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Estimated tokens."""
        return len(self.text) // CHARS_PER_TOKEN + 1

    def is_wanted_by_current_span(self) -> None:
        """Notes the span of the one who asks."""
        if tracing.is_on() and tracing.is_sampled():
            self.callers.append(tracing.current_span())

    def join(self, deadline: Deadline) -> None:
        """Another waiter, who may be more patient."""
        self.deadline = max(self.deadline, deadline, key=lambda either: either.at)

    def settle(self) -> None:
        """Answers those who wait."""
        if self.future.done() or self.outcome is None:
            return
        if isinstance(self.outcome, Computed):
            self.future.set_result(self.outcome)
        else:
            self.future.set_exception(self.outcome)
            self.future.exception()  # nobody may be waiting any more, which is no defect


def fail_if_crashed(items: Iterable[Item], task: asyncio.Task[None]) -> None:
    """Done-callback of a task that owes items an outcome: a defect must not leave their callers waiting."""
    if task.cancelled() or task.exception() is None:
        return
    log.error("engine_task_crashed", exc_info=task.exception())
    for item in items:
        item.outcome = item.outcome or CitadelError(f"internal error: {task.exception()!r}")
        item.settle()
