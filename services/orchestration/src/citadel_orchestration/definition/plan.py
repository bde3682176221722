"""Plans: what a definition would do, found out without running it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from citadel_contracts import Queue
from citadel_contracts.workflows import EmbedPart
from citadel_orchestration.definition.definition import Definition, Step
from citadel_orchestration.definition.graph import mermaid, order
from citadel_orchestration.step_types import Embed

Cached = Callable[[EmbedPart], int]
"""Counts the texts of a request whose vectors are in the cache."""

_CALLS = ("llm", "searches", "upserts", "sub_runs")
"""Kinds of calls that every step of a plan shows; others are shown where a step makes them."""


def plan(definition: Definition, *, cached: Cached | None = None) -> dict[str, Any]:
    """Return order, graph, expected calls and warnings.

    Args:
        definition: Checked.
        cached: Asks the embedding cache; without it `cached_texts` is None.

    Returns:
        `order` (levels of step ids), `graph` (Mermaid), `steps`, `warnings`. A step has `step_id`, `type`, `queue`,
        `depends_on`, `conditional`, `per_item`, `items` (None: known only when it runs) and `calls`: how often, per
        item where `per_item`, each kind of service is called; `embedding_texts` and `cached_texts` are None where
        they are known only when it runs. `start_timeout` and `timeout` are its limits in seconds, its defaults'
        included: of its waits for the start of an attempt, and of one attempt.
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
        "start_timeout": step.start_timeout,
        "timeout": step.timeout,
        "calls": calls,
    }


def _items(step: Step) -> int | None:
    if step.for_each is None:
        return 1
    items = step.for_each.items.value
    return len(items) if isinstance(items, list) else None


def _calls(step: Step, cached: Cached | None) -> dict[str, int | None]:
    calls: dict[str, int | None] = dict.fromkeys(_CALLS, 0)
    if step.type.calls is not None:
        calls[step.type.calls] = 1
    requests = _requests(step)
    if requests:
        known = sum(map(cached, requests)) if cached else None
        return calls | {"embedding_texts": sum(len(part.texts) for part in requests), "cached_texts": known}
    texts = 0 if requests is not None else step.type.texts(step.parameters.value)
    return calls | {"embedding_texts": texts, "cached_texts": 0 if texts == 0 else None}


def _requests(step: Step) -> Sequence[EmbedPart] | None:
    """Return what a step asks of the embeddings workers; None if that depends on its evaluation."""
    if not step.parameters.is_literal:
        return None
    try:
        effect = step.type.begin(step.type.parameters.model_validate(step.parameters.value))
    except ValidationError:
        return None
    return effect.requests if isinstance(effect, Embed) else ()


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
    """Warn about unknown keys of the context; they are not errors, since outputs may add keys."""
    for key in sorted(step.references.context_keys or ()):
        if key not in definition.context and key not in definition.steps:
            yield f"`{step.step_id}` reads `context.{key}`, which only the output of a step can add"
