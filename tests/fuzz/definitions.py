"""Bodies that the API accepts, so that random requests meet real runs, tasks and collections."""

from typing import Any

from hypothesis import strategies as st

MODELS = st.sampled_from(["nomic-embed-text", "all-minilm", "bge-m3"])
NAMES = st.sampled_from(["a", "b", "c", "docs"])
TEXTS = st.text(max_size=40)
EXPRESSIONS = st.sampled_from(
    [
        "${{ context.question }}",
        "${{ context.list.map(i, i * 2) }}",
        "${{ context.missing }}",
        "${{ size(context.list) }}",
        "${{ 1 / 0 }}",
        "${{ context.list.map(i, context) }}",
        "text with ${{ context.number }} in it",
        "${{ steps.a.output }}",
    ]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | EXPRESSIONS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)
VECTORS = st.lists(st.floats(-1, 1, width=32), min_size=768, max_size=768).filter(any)
DURATIONS = st.sampled_from(["10ms", "1s", "0.2s", 1, "2m"])
_PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "embedding": st.fixed_dictionaries({"text": TEXTS | EXPRESSIONS | st.lists(TEXTS, max_size=3), "model": MODELS}),
    "llm_query": st.fixed_dictionaries({"query": TEXTS | EXPRESSIONS}, optional={"endpoint": st.just("main")}),
    "vector_search": st.fixed_dictionaries(
        {"collection": NAMES, "text": TEXTS | EXPRESSIONS, "model": MODELS}, optional={"limit": st.integers(-1, 20)}
    ),
    "vector_upsert": st.fixed_dictionaries(
        {"collection": NAMES, "points": st.lists(st.fixed_dictionaries({"text": TEXTS}), max_size=3), "model": MODELS}
    ),
    "wait": st.fixed_dictionaries({"duration": DURATIONS})
    | st.fixed_dictionaries({"signal": NAMES, "timeout": st.sampled_from(["100ms", "1s", "5s"])}),
}
_EXTRAS = {
    "when": st.sampled_from(["true", "false", "context.number > 1", "context.none", "1 + 1"]),
    "on_error": st.sampled_from(["fail", "continue"]),
    "timeout": DURATIONS,
    "depends_on": st.lists(NAMES, max_size=2),
    "for_each": st.fixed_dictionaries(
        {"items": st.lists(TEXTS, max_size=4) | st.just("${{ context.list }}")},
        optional={"max_parallel": st.integers(0, 5)},
    ),
}


@st.composite
def steps(draw: st.DrawFn, step_id: str) -> dict[str, Any]:
    """Draw a step that is probably valid."""
    kind = draw(st.sampled_from(sorted(_PARAMETERS)))
    extras = draw(st.fixed_dictionaries({}, optional=_EXTRAS)) if draw(st.booleans()) else {}
    return {"step_id": step_id, "type": kind, "parameters": draw(_PARAMETERS[kind])} | extras


@st.composite
def definitions(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a definition that is probably valid."""
    ids = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    context = {"question": draw(TEXTS), "number": draw(st.integers(-3, 3)), "list": draw(st.lists(VALUES, max_size=5))}
    optional = {
        "workflow_id": NAMES,
        "idempotency_key": NAMES,
        "labels": st.dictionaries(NAMES, NAMES, max_size=2),
        "deadline": DURATIONS,
        "output": VALUES,
        "concurrency": st.fixed_dictionaries({"key": NAMES, "limit": st.integers(1, 2)}),
    }
    more = draw(st.fixed_dictionaries({}, optional=optional)) if draw(st.booleans()) else {}
    return {"context": context, "steps": [draw(steps(step_id)) for step_id in ids]} | more


BODIES: dict[str, st.SearchStrategy[Any]] = {
    "POST /v1/workflows": definitions(),
    "POST /v1/workflows/plan": definitions(),
    "POST /v1/embeddings": st.fixed_dictionaries(
        {"input": TEXTS | st.lists(TEXTS, max_size=4), "model": MODELS},
        optional={"encoding_format": st.sampled_from(["float", "base64"]), "dimensions": st.integers(0, 800)},
    ),
    "POST /v1/embeddings/tasks": st.fixed_dictionaries({"text": TEXTS | st.lists(TEXTS, max_size=4), "model": MODELS}),
    "POST /v1/cache/warm": st.fixed_dictionaries(
        {"texts": st.lists(TEXTS, min_size=1, max_size=4)}, optional={"models": st.lists(MODELS, max_size=2)}
    ),
    "POST /v1/embeddings/batches": st.fixed_dictionaries(
        {"requests": st.lists(st.fixed_dictionaries({"text": TEXTS}), max_size=5), "model": MODELS}
    ),
    "POST /v1/collections/{name}/points": st.fixed_dictionaries(
        {
            "points": st.lists(
                st.fixed_dictionaries({"text": TEXTS}, optional={"id": st.integers(0, 9) | NAMES, "payload": VALUES}),
                min_size=1,
                max_size=3,
            ),
            "model": MODELS,
        }
    ),
    "POST /v1/collections/{name}/search": st.fixed_dictionaries(
        {"text": TEXTS, "model": MODELS}, optional={"limit": st.integers(-1, 20), "filter": VALUES}
    ),
    "POST /v1/runs/{run_id}/signals/{name}": VALUES,
    "POST /v1/dead-letters/requeue": st.just({"all": True}) | st.fixed_dictionaries({"queue": NAMES}),
}
"""Strategies of bodies by operation."""
