"""What a definition would do, told without doing it."""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from citadel_contracts import Queue
from citadel_orchestration.definition.definition import Definition, Step
from citadel_orchestration.definition.graph import mermaid, order
from citadel_orchestration.definition.template import holds_expression
from citadel_orchestration.steps.base import StepType, Wanted

Cached = Callable[[Wanted], int]
"""How many of the texts have their vectors in the cache."""

_CALLS = {"llm_query": "llm", "vector_search": "searches", "vector_upsert": "upserts", "workflow": "sub_runs"}


def plan(definition: Definition, *, cached: Cached | None = None) -> dict[str, Any]:
    """Order, graph, expected calls and warnings.

    Args:
        definition: Checked.
        cached: Asks the embedding cache; None leaves `cached_texts` open.

    Returns:
        `order` (levels of step ids), `graph` (Mermaid), `steps`, `warnings`. A step has `step_id`, `type`, `queue`,
        `depends_on`, `conditional`, `per_item`, `items` (None: known only when it runs) and `calls`: how often, per
        item where `per_item`, each kind of service is called; `embedding_texts` and `cached_texts` are None where
        they are known only when it runs.
    """
    return {
        "workflow_id": definition.workflow_id,
        "order": order(definition),
        "graph": mermaid(definition),
        "steps": [_step(step, cached) for step in definition.steps.values()],
        "warnings": list(_warnings(definition)),
    }


def _step(step: Step, cached: Cached | None) -> dict[str, Any]:
    calls = _calls(step, cached)
    return {
        "step_id": step.step_id,
        "type": step.type.name,
        "queue": (Queue.ORCHESTRATION if calls["embedding_texts"] == 0 else Queue.EMBEDDINGS).value,
        "depends_on": list(step.depends_on),
        "conditional": step.when is not None,
        "per_item": step.for_each is not None,
        "items": _items(step),
        "calls": calls,
    }


def _items(step: Step) -> int | None:
    if step.for_each is None:
        return 1
    items = step.for_each.items.value
    return len(items) if isinstance(items, list) else None


def _calls(step: Step, cached: Cached | None) -> dict[str, int | None]:
    calls: dict[str, int | None] = dict.fromkeys(_CALLS.values(), 0)
    if step.type.name in _CALLS:
        calls[_CALLS[step.type.name]] = 1
    wanted = _wanted(step)
    if wanted is not None:
        known = cached(wanted) if cached else None
        return calls | {"embedding_texts": len(wanted.texts), "cached_texts": known}
    texts = _texts(step)
    return calls | {"embedding_texts": texts, "cached_texts": 0 if texts == 0 else None}


def _wanted(step: Step) -> Wanted | None:
    """The texts, where all parameters are known."""
    if not step.parameters.is_literal:
        return None
    try:
        return step.type.wants(step.type.parameters.model_validate(step.parameters.value))
    except ValidationError:
        return None


def _texts(step: Step) -> int | None:
    """How many texts would be embedded, as far as the parameters tell."""
    if step.parameters.is_literal or type(step.type).wants is StepType.wants:
        return 0
    written = step.parameters.value
    points = written.get("points")
    holders = points if isinstance(points, list) else [written]
    if any(not isinstance(holder, dict) for holder in holders) or isinstance(points, str):
        return None
    counts = [_count(holder.get("text")) for holder in holders]
    return None if None in counts else sum(count for count in counts if count)


def _count(text: Any) -> int | None:
    """A string that is an expression may become a list of texts."""
    if text is None:
        return 0
    if isinstance(text, list):
        return len(text)
    return None if holds_expression(text) else 1


def _warnings(definition: Definition) -> Iterator[str]:
    for step in definition.steps.values():
        yield from _uncertain(definition, step)
        yield from _unknown_keys(definition, step)
        if definition.deadline is not None and step.timeout > definition.deadline:
            yield f"`{step.step_id}` may take {step.timeout:g} s, the whole run only {definition.deadline:g} s"


def _uncertain(definition: Definition, step: Step) -> Iterator[str]:
    for name in sorted(step.references.steps):
        if definition.steps[name].when is not None:
            yield f"`{step.step_id}` reads `{name}`, which may be skipped"
        if definition.steps[name].on_error == "continue":
            yield f"`{step.step_id}` reads `{name}`, which may have failed"


def _unknown_keys(definition: Definition, step: Step) -> Iterator[str]:
    """Outputs may add keys to the context, so an unknown one is no error."""
    for key in sorted(step.references.context_keys or ()):
        if key not in definition.context and key not in definition.steps:
            yield f"`{step.step_id}` reads `context.{key}`, which only the output of a step can add"
