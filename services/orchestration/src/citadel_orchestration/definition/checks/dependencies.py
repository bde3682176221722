"""What steps depend on: that it exists, that no circle closes, and what has run before each."""

from collections.abc import Mapping

from citadel_orchestration.definition.checks.drafts import Draft, DraftDefinition
from citadel_orchestration.definition.checks.problems import Problems

EVERYTHING = -1
"""All bits set: what has run before such a step cannot be told, so nothing about it is reported."""
SHOWN = 12


class Ancestors:
    """Which steps have run before which."""

    def __init__(self, masks: Mapping[int, int]) -> None:
        self._masks = masks

    def have_run(self, earlier: Draft, step: Draft) -> bool:
        """Whether `earlier` has always run, or been skipped, when `step` starts."""
        return bool(self._masks.get(step.index, EVERYTHING) >> earlier.index & 1)


def check_dependencies(definition: DraftDefinition, problems: Problems) -> Ancestors:
    """Reports unknown, repeated and circular dependencies."""
    edges = {step.index: _edges(step, definition.by_id, problems) for step in definition.steps}
    order = _order(edges)
    for circle in _circles(edges, set(edges) - set(order)):
        _report(circle, definition.steps, problems)
    masks: dict[int, int] = {}
    for index in order:
        step, mask = definition.steps[index], 0
        for earlier in edges[index]:
            mask |= masks[earlier] | 1 << earlier
        masks[index] = mask if _is_told(step, definition) else EVERYTHING
    return Ancestors(masks)


def _edges(step: Draft, by_id: Mapping[str, Draft], problems: Problems) -> list[int]:
    """Indices of the steps that come first."""
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


def _is_told(step: Draft, definition: DraftDefinition) -> bool:
    """Whether all that it depends on is known, and it is the only step of its id."""
    known = step.depends_on is not None and all(name in definition.by_id for name in step.depends_on)
    return known and step.step_id is not None and definition.by_id[step.step_id] is step


def _order(edges: Mapping[int, list[int]]) -> list[int]:
    """Steps after what they depend on; without those in a circle or behind one."""
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
    """One circle for each group of steps that wait for each other."""
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


def _report(circle: list[int], steps: list[Draft], problems: Problems) -> None:
    start = circle.index(min(circle))
    turned = [*circle[start:], *circle[:start], circle[start]]
    names = [str(steps[index].step_id) for index in turned]
    shown = names if len(names) <= SHOWN else [*names[: SHOWN - 1], "…", names[-1]]
    message = f"these steps wait for each other: {' → '.join(shown)}"
    problems.add((*steps[circle[start]].path, "depends_on"), "cycle", message)
