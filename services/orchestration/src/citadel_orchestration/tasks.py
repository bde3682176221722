"""Handlers of the tasks of the orchestration queue."""

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from citadel_common.errors import CitadelError, Conflict, InvalidInput, NotFound, Overloaded, StorageFull
from citadel_common.tasks.base import TaskContext, register
from citadel_common.tasks.canvas import LATER
from citadel_common.timestamps import utc_now
from citadel_contracts import (
    EXECUTE_WORKFLOW,
    QUERY_LLM_SERVICE,
    RUN_STEP,
    UPSERT_VECTORS,
    VECTOR_SIMILARITY_SEARCH,
)
from citadel_contracts.workflows import (
    ExecuteWorkflow,
    ExecuteWorkflowResult,
    QueryLlmService,
    RunStep,
    UpsertVectors,
    VectorSimilaritySearch,
)
from citadel_orchestration.db.models import NewRun, StepRef
from citadel_orchestration.engine.engine import Engine
from citadel_orchestration.engine.run_admission import RunAdmission
from citadel_orchestration.engine.run_commands import RunCommands
from citadel_orchestration.engine.submission import Origin, Submissions, single_step
from citadel_orchestration.steps.llm_query import LlmQuery
from citadel_orchestration.steps.vector_search import VectorSearch
from citadel_orchestration.steps.vector_upsert import VectorUpsert

if TYPE_CHECKING:
    from celery import Celery

LARGEST_PARAMETERS = 64 * 2**20
"""Most bytes of JSON in the parameters of a task that is a single step; points have vectors."""


class OrchestrationTasks:
    """The handlers. A task that starts a run has its result, and what follows it, when the run ends.

    Args:
        engine: Begins steps.
        commands: Record runs.
        submissions: Check definitions.
        admission: Refuses new runs while there are too many.
        store_revoked: Stores that tasks are revoked, unless they have ended.
    """

    def __init__(
        self,
        engine: Engine,
        commands: RunCommands,
        submissions: Submissions,
        admission: RunAdmission,
        store_revoked: Callable[[Sequence[str]], None],
    ) -> None:
        self._store_revoked = store_revoked
        self._engine = engine
        self._commands = commands
        self._submissions = submissions
        self._admission = admission
        limits = replace(
            submissions.limits, max_definition_bytes=LARGEST_PARAMETERS, max_context_bytes=LARGEST_PARAMETERS
        )
        self._singles = replace(submissions, limits=limits)

    def register(self, app: "Celery") -> None:
        """Register the handlers with an app."""
        register(app, EXECUTE_WORKFLOW, self.execute_workflow)
        register(app, QUERY_LLM_SERVICE, self.query_llm_service)
        register(app, VECTOR_SIMILARITY_SEARCH, self.vector_similarity_search)
        register(app, UPSERT_VECTORS, self.upsert_vectors)
        register(app, RUN_STEP, self.run_step)

    def revoke(self, task_ids: Sequence[str]) -> None:
        """Cancel the runs that revoked tasks have begun.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        for run_id, task_id in self._commands.of_tasks({_run_id(task_id): task_id for task_id in task_ids}):
            # first: the end of the run would be the task's result
            self._store_revoked([task_id])
            with contextlib.suppress(Conflict, NotFound):
                self._engine.follow(self._commands.cancel(run_id))

    def execute_workflow(self, payload: ExecuteWorkflow, context: TaskContext) -> Any:
        """Record a run and begin it; return the result of an invalid definition at once."""
        raw = payload.workflow_definition
        try:
            definition = self._submissions.check(raw)
            run = self._submissions.run_of(
                definition,
                run_id=_run_id(context.task_id),
                workflow_id=definition.workflow_id or context.task_id,
                origin=Origin(reply_to=context.task_id, canvas=context.canvas(), lane=context.lane.value),
            )
            return self._begin(run, context)
        except (InvalidInput, Conflict) as error:
            return _refused(raw, context.task_id, error)

    def query_llm_service(self, payload: QueryLlmService, context: TaskContext) -> Any:
        """Ask an LLM, as a run of one step."""
        fields = payload.model_dump(exclude_none=True)
        endpoint = fields.pop("service_endpoint", None)
        return self._single(LlmQuery.name, fields | ({"endpoint": endpoint} if endpoint else {}), context)

    def vector_similarity_search(self, payload: VectorSimilaritySearch, context: TaskContext) -> Any:
        """Search a collection, as a run of one step."""
        return self._single(VectorSearch.name, payload.model_dump(exclude_none=True), context)

    def upsert_vectors(self, payload: UpsertVectors, context: TaskContext) -> Any:
        """Store points in a collection, as a run of one step."""
        return self._single(VectorUpsert.name, payload.model_dump(exclude_none=True), context)

    def run_step(self, payload: RunStep, context: TaskContext) -> None:  # noqa: ARG002
        """Begin a step that is ready."""
        self._engine.run_step(StepRef(run_id=UUID(payload.run_id), step_id=payload.step_id, item=payload.item))

    def _single(self, type_: str, parameters: Mapping[str, Any], context: TaskContext) -> Any:
        try:
            definition = self._singles.check(single_step(type_, parameters))
            origin = Origin(kind="task", reply_to=context.task_id, canvas=context.canvas(), lane=context.lane.value)
        except InvalidInput as error:
            result = {"success": False, "task_id": context.task_id, "timestamp": utc_now()}
            return result | {"error": error.message, "failure": error.data.model_dump()}
        run = self._submissions.run_of(definition, run_id=_run_id(context.task_id), origin=origin)
        return self._begin(run, context)

    def _begin(self, run: NewRun, context: TaskContext) -> Any:
        """Record a run and begin it, unless its task is revoked by now; return `LATER`.

        Raises:
            Overloaded: Too many steps wait; the task is tried again.
            StorageFull: Too many bytes are stored; the task is tried again.
        """
        try:
            self._admission.check(None)
            self._admission.check_key(run.concurrency_key)
        except (Overloaded, StorageFull):
            if not self._commands.exists(run.run_id):  # the run of a task that is delivered again goes on
                raise
        limits = [limit for limit in (run.deadline, context.time_limit) if limit is not None]
        submitted = self._commands.submit(replace(run, deadline=min(limits, default=None)))
        if context.revoked():  # asked once the run can be found: a revoke from now on cancels it
            self.revoke([context.task_id])
            return LATER
        for step_id in submitted.ready:
            self._engine.run_step(StepRef(run_id=submitted.run_id, step_id=step_id))
        return LATER


def _run_id(task_id: str) -> UUID:
    """Return the run of a task; a redelivered task has the same run."""
    try:
        return UUID(task_id)
    except ValueError:
        return uuid.uuid5(uuid.NAMESPACE_OID, task_id)


def _refused(raw: Mapping[str, Any], task_id: str, error: CitadelError) -> ExecuteWorkflowResult:
    workflow_id = raw.get("workflow_id")
    return {
        "success": False,
        "workflow_id": workflow_id if isinstance(workflow_id, str) else task_id,
        "task_id": task_id,
        "steps_executed": 0,
        "workflow_results": [],
        "final_context": raw.get("context", {}),
        "error": error.message,
        "failure": error.data.model_dump(),
        "timestamp": utc_now(),
    }
