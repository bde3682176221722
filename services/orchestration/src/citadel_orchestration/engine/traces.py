"""Spans and metrics of runs and attempts, with the times that the database holds.

A span is made by the process that records the end, long after other processes have named it as their parent. So the
ids are derived from run, step and attempt. A run's row keeps the context of its root span, the span id of the root's
`parent`, and for a retried run the time `since` which it runs again.
"""

from datetime import datetime
from uuid import UUID

from opentelemetry.trace import SpanContext

from citadel_common.telemetry import Metrics, names, spans, tracing
from citadel_orchestration.db.models import NO_ITEM, EndedAttempt, EndedRun, StepRef, Wait

Trace = dict[str, str]
_FAILED = frozenset({"failed", "timed_out"})
_FAILED_ATTEMPTS = frozenset({"failed", "retried", "lost"})


def of_new_run(run_id: UUID) -> Trace | None:
    """Return the trace context for the row of a run that is submitted now; None where it is not traced."""
    parent = tracing.current()
    if not tracing.is_on() or not parent.is_valid:
        return None
    return _kept(tracing.sibling(parent, "run", run_id), parent)


def of_retry(run_id: UUID, trace: Trace | None, *, since: datetime, event: int) -> Trace | None:
    """Return the trace context of a retried run: a new root span below that of the run that ended."""
    before = tracing.span_context_of(trace)
    if trace is None or not before.is_valid:
        return trace
    return _kept(tracing.sibling(before, "run", run_id, event), before) | {"since": since.isoformat()}


def of_attempt(trace: Trace | None, ref: StepRef, attempt: int) -> SpanContext | None:
    """Return the context of an attempt's span; None where its run is not traced."""
    if trace is None or not tracing.is_on():
        return None
    root = tracing.span_context_of(trace)
    return tracing.sibling(root, ref.run_id, ref.step_id, ref.item, attempt) if root.is_valid else None


def report_attempt(attempt: EndedAttempt, trace: Trace | None, metrics: Metrics) -> None:
    """Count an attempt that has ended, and make its span below its run's `trace`."""
    metrics.count(names.STEPS, 1, type=attempt.type, outcome=attempt.outcome)
    metrics.observe(names.STEP_SECONDS, max(0.0, (attempt.ended - attempt.began).total_seconds()), type=attempt.type)
    ref, context = attempt.ref, of_attempt(trace, attempt.ref, attempt.number)
    if context is None:
        return
    before = None if attempt.before is None else of_attempt(trace, ref, attempt.before)
    about = {
        spans.RUN_ID: str(ref.run_id),
        spans.STEP_ID: ref.step_id,
        spans.STEP_TYPE: attempt.type,
        spans.STEP_ITEM: None if ref.item == NO_ITEM else ref.item,
        spans.STEP_ATTEMPT: attempt.number,
        spans.STEP_STATUS: attempt.outcome,
    }
    tracing.emit(
        spans.STEP,
        attempt.type,
        about,
        context=context,
        parent=tracing.span_context_of(trace),
        during=(attempt.began, attempt.ended),
        links=[] if before is None else [before],
        error=(attempt.error or attempt.outcome) if attempt.outcome in _FAILED_ATTEMPTS else None,
    )


def report_wait(wait: Wait, outcome: str, ref: StepRef, attempt: int, trace: Trace | None) -> None:
    """Make the span of a wait that is over, below its run's `trace` and linked to the attempt that followed.

    A claim that found no slot is `attempt`, which has no span: that of the wait takes its place, above what it did.
    A step that was not admitted fails as `attempt`, with a span.
    """
    queued, followed = (of_attempt(trace, ref, number) for number in (attempt, attempt + 1))
    if queued is None or followed is None:
        return
    admitted = outcome == "admitted"
    about = {
        spans.RUN_ID: str(ref.run_id),
        spans.STEP_ID: ref.step_id,
        spans.STEP_ITEM: None if ref.item == NO_ITEM else ref.item,
        spans.STEP_ATTEMPT: attempt + admitted,
        spans.WAIT_FOR: wait.waiting_for,
        spans.WAIT_SECONDS: round(wait.seconds, 3),
        spans.WAIT_OUTCOME: outcome,
    }
    tracing.emit(
        spans.WAIT,
        wait.waiting_for,
        about,
        context=queued if admitted else tracing.sibling(queued, "wait", queued.span_id),
        parent=tracing.span_context_of(trace),
        during=(wait.since, wait.until),
        links=[followed if admitted else queued],
        error=None if admitted else outcome,
    )


def report_run(ended: EndedRun, metrics: Metrics) -> None:
    """Count a run that has ended, and make its root span."""
    if ended.created_at is None or ended.finished_at is None:
        return
    metrics.count(names.RUNS, 1, kind=ended.kind, outcome=ended.status)
    seconds = (ended.finished_at - ended.created_at).total_seconds()
    metrics.observe(names.RUN_SECONDS, max(0.0, seconds), kind=ended.kind)
    trace = ended.trace
    if trace is None or not tracing.is_on():
        return
    root = tracing.span_context_of(trace)
    parent = tracing.with_span_id(root, trace.get("parent", ""))
    about = {
        spans.RUN_ID: str(ended.run_id),
        spans.RUN_KIND: ended.kind,
        spans.RUN_STATUS: ended.status,
        spans.WORKFLOW_ID: ended.workflow_id,
    }
    tracing.emit(
        spans.RUN,
        ended.kind,
        about,
        context=root,
        parent=parent,
        during=(_begin_of(trace, ended.created_at), ended.finished_at),
        error=(ended.error or ended.status) if ended.status in _FAILED else None,
    )


def _kept(own: SpanContext, parent: SpanContext) -> Trace:
    return tracing.carrier_of(own) | {"parent": f"{parent.span_id:016x}"}


def _begin_of(trace: Trace, created_at: datetime) -> datetime:
    since = trace.get("since")
    return created_at if since is None else datetime.fromisoformat(since)
