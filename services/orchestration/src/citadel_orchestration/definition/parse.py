"""Checks of a submitted definition: all problems that can be found before it runs, at once."""

from typing import Any

from citadel_orchestration.definition.checks.draft import Draft, DraftDefinition, Path, Problems, draft
from citadel_orchestration.definition.checks.limits import check_json, check_ranges
from citadel_orchestration.definition.checks.parameters import VectorSpaces, check_parameters
from citadel_orchestration.definition.checks.references import check_dependencies, check_mentions
from citadel_orchestration.definition.definition import Definition, Step, load
from citadel_orchestration.definition.models import DefinitionLimits
from citadel_orchestration.step_types import Catalog, StepTypes

__all__ = ["DEFAULT_LIMITS", "Definition", "DefinitionLimits", "Step", "StepTypes", "load", "parse"]

DEFAULT_LIMITS = DefinitionLimits()


def parse(raw: Any, *, types: StepTypes, catalog: Catalog, limits: DefinitionLimits = DEFAULT_LIMITS) -> Definition:
    """Check a definition and return it ready to run.

    Args:
        raw: Decoded JSON.
        types: Step types by name.
        catalog: What is known of models, collections and endpoints.
        limits: Limits of its size and numbers.

    Raises:
        InvalidDefinition: It has problems; `errors` lists them, each with a JSON pointer and a code.
    """
    problems = Problems(limits.max_problems)
    if check_json(raw, limits, problems):
        _Check(types, catalog, limits, problems).definition(raw, (), frozenset(), ())
    problems.raise_any()
    return load(raw, types)


class _Check:
    """Check of a definition and of the definitions nested in it."""

    def __init__(self, types: StepTypes, catalog: Catalog, limits: DefinitionLimits, problems: Problems) -> None:
        self._types = types
        self._catalog = catalog
        self._limits = limits
        self._problems = problems

    def definition(self, raw: Any, path: Path, given: frozenset[str] | None, keys: tuple[str | None, ...]) -> None:
        """Check a definition; `keys` are the concurrency keys of those that it is nested in."""
        drafted = draft(raw, path, given, self._types, self._limits, self._problems)
        if drafted is None:
            return
        check_ranges(drafted, self._limits, self._problems)
        self._check_key(drafted, keys)
        ancestors = check_dependencies(drafted, self._problems)
        check_mentions(drafted, ancestors, self._problems)
        spaces = VectorSpaces(drafted, self._catalog)
        for step in drafted.steps:
            check_parameters(step, self._catalog, self._problems)
            spaces.check(step, self._problems)
            self._nested(step, (*keys, drafted.concurrency_key))

    def _check_key(self, drafted: DraftDefinition, keys: tuple[str | None, ...]) -> None:
        key = drafted.concurrency_key
        if key is not None and key in keys:
            message = f"`{key[:100]}` is the key of a workflow that waits for this one"
            self._problems.add((*drafted.path, "concurrency", "key"), "key_of_ancestor", message)

    def _nested(self, step: Draft, keys: tuple[str | None, ...]) -> None:
        if step.type is None or step.type.nested is None or step.nested is None:
            return
        where = (*step.path, "parameters", step.type.nested.definition)
        if len(keys) > self._limits.max_nesting:
            message = f"sub-workflows may be nested {self._limits.max_nesting} deep at most"
            self._problems.add(where, "nested_too_deep", message)
            return
        context = step.parameters.get(step.type.nested.context) or {}
        given = frozenset(context) if isinstance(context, dict) else None
        self.definition(step.nested, where, given, keys)
