"""A definition while it is checked: as much of it as is readable, and the problems found so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from citadel_common.errors import InvalidDefinition
from citadel_contracts.errors import FieldError, json_pointer
from citadel_orchestration.definition.models import DefinitionLimits, HeadModel, StepModel
from citadel_orchestration.step_types import StepType, StepTypes

Path = tuple[str | int, ...]
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


class Problems:
    """The problems found so far, in order, without repetitions, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._found: dict[FieldError, None] = {}

    def add(self, path: Sequence[str | int], code: str, message: str) -> None:
        """Add a problem."""
        if len(self._found) < self._limit:
            self._found[FieldError(pointer=_encodable(json_pointer(path)), detail=_encodable(message), code=code)] = (
                None
            )

    @property
    def is_full(self) -> bool:
        """True once the limit is reached."""
        return len(self._found) >= self._limit

    def __len__(self) -> int:
        return len(self._found)

    def raise_any(self) -> None:
        """Raise the problems, if there are any.

        Raises:
            InvalidDefinition: There is at least one problem.
        """
        if not self._found:
            return
        first, *rest = self._found
        more = f" (and {len(rest)} more)" if rest else ""
        raise InvalidDefinition(f"{first.pointer or 'definition'}: {first.detail}{more}", errors=tuple(self._found))


def _encodable(text: str) -> str:
    """Return the text with halves of surrogate pairs replaced: they have no UTF-8."""
    return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One step while it is checked.

    Attributes:
        path: Where it stands in the definition.
        index: Its place among the steps.
        raw: As written; empty if it is not an object.
        model: Its fields; None if some are wrong.
        step_id: Its id; None if it has no usable one.
        type: Its type; None if there is no such type.
        depends_on: The steps that it names, or the one before it; None if that is not clear.
    """

    path: Path
    index: int
    raw: dict[str, Any]
    model: StepModel | None
    step_id: str | None
    type: StepType[Any] | None
    depends_on: tuple[str, ...] | None

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as written; empty if they are not an object."""
        written = self.raw.get("parameters")
        return written if isinstance(written, dict) else {}

    @property
    def nested(self) -> dict[str, Any] | None:
        """The definition of another run within the parameters, as written."""
        if self.type is None or self.type.nested is None:
            return None
        written = self.parameters.get(self.type.nested.definition)
        return written if isinstance(written, dict) else None

    @property
    def own_parameters(self) -> dict[str, Any]:
        """The parameters without a nested definition, whose expressions are its own run's."""
        if self.nested is None:
            return self.parameters
        return {name: value for name, value in self.parameters.items() if value is not self.nested}

    @property
    def for_each(self) -> dict[str, Any] | None:
        """The `for_each` as written; None if it is not an object."""
        written = self.raw.get("for_each")
        return written if isinstance(written, dict) else None


@dataclass(frozen=True, kw_only=True)
class DraftDefinition:
    """A definition while it is checked.

    Attributes:
        path: Where it stands; empty for the submitted definition.
        raw: As written.
        steps: In the order written.
        by_id: The first step of each id.
        given: Keys that a run within a run is given beside its own context; None if they are not known.
    """

    path: Path
    raw: dict[str, Any]
    steps: list[Draft]
    by_id: dict[str, Draft]
    given: frozenset[str] | None

    @property
    def context(self) -> dict[str, Any]:
        """The context as written; empty if it is not an object."""
        written = self.raw.get("context")
        return written if isinstance(written, dict) else {}

    @property
    def concurrency_key(self) -> str | None:
        """The concurrency key as written; None if there is none, or it is not text."""
        written = self.raw.get("concurrency")
        key = written.get("key") if isinstance(written, dict) else None
        return key if isinstance(key, str) else None

    def may_have(self, key: str) -> bool:
        """Return True if the context may have the key when the run starts."""
        return self.given is None or key in self.given or key in self.context


def draft(
    raw: Any,
    path: Path,
    given: frozenset[str] | None,
    types: StepTypes,
    limits: DefinitionLimits,
    problems: Problems,
) -> DraftDefinition | None:
    """Return the readable part of a definition; None if it is not an object."""
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
