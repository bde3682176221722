"""References between steps: dependencies must exist and close no circle; expressions read what has run by then."""

from collections.abc import Iterator, Mapping
from typing import Any

from citadel_orchestration.definition.checks.draft import Draft, DraftDefinition, Path, Problems
from citadel_orchestration.definition.expressions.evaluation import Malformed
from citadel_orchestration.definition.expressions.syntax import OPEN, StepUse, Uses
from citadel_orchestration.definition.template import condition, expressions

EVERYTHING = -1
"""Mask with all bits set, for a step whose dependencies are not clear: nothing is reported for it."""
SHOWN = 12
Found = tuple[str, str]
"""Code and message."""


class Ancestors:
    """The steps that have run before each step, as bit masks of their indices."""

    def __init__(self, masks: Mapping[int, int]) -> None:
        self._masks = masks

    def have_run(self, earlier: Draft, step: Draft) -> bool:
        """Return True if `earlier` has always run, or been skipped, when `step` starts."""
        return bool(self._masks.get(step.index, EVERYTHING) >> earlier.index & 1)


def check_dependencies(definition: DraftDefinition, problems: Problems) -> Ancestors:
    """Report unknown, repeated and circular dependencies; return what has run before each step."""
    edges = {step.index: _edges(step, definition.by_id, problems) for step in definition.steps}
    order = _order(edges)
    for circle in _circles(edges, set(edges) - set(order)):
        _report_circle(circle, definition.steps, problems)
    masks: dict[int, int] = {}
    for index in order:
        step, mask = definition.steps[index], 0
        for earlier in edges[index]:
            mask |= masks[earlier] | 1 << earlier
        masks[index] = mask if _is_clear(step, definition) else EVERYTHING
    return Ancestors(masks)


def _edges(step: Draft, by_id: Mapping[str, Draft], problems: Problems) -> list[int]:
    """Return the indices of the steps that come first."""
    written, found = step.raw.get("depends_on") is not None, []
    for place, name in enumerate(step.depends_on or ()):
        where = (*step.path, "depends_on", place)
        if name == step.step_id:
            problems.add(where, "self_dependency", "a step cannot depend on itself")
        elif name not in by_id:
            if written:
                problems.add(where, "unknown_dependency", f"there is no step `{name[:128]}`")
        elif by_id[name].index in found:
            problems.add(where, "duplicate_dependency", f"`{name}` is named twice")
        else:
            found.append(by_id[name].index)
    return found


def _is_clear(step: Draft, definition: DraftDefinition) -> bool:
    """Return True if all dependencies of a step are known, and it is the only step of its id."""
    known = step.depends_on is not None and all(name in definition.by_id for name in step.depends_on)
    return known and step.step_id is not None and definition.by_id[step.step_id] is step


def _order(edges: Mapping[int, list[int]]) -> list[int]:
    """Return the steps in an order that dependencies allow, without those in a circle or behind one."""
    waiting = {index: len(before) for index, before in edges.items()}
    after: dict[int, list[int]] = {index: [] for index in edges}
    for index, before in edges.items():
        for earlier in before:
            after[earlier].append(index)
    order = [index for index, count in waiting.items() if count == 0]
    for index in order:
        for later in after[index]:
            waiting[later] -= 1
            if waiting[later] == 0:
                order.append(later)
    return order


def _circles(edges: Mapping[int, list[int]], left: set[int]) -> list[list[int]]:
    """Return one circle for each group of steps that wait for each other."""
    circles: list[list[int]] = []
    seen: set[int] = set()
    for start in sorted(left):
        walk: dict[int, None] = {}
        here: int | None = start
        while here is not None and here not in seen:
            seen.add(here)
            walk[here] = None
            here = next((earlier for earlier in edges[here] if earlier in left), None)
        if here is not None and here in walk:
            steps = list(walk)
            circles.append(steps[steps.index(here) :])
    return circles


def _report_circle(circle: list[int], steps: list[Draft], problems: Problems) -> None:
    start = circle.index(min(circle))
    turned = [*circle[start:], *circle[:start], circle[start]]
    names = [str(steps[index].step_id) for index in turned]
    shown = names if len(names) <= SHOWN else [*names[: SHOWN - 1], "…", names[-1]]
    message = f"these steps wait for each other: {' → '.join(shown)}"
    problems.add((*steps[circle[start]].path, "depends_on"), "cycle", message)


def check_mentions(definition: DraftDefinition, ancestors: Ancestors, problems: Problems) -> None:
    """Report what is wrong with the expressions of all steps and of the output."""
    for step in definition.steps:
        checker = _Checker(definition, step, ancestors)
        for path, text, in_item in _strings_of(step):
            _report_expressions(checker, path, text, problems, in_item=in_item, is_condition=path[-1:] == ("when",))
    checker = _Checker(definition, None, ancestors)
    for path, text in _strings(definition.raw.get("output"), (*definition.path, "output"), problems):
        _report_expressions(checker, path, text, problems, in_item=False, is_condition=False)
    for step in definition.steps:
        for _ in _strings(step.own_parameters, (*step.path, "parameters"), problems):
            continue


def _strings_of(step: Draft) -> Iterator[tuple[Path, str, bool]]:
    """Yield path and text of a step's strings, and True if `item` is known there."""
    in_item = step.for_each is not None
    for path, text in _strings(step.own_parameters, (*step.path, "parameters")):
        yield path, text, in_item
    if step.for_each is not None:
        for path, text in _strings(step.for_each.get("items"), (*step.path, "for_each", "items")):
            yield path, text, False
    when = step.raw.get("when")
    if isinstance(when, str):
        yield (*step.path, "when"), when, False


def _strings(value: Any, path: Path, problems: Problems | None = None) -> Iterator[tuple[Path, str]]:
    """Yield the strings with expressions; report expressions in names of fields."""
    if isinstance(value, str) and OPEN in value:
        yield path, value
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _strings(element, (*path, index), problems)
    elif isinstance(value, dict):
        for name, entry in value.items():
            if problems is not None and OPEN in name:
                problems.add((*path, name), "expression_in_name", "a field's name cannot be an expression")
            yield from _strings(entry, (*path, name), problems)


def _report_expressions(
    checker: "_Checker", path: Path, text: str, problems: Problems, *, in_item: bool, is_condition: bool
) -> None:
    try:
        found = [condition(text)] if is_condition else list(expressions(text))
    except Malformed as error:
        problems.add(path, error.code, error.reason)
        return
    for expression in found:
        for code, message in checker.wrong(expression.uses, in_item=in_item):
            problems.add(path, code, message)


class _Checker:
    """Check of what one step's expressions, or the output's, mention."""

    def __init__(self, definition: DraftDefinition, step: Draft | None, ancestors: Ancestors) -> None:
        self._definition = definition
        self._step = step
        self._ancestors = ancestors

    def wrong(self, uses: Uses, *, in_item: bool) -> Iterator[Found]:
        for name in sorted(uses.names & {"item", "index"}):
            if not in_item:
                yield "item_outside_for_each", f"`{name}` is known only in the parameters of a step with for_each"
        for use in sorted(uses.steps, key=str):
            yield from self._wrong_step(use)
        for key in sorted(key for key in uses.context if key is not None):
            yield from self._wrong_context(key)

    def _wrong_step(self, use: StepUse) -> Iterator[Found]:
        target = self._definition.by_id.get(use.step_id)
        if target is None:
            yield "unknown_step", f"there is no step `{use.step_id[:128]}`"
        elif self._step is not None and target.step_id == self._step.step_id:
            yield "self_reference", "a step cannot read its own output"
        elif self._step is not None and not self._ancestors.have_run(target, self._step):
            yield "step_not_before", f"`{use.step_id}` may not have run by then: add it to depends_on"
        elif use.field == "output":
            yield from _wrong_output(target, use)

    def _wrong_context(self, key: str) -> Iterator[Found]:
        """Report a key that is the id of a step which may not have run: outputs enter the context under these ids."""
        target = self._definition.by_id.get(key)
        if target is None or self._step is None or self._definition.may_have(key):
            return
        if target.step_id != self._step.step_id and not self._ancestors.have_run(target, self._step):
            yield "step_not_before", f"`{key}` may not have run by then: add it to depends_on"


def _wrong_output(target: Draft, use: StepUse) -> Iterator[Found]:
    if use.key is None:
        return
    if target.for_each is not None:
        if isinstance(use.key, str):
            yield "output_is_list", f"`{use.step_id}` has for_each, so its output is a list of outputs"
        return
    if target.type is None or not target.type.outputs:
        return
    if isinstance(use.key, int):
        yield "output_is_object", f"the output of `{use.step_id}` is not a list"
    elif use.key not in target.type.outputs:
        known = ", ".join(sorted(target.type.outputs))
        yield "unknown_output", f"`{target.type.name}` has no output `{use.key[:100]}`; it has {known}"
