"""Results for Celery clients: a run that a task started answers that task when it ends."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from citadel_common.errors import StoreUnavailable
from citadel_common.stores.postgres import Cursor, Database, one
from citadel_common.stores.redis import ERRORS
from citadel_common.timestamps import utc_now
from citadel_contracts.workflows import ExecuteWorkflowResult
from citadel_orchestration.db.models import EndedRun
from citadel_orchestration.db.runs import BETWEEN_TASKS
from citadel_orchestration.engine.definitions import Definitions
from citadel_orchestration.engine.scope import context_after, steps_of, succeeded

if TYPE_CHECKING:
    from uuid import UUID

    from celery import Celery

    from citadel_orchestration.definition.definition import Definition

log = structlog.get_logger(__name__)
FAILURES: tuple[type[Exception], ...] = (*ERRORS, StoreUnavailable)


class Replies:
    """Stores results; one that could not be stored is stored by a later sweep."""

    def __init__(self, app: "Celery", database: Database, definitions: Definitions) -> None:
        self._app = app
        self._database = database
        self._definitions = definitions

    def __call__(self, ended: EndedRun) -> None:
        """Answers the tasks that wait for a run."""
        if ended.reply_to is None:
            return
        try:
            for task_id in ended.reply_to.split(BETWEEN_TASKS):
                self._app.backend.store_result(task_id, self._result(ended.run_id, task_id), "SUCCESS")
            with self._database.cursor() as cursor:
                cursor.execute(
                    "UPDATE runs SET reply_to = NULL WHERE run_id = %s AND reply_to = %s",
                    [ended.run_id, ended.reply_to],
                )
        except FAILURES as error:
            log.warning("result_delayed", run_id=str(ended.run_id), error=type(error).__name__)

    def store(self, task_id: str, result: Mapping[str, Any]) -> None:
        """Stores the result of a task.

        Raises:
            redis.RedisError: The results store does not answer.
        """
        self._app.backend.store_result(task_id, result, "SUCCESS")

    def _result(self, run_id: "UUID", task_id: str) -> Any:
        with self._database.cursor() as cursor:
            cursor.execute("SELECT kind, workflow_id, status, output, error FROM runs WHERE run_id = %s", [run_id])
            kind, workflow_id, status, output, error = one(cursor)
            if kind == "task":
                return single_result(task_id, status, output, error)
            definition = self._definitions.get(run_id, cursor)
            result = workflow_result(cursor, run_id, definition, task_id=task_id)
        result |= {"workflow_id": workflow_id, "success": status == "succeeded", "status": status}
        if output is not None:
            result["output"] = orjson.loads(output)
        if error is not None:
            result["error"], result["failure"] = error["message"], error
        return result


def workflow_result(cursor: Cursor, run_id: "UUID", definition: "Definition", *, task_id: str) -> ExecuteWorkflowResult:
    """The seed's result keys, of what the run has done so far."""
    done = succeeded(cursor, run_id)
    found = steps_of(cursor, run_id, [step_id for step_id, *_ in done])
    outputs = {step_id: found[step_id]["output"] for step_id, *_ in done}
    return {
        "success": False,
        "workflow_id": definition.workflow_id or str(run_id),
        "task_id": task_id,
        "run_id": str(run_id),
        "steps_executed": len(done),
        "workflow_results": [
            {
                "step_id": step_id,
                "step_type": definition.steps[step_id].type.name,
                "result": outputs[step_id],
                "timestamp": finished_at.isoformat(),
            }
            for step_id, finished_at, _ in done
        ],
        "final_context": context_after(cursor, run_id, outputs),
        "timestamp": utc_now(),
    }


def single_result(task_id: str, status: str, output: bytes | None, error: dict[str, Any] | None) -> dict[str, Any]:
    """The result of a task that is a single step: its output, or why there is none."""
    result: dict[str, Any] = {"success": status == "succeeded", "task_id": task_id, "timestamp": utc_now()}
    if status == "succeeded" and output is not None:
        return {**result, **orjson.loads(output), "data": {}}
    failure = {"code": status, "message": status} | (error or {})
    return result | {"error": failure["message"], "code": failure["code"], "failure": failure}
