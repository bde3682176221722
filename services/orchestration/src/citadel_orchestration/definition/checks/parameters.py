"""Parameters: that they fit their type's model wherever their values are known already."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from citadel_orchestration.definition.checks.drafts import Draft
from citadel_orchestration.definition.checks.problems import Path, Problems
from citadel_orchestration.definition.template import holds_expression
from citadel_orchestration.step_types import Catalog

_OF_WHOLE = frozenset({"value_error", "assertion_error"})


def check_parameters(step: Draft, catalog: Catalog, problems: Problems) -> None:
    """Reports what does not fit the model, and what the type itself finds wrong."""
    if step.type is None or not isinstance(step.raw.get("parameters", {}), dict):
        return
    where = (*step.path, "parameters")
    found = 0
    for detail in _errors(step):
        path, value = _place(step.parameters, detail["loc"])
        if not _may_pass(detail, value):
            found += 1
            path = (*path, detail["loc"][-1]) if detail["type"] == "missing" else path
            problems.add((*where, *path), _code(detail), _message(detail))
    if not found:
        for below, message in step.type.check(step.parameters, catalog):
            problems.add((*where, *_path_of(below)), "step_check", message)


def _errors(step: Draft) -> list[ErrorDetails]:
    if step.type is None:
        return []
    try:
        step.type.parameters.model_validate(step.parameters)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False, include_input=False)
    return []


def _place(parameters: Any, location: Sequence[str | int]) -> tuple[Path, Any]:
    """The deepest part of an error's location that is written, and its value; names of union members fall away."""
    path: list[str | int] = []
    value = parameters
    for part in location:
        if isinstance(value, str):
            break
        if _has(value, part):
            value = value[part]
            path.append(part)
    return tuple(path), value


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value)


def _may_pass(detail: ErrorDetails, value: Any) -> bool:
    """Whether an expression's value may still set it right."""
    if detail["type"] in ("missing", "extra_forbidden"):
        return False
    if isinstance(value, str):
        return holds_expression(value)
    return detail["type"] in _OF_WHOLE and holds_expression(value)


def _code(detail: ErrorDetails) -> str:
    return {"missing": "missing_parameter", "extra_forbidden": "unknown_parameter"}.get(detail["type"], "bad_parameter")


def _message(detail: ErrorDetails) -> str:
    name = detail["loc"][-1] if detail["loc"] else ""
    if detail["type"] == "missing":
        return f"the parameter `{name}` is needed"
    if detail["type"] == "extra_forbidden":
        return f"there is no parameter `{name}`"
    return detail["msg"].removeprefix("Value error, ")


def _path_of(below: str) -> Path:
    """A pointer's parts."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in below.split("/")[1:])
