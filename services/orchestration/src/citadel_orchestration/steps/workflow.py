"""`workflow`: a run within a run."""

from typing import Any, ClassVar

from citadel_orchestration.step_types import NestedDefinition, Parameters, StartRun, StepEffect, StepType


class WorkflowParameters(Parameters):
    """Parameters of `workflow`: a definition, and context beside or over the definition's own."""

    definition: dict[str, Any]
    context: dict[str, Any] | None = None


class WorkflowStep(StepType[WorkflowParameters]):
    """Output: the sub-run's `output`, `final_context` and `run_id`."""

    name: ClassVar[str] = "workflow"
    parameters = WorkflowParameters
    outputs: ClassVar[frozenset[str]] = frozenset({"output", "final_context", "run_id"})
    calls: ClassVar[str | None] = "sub_runs"
    nested: ClassVar[NestedDefinition | None] = NestedDefinition(definition="definition", context="context")

    def begin(self, parameters: WorkflowParameters) -> StepEffect:
        """Start a run of the definition."""
        return StartRun(definition=parameters.definition, context=parameters.context)
