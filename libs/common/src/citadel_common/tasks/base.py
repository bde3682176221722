"""The task base: every task of Citadel is validated, bounded, counted, retried and dead-lettered the same way.

A service's handler takes a validated payload and a `TaskContext` and returns the result. It knows nothing of Celery.
"""

import functools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from celery import Task
from celery.exceptions import Ignore, Reject, Retry

from citadel_common import logs
from citadel_common.deadline import Deadline
from citadel_common.delivery.accepted_tasks import HEADER as ACCEPTED_HEADER
from citadel_common.delivery.accepted_tasks import ClaimResult
from citadel_common.delivery.queues import SENT_AT_HEADER
from citadel_common.delivery.redelivery import count_delivery
from citadel_common.errors import CitadelError, DeadlineExceeded, DeliveriesExhausted, UndecodableMessage
from citadel_common.stores.redis import ERRORS
from citadel_common.tasks.app import REQUEST, clock_of
from citadel_common.tasks.canvas import LATER, canvas_of, ending, leave_for_later
from citadel_common.tasks.failure_policy import DEADLINE_HEADER, FailurePolicy, HandBack, Revoked, dead_letter_of
from citadel_common.tasks.result_backend import TRACE_ID
from citadel_common.tasks.runtime import TaskRuntime, runtime_of
from citadel_common.telemetry import messages, names, spans, tracing
from citadel_common.validation import parse_payload
from citadel_contracts import Lane, Payload, TaskSpec

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger(__name__)

_ENDS = {
    "ok": "succeeded",
    "retried": "retried",
    "handed_back": "handed_back",
    "celery": "ignored",
    "revoked": "revoked",
}
NO_FAILURE = frozenset({"ok", "retried", "handed_back", "revoked"})
SAFE_PART = 0.9
"""Part of an accepted task's lease for which it is certainly this worker's, without asking."""
_CONTROL = (Ignore, Reject, Retry)
"""Exceptions by which Celery learns what becomes of a task."""

P = TypeVar("P", bound=Payload)
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """The task that a handler runs in.

    Attributes:
        task_id: Celery's id.
        lane: The task's lane.
        deadline: Time at which the work must have ended.
        stopping: Returns whether the worker is stopping; long handlers then raise `HandBack` at a suitable point.
        revoked: Returns whether the task was revoked meanwhile; long handlers then raise `Revoked`.
        cancel_by: Notes how the handler's work is cancelled when the task is revoked; any thread calls it.
        progress: Writes the PROGRESS state.
        last_try: Whether a retryable error would end the task, so that a partial result is better than an error.
        header: Returns a header of the task's message, or None.
        canvas: Returns what follows the task, for a handler that returns `LATER`; None if nothing does.
        time_limit: Seconds that the sender gives the task, if any.
    """

    task_id: str
    lane: Lane
    deadline: Deadline
    stopping: Callable[[], bool]
    progress: Callable[[Any], None]
    last_try: bool
    header: Callable[[str], Any] = lambda _: None
    canvas: Callable[[], bytes | None] = lambda: None
    time_limit: float | None = None
    revoked: Callable[[], bool] = lambda: False
    cancel_by: Callable[[Callable[[], None]], None] = lambda _: None


Handler = Callable[[P, TaskContext], R | Any]
"""Returns a task's result, or `LATER`."""


def register(app: "Celery", spec: TaskSpec[P, R], handler: Handler[P, R]) -> Task:
    """Register `handler` as the task of `spec`."""
    task_class = type(
        f"{spec.name}_task",
        (CitadelTask,),
        {
            "name": spec.name,
            "spec": spec,
            "handler": staticmethod(handler),
            "__doc__": handler.__doc__,
            "track_started": spec.track_started,
            "ignore_result": not spec.stores_result,
            "store_errors_even_if_ignored": True,
        },
    )
    return app.register_task(task_class())


class CitadelTask(Task):  # type: ignore[misc]  # celery publishes no types
    """A Celery task that runs one handler under the rules of all tasks."""

    abstract = True
    typing = False
    Request = REQUEST
    throws = (CitadelError,)
    resultrepr_maxsize = 64
    spec: TaskSpec[Any, Any]
    handler: Callable[[Any, TaskContext], Any]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run one task in its span; Celery calls this."""
        runtime = runtime_of(self.app)
        queue = runtime.identity.queue
        logs.bind(task_id=self.request.id, task=self.name, queue=queue)
        carrier = {name: self.header(name) for name in tracing.FIELDS}
        setattr(self.request, TRACE_ID, tracing.trace_id_in(carrier))
        if not tracing.is_on() or self.spec.part_by_part:
            return self._run(args, kwargs, runtime)
        before = self.header(messages.ATTEMPT_HEADER)
        about = {"message_id": self.request.id, "task": self.name, "before": before}
        with messages.processing(queue, carrier, **about, passes=_CONTROL):
            setattr(self.request, TRACE_ID, tracing.trace_id_in(tracing.carrier()))
            return self._run(args, kwargs, runtime)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any], runtime: TaskRuntime) -> Any:
        """Admit the task, run the handler, and count its end."""
        asked_at = time.monotonic()
        self._admit(runtime)
        self._count_wait(runtime)
        started, outcome, dead_lettered = time.monotonic(), "ok", False
        runtime.running.start(
            self.request.id,
            self.name,
            hard_limit=self.spec.hard_limit,
            accepted=self._is_accepted,
            leased_at=asked_at,
        )
        try:
            with ending(self.request):
                return self._followed(self._handle_in_time(args, kwargs, runtime), runtime)
        except Exception as error:  # noqa: BLE001  (judged and raised again as what Celery acts on)
            failure = FailurePolicy(self, runtime).on(error)
            outcome, dead_lettered = failure.outcome, failure.dead_lettered
            if outcome == "retried":
                tracing.fail(tracing.current_span(), error)
            raise failure.to_raise from None
        finally:
            runtime.running.end(self.request.id, ok=outcome in NO_FAILURE)
            seconds = time.monotonic() - started
            _count_end(runtime, self.name, outcome, seconds=seconds, dead_lettered=dead_lettered)
            tracing.current_span().set_attribute(spans.OUTCOME, outcome)
            runtime.metrics.count(names.TASKS, 1, task=self.name, outcome=outcome)
            runtime.metrics.observe(names.TASK_SECONDS, seconds, task=self.name)

    def after_return(self, *_: Any) -> None:
        """Finish an accepted task; Celery calls this after the final result is stored."""
        if not self._is_accepted:
            return
        try:
            runtime_of(self.app).accepted.finish(self.request.id)
        except ERRORS as error:
            log.warning("accepted_record_unavailable", error=type(error).__name__)

    def _handle_in_time(self, args: tuple[Any, ...], kwargs: dict[str, Any], runtime: TaskRuntime) -> Any:
        """Run the handler; drop its result or error if another worker has taken the task over meanwhile."""
        try:
            result = self._handle(args, kwargs, runtime)
        except Exception:
            self._drop_if_late(runtime)
            raise
        self._drop_if_late(runtime)
        return result

    def _drop_if_late(self, runtime: TaskRuntime) -> None:
        """Raise Ignore for an accepted task that is another worker's: this one was cut off for longer than its lease.

        Raises:
            HandBack: Redis does not say. The message goes back, if it is still this worker's.
        """
        safe = SAFE_PART * runtime.settings.accepted.lease
        if not self._is_accepted or runtime.running.lease_age(self.request.id) < safe:
            return
        try:
            is_late = runtime.accepted.was_taken_over(self.request.id, runtime.identity.id)
        except ERRORS as error:
            raise HandBack from error
        if is_late:
            runtime.metrics.count(names.LATE_RESULTS, 1, kind="task")
            log.warning("late_result", kind="task")
            raise Ignore

    def _handle(self, args: tuple[Any, ...], kwargs: dict[str, Any], runtime: TaskRuntime) -> Any:
        payload = parse_payload(self.spec.payload, args, kwargs)
        context = TaskContext(
            task_id=self.request.id,
            lane=self._lane(),
            deadline=self._deadline(),
            stopping=runtime.stopping.is_set,
            progress=functools.partial(self._progress, self.request.id),
            last_try=self._is_last_try(runtime),
            header=self.header,
            canvas=functools.partial(canvas_of, self.request),
            time_limit=self._time_limit(),
            # the request is the thread's: other threads that ask must get this one
            revoked=functools.partial(runtime.revoked.has, self.request.id, self.request),
            cancel_by=functools.partial(_cancel_by, runtime, self.request),
        )
        if context.deadline.remaining <= 0:
            raise DeadlineExceeded("the task was still queued at its deadline; nobody waits for it any more")
        result = self.handler(payload, context)
        if context.revoked():
            raise Revoked
        return result

    def _followed(self, result: Any, runtime: TaskRuntime) -> Any:
        """Publish what follows the task, and return its result."""
        if result is LATER:
            leave_for_later(self.request)
            return None
        runtime.canvas.follow(self.request, result)
        return result

    def _admit(self, runtime: TaskRuntime) -> None:
        """Drop duplicates, and end tasks that keep killing their workers."""
        redelivered = bool((self.request.delivery_info or {}).get("redelivered"))
        if not redelivered and not self._is_accepted:
            return
        if redelivered and self._is_accepted and runtime.running.has(self.request.id):
            # A lost connection gave it back, not a death. (A retry is a new message, and it may overtake the end.)
            log.info("duplicate_dropped", reason="busy here")
            raise Ignore
        deliveries, claim = self._deliveries_and_claim(runtime, redelivered=redelivered)
        if claim == "foreign":
            self._refuse_foreign(runtime)
        if claim != "run":
            log.info("duplicate_dropped", reason=claim)
            raise Ignore
        if deliveries > runtime.settings.worker.max_deliveries:
            error = DeliveriesExhausted()
            dead_letter = dead_letter_of(self, runtime, error, deliveries=deliveries)
            runtime.dead_letter_task(self.request, dead_letter, error)
            _count_end(runtime, self.name, error.code, seconds=0.0, dead_lettered=True)
            raise error

    def _refuse_foreign(self, runtime: TaskRuntime) -> None:
        """Dead-letter a message with the id of an accepted task that is another one; that task goes on."""
        error = UndecodableMessage(f"the accepted task {self.request.id!r} is not {self.name!r}: its id is taken")
        runtime.dead_letter(replace(dead_letter_of(self, runtime, error), id=str(uuid.uuid4())))

    def _deliveries_and_claim(self, runtime: TaskRuntime, *, redelivered: bool) -> tuple[int, ClaimResult]:
        """Return deliveries and claim; if the store does not answer, both let the task run."""
        try:
            deliveries = count_delivery(runtime.results, self.request.id, redelivered=redelivered)
            if not self._is_accepted:
                return deliveries, "run"
            claim = runtime.accepted.claim(self.request.id, self.name, runtime.identity.id, redelivered=redelivered)
        except ERRORS as error:
            log.warning("admission_unavailable", error=type(error).__name__)
            return 1, "run"
        return deliveries, claim

    def _count_wait(self, runtime: TaskRuntime) -> None:
        """Count the wait since the sending or the ETA; a redelivery says nothing about the queue."""
        request = self.request
        sent_at: Any = request.get(SENT_AT_HEADER)
        if not _is_number(sent_at) or not sent_at > 0 or (request.delivery_info or {}).get("redelivered"):
            return
        now, eta = clock_of(self.app).now(), request.eta
        meant_for = max(sent_at, _epoch_of(eta)) if isinstance(eta, str) else sent_at
        runtime.stats.waited(self.name, now - min(meant_for, now))

    def _deadline(self) -> Deadline:
        deadline = Deadline.after(min(self.spec.soft_limit, self._time_limit() or self.spec.soft_limit))
        asked = self.header(DEADLINE_HEADER)
        return min(deadline, clock_of(self.app).deadline(asked), key=lambda d: d.at) if _is_number(asked) else deadline

    def _time_limit(self) -> float | None:
        """Return the seconds that the sender gives the task: Celery's soft or hard limit."""
        asked = (self.request.get("soft_time_limit"), self.request.get("time_limit"))
        return min((limit for limit in asked if _is_number(limit) and limit > 0), default=None)

    def _lane(self) -> Lane:
        """Return the lane of the message's priority; a message without one comes from the interactive list."""
        priority: Any = (self.request.delivery_info or {}).get("priority")
        if not _is_number(priority):
            return Lane.INTERACTIVE
        return max((lane for lane in Lane if lane <= priority), default=Lane.INTERACTIVE)

    def _is_last_try(self, runtime: TaskRuntime) -> bool:
        somebody_waits = bool(self.header(DEADLINE_HEADER))
        return somebody_waits or (self.request.retries or 0) >= runtime.settings.worker.retry.max_retries

    def _progress(self, task_id: str, meta: Any) -> None:
        """Write the PROGRESS state; any thread may call it, so the task id is given."""
        try:
            self.update_state(task_id, state="PROGRESS", meta=meta)
        except ERRORS as error:
            log.warning("progress_lost", error=type(error).__name__)

    @property
    def _is_accepted(self) -> bool:
        return bool(self.header(ACCEPTED_HEADER))

    def header(self, name: str) -> Any:
        """Return a header of the task's message, or None."""
        return (self.request.headers or {}).get(name) or self.request.get(name)


def _cancel_by(runtime: TaskRuntime, request: Any, cancel: Callable[[], None]) -> None:
    """Note how a task's work is cancelled, and cancel it if the task is revoked already."""
    runtime.running.cancel_by(request.id, cancel)
    if runtime.revoked.has(request.id, request):
        cancel()


def _count_end(runtime: TaskRuntime, task: str, outcome: str, *, seconds: float, dead_lettered: bool) -> None:
    """Count a task's end; the fleet's statistics have a failure's outcome and code apart."""
    known = _ENDS.get(outcome)
    if known is not None:
        runtime.stats.ended(task, known, seconds=seconds)
    else:
        runtime.stats.ended(task, "dead_lettered" if dead_lettered else "failed", seconds=seconds, code=outcome)


def _epoch_of(eta: str) -> float:
    """Return an ISO 8601 time in seconds since the epoch; 0 if it is not one."""
    try:
        return datetime.fromisoformat(eta).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
