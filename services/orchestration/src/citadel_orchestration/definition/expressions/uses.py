"""What an expression refers to, told without evaluating it."""

from dataclasses import dataclass

from citadel_orchestration.definition.expressions.failures import Malformed
from citadel_orchestration.definition.expressions.syntax import Key

ROOTS = frozenset({"context", "steps", "run", "item", "index"})
STEP_FIELDS = frozenset({"output", "status"})
RUN_FIELDS = frozenset({"id", "workflow_id"})


@dataclass(frozen=True, kw_only=True)
class StepUse:
    """One mention of a step.

    Attributes:
        step_id: The step.
        field: `output` or `status`.
        key: The first key or index after it; None where it cannot be told.
    """

    step_id: str
    field: str
    key: str | int | None


@dataclass(frozen=True, kw_only=True)
class Uses:
    """All mentions in one expression.

    Attributes:
        steps: Mentions of steps.
        context: Keys of the context; None among them for one that cannot be told.
        names: Root names.
    """

    steps: frozenset[StepUse] = frozenset()
    context: frozenset[str | None] = frozenset()
    names: frozenset[str] = frozenset()

    def __or__(self, other: "Uses") -> "Uses":
        """Those of both."""
        return Uses(
            steps=self.steps | other.steps, context=self.context | other.context, names=self.names | other.names
        )


def of_path(root: str, keys: tuple[Key, ...]) -> Uses:
    """What a path mentions, as far as its keys are constants.

    Raises:
        Malformed: There is no such name, or it is not used as it must be.
    """
    if root not in ROOTS:
        raise Malformed("unknown_name", f"there is no `{root[:100]}`; there are {', '.join(sorted(ROOTS))}")
    names = [key.name for key in keys[:3]]
    if root == "steps":
        return Uses(steps=frozenset({_step(names)}), names=frozenset({root}))
    if root == "run" and (not names or names[0] not in RUN_FIELDS):
        raise Malformed("unknown_name", "`run` has `run.id` and `run.workflow_id`")
    if root == "context":
        key = names[0] if names and isinstance(names[0], str) else None
        return Uses(context=frozenset({key}), names=frozenset({root}))
    return Uses(names=frozenset({root}))


def _step(names: list[str | int]) -> StepUse:
    if len(names) < 2 or not isinstance(names[0], str):
        raise Malformed("steps_misused", "write `steps.<id>.output` or `steps.<id>.status`")
    if names[1] not in STEP_FIELDS:
        raise Malformed("unknown_step_field", f"a step has `output` and `status`, not `{str(names[1])[:100]}`")
    return StepUse(step_id=names[0], field=str(names[1]), key=names[2] if len(names) > 2 else None)
