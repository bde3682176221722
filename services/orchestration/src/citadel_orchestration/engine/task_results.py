"""Results of Celery tasks: a task that started a run gets its result when the run ends."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from kombu.exceptions import OperationalError

from citadel_common.errors import CitadelError, PayloadTooLarge, StoreUnavailable, UndecodableMessage
from citadel_common.memory import take
from citadel_common.stores.postgres import Cursor, Database
from citadel_common.stores.redis import ERRORS
from citadel_common.tasks.canvas import task_of
from citadel_common.tasks.runtime import runtime_of
from citadel_common.timestamps import utc_now
from citadel_contracts.workflows import ExecuteWorkflowResult
from citadel_orchestration.db.models import EndedRun
from citadel_orchestration.db.payloads import run_output_size, succeeded_steps
from citadel_orchestration.db.runs import BETWEEN_TASKS, RunOutcome, clear_reply_to, outcome_of
from citadel_orchestration.definition.sizes import DEFAULT_RUN_LIMITS, SizeLimit
from citadel_orchestration.engine.scope import Reader, context_after, steps_of
from citadel_orchestration.engine.submission import Definitions

if TYPE_CHECKING:
    from uuid import UUID

    from celery import Celery

    from citadel_orchestration.definition.definition import Definition

log = structlog.get_logger(__name__)
_READ = 8
"""Bytes of memory for a byte of an output that is read, parsed and written again."""
Succeeded = tuple[str, datetime, bool]
"""A step that has succeeded: its id, its end, and whether its output has keys for the context."""
FAILURES: tuple[type[Exception], ...] = (*ERRORS, StoreUnavailable, OperationalError)


class TaskResultWriter:
    """Stores results in Celery's result backend, and publishes what follows their tasks.

    The sweeper does so for runs whose worker could not.
    """

    def __init__(
        self,
        app: "Celery",
        database: Database,
        definitions: Definitions,
        limit: SizeLimit = DEFAULT_RUN_LIMITS.final_context,
    ) -> None:
        self._limit = limit
        self._app = app
        self._database = database
        self._definitions = definitions

    def __call__(self, ended: EndedRun) -> None:
        """End the tasks that wait for a run."""
        if ended.reply_to is None:
            return
        try:
            with self._database.cursor() as cursor:
                take(_READ * (run_output_size(cursor, ended.run_id) or 0))
                outcome = outcome_of(cursor, ended.run_id)
            followed = {task_of(canvas): canvas for canvas in outcome.canvases}
            for task_id in filter(None, ended.reply_to.split(BETWEEN_TASKS)):
                if task_id not in followed:
                    self._store(task_id, self._result(ended.run_id, outcome, task_id))
            for canvas in outcome.canvases:
                if self._app.backend.is_revoked(task_of(canvas)):
                    runtime_of(self._app).canvas.revoked(canvas)
                else:
                    self._follow(canvas, self._result(ended.run_id, outcome, task_of(canvas)))
            with self._database.cursor() as cursor:
                clear_reply_to(cursor, ended.run_id, ended.reply_to or None, outcome.canvases)
        except FAILURES as error:
            log.warning("result_delayed", run_id=str(ended.run_id), error=type(error).__name__)

    def _store(self, task_id: str, result: Any) -> None:
        self._app.backend.store_result(task_id, result, "SUCCESS")

    def _follow(self, canvas: bytes, result: Any) -> None:
        """End a task that something follows; one whose canvas cannot be published fails."""
        follower = runtime_of(self._app).canvas
        try:
            follower.succeeded(canvas, result)
        except FAILURES:
            raise
        except Exception as error:  # a foreign message holds anything, and the sweep would fail at it for ever
            log.warning("canvas_refused", task_id=task_of(canvas), error=type(error).__name__, exc_info=True)
            self._fail(canvas, error if isinstance(error, CitadelError) else UndecodableMessage())

    def _fail(self, canvas: bytes, error: CitadelError) -> None:
        try:
            runtime_of(self._app).canvas.failed(canvas, error)
        except FAILURES:
            raise
        except Exception:  # the failure is stored before errbacks and chord are read
            log.exception("errbacks_refused", task_id=task_of(canvas))

    def _result(self, run_id: "UUID", outcome: RunOutcome, task_id: str) -> Any:
        if outcome.kind == "task":
            return _single_result(task_id, outcome)
        with self._database.cursor() as cursor:
            result = self._workflow_result(cursor, run_id, outcome, task_id=task_id)
        status = outcome.status
        result |= {"workflow_id": outcome.workflow_id, "success": status == "succeeded", "status": status}
        if outcome.error is not None:
            result["error"], result["failure"] = outcome.error["message"], outcome.error
        return result

    def _workflow_result(
        self, cursor: Cursor, run_id: "UUID", outcome: RunOutcome, *, task_id: str
    ) -> ExecuteWorkflowResult:
        """Return the keys of a workflow's result; what is too large for a result is left to the API."""
        definition = self._definitions.get(run_id, cursor)
        done = succeeded_steps(cursor, run_id)
        try:
            result = self._whole_result(cursor, run_id, definition, done, outcome)
        except PayloadTooLarge as error:
            result = _result_of(run_id, definition, done, {}) | {"left_out": error.message}
        return {**result, "task_id": task_id}

    def _whole_result(
        self, cursor: Cursor, run_id: "UUID", definition: "Definition", done: Sequence[Succeeded], outcome: RunOutcome
    ) -> ExecuteWorkflowResult:
        output = outcome.output or b""
        reader = Reader(cursor, self._limit)
        reader.expect(len(output), "the task's result, with the run's output,")
        found = steps_of(reader, run_id, [step_id for step_id, *_ in done])
        outputs = {step_id: found[step_id]["output"] for step_id, *_ in done}
        result = _result_of(run_id, definition, done, outputs)
        result["final_context"] = context_after(reader, run_id, outputs)
        # outputs stand in it twice, and the result is encoded
        self._limit.check_bytes(2 * reader.size, "the task's result")
        take(2 * reader.size)
        if output:
            result["output"] = reader.parsed(output)
        return result


def _result_of(
    run_id: "UUID", definition: "Definition", done: Sequence[Succeeded], outputs: Mapping[str, Any]
) -> ExecuteWorkflowResult:
    """Return a workflow's result without its context and output, filled from the steps that have succeeded."""
    return {
        "success": False,
        "workflow_id": definition.workflow_id or str(run_id),
        "task_id": "",
        "run_id": str(run_id),
        "steps_executed": len(done),
        "workflow_results": [
            {
                "step_id": step_id,
                "step_type": definition.steps[step_id].type.name,
                "result": outputs.get(step_id),
                "timestamp": finished_at.isoformat(),
            }
            for step_id, finished_at, _ in done
        ],
        "final_context": {},
        "timestamp": utc_now(),
    }


def _single_result(task_id: str, outcome: RunOutcome) -> dict[str, Any]:
    """Return the result of a task that is a single step: its output, or its error."""
    status = outcome.status
    result: dict[str, Any] = {"success": status == "succeeded", "task_id": task_id, "timestamp": utc_now()}
    if status == "succeeded" and outcome.output is not None:
        return {**result, **orjson.loads(outcome.output), "data": {}}
    failure = {"code": status, "message": status} | (outcome.error or {})
    return result | {"error": failure["message"], "code": failure["code"], "failure": failure}
