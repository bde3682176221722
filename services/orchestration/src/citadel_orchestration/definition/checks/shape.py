"""Fields: which there are, of what type, within which limits."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from citadel_orchestration.definition.checks.drafts import Draft, DraftDefinition
from citadel_orchestration.definition.checks.problems import Path, Problems
from citadel_orchestration.definition.limits import DefinitionLimits
from citadel_orchestration.definition.models import HeadModel, StepModel
from citadel_orchestration.step_types import StepTypes

M = TypeVar("M", bound=BaseModel)

_CODES = {
    "missing": "missing_field",
    "extra_forbidden": "unknown_field",
    "string_pattern_mismatch": "bad_name",
    "literal_error": "bad_value",
    "value_error": "bad_duration",
    **dict.fromkeys(
        (
            "greater_than",
            "greater_than_equal",
            "less_than_equal",
            "too_long",
            "too_short",
            "string_too_short",
            "string_too_long",
            "finite_number",
        ),
        "out_of_range",
    ),
}
_MESSAGES = {"missing": "this field is needed", "extra_forbidden": "there is no such field"}


def draft(
    raw: Any,
    path: Path,
    given: frozenset[str] | None,
    types: StepTypes,
    limits: DefinitionLimits,
    problems: Problems,
) -> DraftDefinition | None:
    """What can be made out of a definition; None where it is none at all."""
    if not isinstance(raw, dict):
        problems.add(path, "not_an_object", "a definition is a JSON object")
        return None
    _validated(HeadModel, {name: value for name, value in raw.items() if name != "steps"}, path, problems)
    written = _written_steps(raw, path, limits, problems)
    steps: list[Draft] = []
    for index, step in enumerate(written):
        steps.append(_step(step, index, (*path, "steps", index), steps, types, problems))
    by_id: dict[str, Draft] = {}
    for step in steps:
        if step.step_id is not None and by_id.setdefault(step.step_id, step) is not step:
            problems.add((*step.path, "step_id"), "duplicate_step", f"there is a step `{step.step_id}` already")
    return DraftDefinition(path=path, raw=raw, steps=steps, by_id=by_id, given=given)


def _written_steps(raw: Mapping[str, Any], path: Path, limits: DefinitionLimits, problems: Problems) -> list[Any]:
    where = (*path, "steps")
    written = raw.get("steps")
    if "steps" not in raw:
        problems.add(where, "missing_field", "this field is needed")
    elif not isinstance(written, list):
        problems.add(where, "wrong_type", "steps must be a list")
    elif not written:
        problems.add(where, "no_steps", "there must be at least one step")
    elif len(written) > limits.max_steps:
        problems.add(where, "too_many_steps", f"a definition may have {limits.max_steps:,} steps at most")
    else:
        return written
    return []


def _step(raw: Any, index: int, path: Path, before: list[Draft], types: StepTypes, problems: Problems) -> Draft:
    written = raw if isinstance(raw, dict) else {}
    step_id, kind = written.get("step_id"), written.get("type")
    model = _validated(StepModel, raw, path, problems)
    step_type = types.get(kind) if isinstance(kind, str) else None
    if isinstance(kind, str) and kind and step_type is None:
        known = ", ".join(sorted(types))
        problems.add((*path, "type"), "unknown_type", f"there is no step type `{kind[:100]}`; there are {known}")
    return Draft(
        path=path,
        index=index,
        raw=written,
        model=model,
        step_id=step_id if isinstance(step_id, str) else None,
        type=step_type,
        depends_on=_depends_on(written, before),
    )


def _depends_on(written: Mapping[str, Any], before: list[Draft]) -> tuple[str, ...] | None:
    named = written.get("depends_on")
    if isinstance(named, list) and all(isinstance(name, str) for name in named):
        return tuple(named)
    if named is not None:
        return None
    if not before:
        return ()
    previous = before[-1].step_id
    return None if previous is None or previous == written.get("step_id") else (previous,)


def _validated(model: type[M], raw: Any, path: Path, problems: Problems) -> M | None:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False, include_input=False):
            _report(detail, path, problems)
    return None


def _report(detail: ErrorDetails, path: Path, problems: Problems) -> None:
    kind = detail["type"]
    where = tuple(part for part in detail["loc"] if part != "[key]")
    message = _MESSAGES.get(kind) or detail["msg"].removeprefix("Value error, ")
    problems.add((*path, *where), _CODES.get(kind, "wrong_type"), message)
