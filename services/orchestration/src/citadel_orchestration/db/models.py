"""Rows of the database as the engine sees them, and the effects of its transitions."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from citadel_common.deadline import Deadline
from citadel_contracts.runs import FINISHED

NO_ITEM = -1
"""`item` of a step that is not an item of a `for_each`."""
FINAL_STEP_STATES = ("succeeded", "failed", "skipped", "cancelled")
"""States that a step keeps; the others are pending, ready, running and waiting. Those of runs are in the contracts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRef:
    """A step of a run, or one item of its `for_each`."""

    run_id: UUID
    step_id: str
    item: int = NO_ITEM


@dataclass(frozen=True, kw_only=True, slots=True)
class StepClaim:
    """The right to execute a step.

    Attributes:
        ref: The step.
        attempt: Fencing number: a completion with an older attempt changes nothing.
        tries: Attempts that failed and count for the retry policy.
        workflow_id: Of its run.
        kind: Of its run.
        lane: Of its run.
        depth: Number of runs that its run is nested in.
        run_deadline: When its run times out, by PostgreSQL's clock.
        trace: Trace context of its run.
        calls: Calls of an LLM that the failed attempts have made.
        leased_at: When its lease was asked for, on this process's monotonic clock.
    """

    ref: StepRef
    attempt: int
    tries: int
    workflow_id: str
    kind: str
    lane: int
    depth: int
    run_deadline: Deadline | None
    trace: dict[str, str] | None = None
    calls: int = 0
    leased_at: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True, kw_only=True)
class Wait:
    """The wait of a step for a slot.

    Attributes:
        waiting_for: Name of the resource.
        since: When it began.
        until: When it ended.
    """

    waiting_for: str
    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return max(0.0, (self.until - self.since).total_seconds())


@dataclass(frozen=True, kw_only=True)
class ParentStep:
    """The step that waits for a sub-run."""

    ref: StepRef
    attempt: int


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """A run to record.

    Attributes:
        run_id: Its id, chosen by the submitter.
        kind: workflow, task or batch.
        definition: As submitted, checked.
        steps: Ids, in order.
        roots: Ids of the steps that depend on nothing.
        start_timeouts: Seconds that each of the steps may wait for its start; none where no root waits.
        fingerprint: Digest of the submission; another one under the same idempotency key is a conflict.
        deadline: Seconds that the run may take.
        reply_to: Celery task id whose result is the run's; a recorded run may have several, one per line.
        canvas: What follows that task, as JSON; None if nothing does.
        caller: Name of the API's caller; a sub-run has its parent's.
    """

    run_id: UUID
    kind: str
    workflow_id: str
    definition: bytes
    context: bytes
    steps: list[str]
    roots: list[str]
    start_timeouts: list[float] = field(default_factory=list)
    fingerprint: bytes
    lane: int = 3
    labels: dict[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    concurrency_key: str | None = None
    concurrency_limit: int | None = None
    deadline: float | None = None
    reply_to: str | None = None
    canvas: bytes | None = None
    parent: ParentStep | None = None
    depth: int = 0
    trace: dict[str, str] | None = None
    caller: str | None = None


@dataclass(kw_only=True)
class RunRow:
    """A run's row, locked by the transaction that reads it."""

    run_id: UUID
    kind: str
    workflow_id: str
    status: str
    lane: int
    unfinished: int
    last_event: int
    concurrency_key: str | None
    concurrency_limit: int | None
    parent_run_id: UUID | None
    parent_step: str | None
    parent_item: int | None
    parent_attempt: int | None
    reply_to: str | None
    depth: int
    trace: dict[str, str] | None
    deadline_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    output: bytes | None = None
    error: dict[str, Any] | None = None

    @property
    def is_finished(self) -> bool:
        """True once the run has ended."""
        return self.status in FINISHED

    @property
    def may_start_steps(self) -> bool:
        """False in a run that is paused or has ended."""
        return self.status in ("queued", "running")

    @property
    def parent(self) -> ParentStep | None:
        """The step that waits for this run."""
        if self.parent_run_id is None or self.parent_step is None:
            return None
        item = NO_ITEM if self.parent_item is None else self.parent_item
        ref = StepRef(run_id=self.parent_run_id, step_id=self.parent_step, item=item)
        return ParentStep(ref=ref, attempt=self.parent_attempt or 0)


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A run that ended, with all that has to happen after the commit.

    Attributes:
        error: Code of its error.
        created_at: When it was accepted; None where its end was reported to telemetry before.
        finished_at: When it ended; set after the commit.
        trace: Trace context of the run.
    """

    run_id: UUID
    status: str
    parent: ParentStep | None = None
    reply_to: str | None = None
    concurrency_key: str | None = None
    kind: str = ""
    workflow_id: str = ""
    error: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None
    trace: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedAttempt:
    """An attempt of a step that ended in a transition.

    Attributes:
        ref: The step.
        type: Its type.
        number: The attempt.
        before: The last attempt before it that was begun; None for the first.
        outcome: succeeded, skipped, failed, cancelled; retried, handed_back and lost where another follows.
        error: Code of its error.
        began: When it was claimed.
        ended: When it ended.
    """

    ref: StepRef
    type: str
    number: int
    before: int | None
    outcome: str
    error: str | None
    began: datetime
    ended: datetime


@dataclass(kw_only=True)
class Effects:
    """The work of the caller after a committed transition.

    Attributes:
        applied: False for a late or duplicate transition, which changed nothing.
        claims: Steps that this worker executes now.
        ready: Steps that any worker may take, where the caller executes none.
        orphans: Sub-runs for which no step waits any more.
        lane: Of the run.
        ended: The run, if it ended.
        attempts: Attempts that ended.
        changed_line: Concurrency key in whose line the run gave way, or came back to its place.
    """

    applied: bool = True
    claims: list[StepClaim] = field(default_factory=list)
    ready: list[StepRef] = field(default_factory=list)
    orphans: list[UUID] = field(default_factory=list)
    lane: int = 3
    ended: EndedRun | None = None
    attempts: list[EndedAttempt] = field(default_factory=list)
    changed_line: str | None = None

    @property
    def freed_key(self) -> str | None:
        """Concurrency key of which another run may start now."""
        return self.changed_line if self.ended is None else self.ended.concurrency_key
