"""`workflow`: a run within a run. The engine starts it and waits in the record."""

from typing import Any, ClassVar

from citadel_orchestration.steps.base import Output, Parameters, StepCall, StepType


class WorkflowParameters(Parameters):
    """Parameters of `workflow`: a definition, and context beside or over the definition's own."""

    definition: dict[str, Any]
    context: dict[str, Any] | None = None


class Workflow(StepType[WorkflowParameters]):
    """The type."""

    name: ClassVar[str] = "workflow"
    parameters = WorkflowParameters
    outputs: ClassVar[frozenset[str]] = frozenset({"output", "final_context", "run_id"})

    async def execute(self, parameters: WorkflowParameters, call: StepCall) -> Output:
        """Never called: the engine starts the sub-run."""
        raise AssertionError(f"{parameters} is for the engine, {call.step_id}")
