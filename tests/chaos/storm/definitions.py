"""Definitions of workflows of every step type, and checks of their outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.chaos.storm.expectations import COLLECTION, MODEL, answer_problem, prompt, vectors_problem

Json = dict[str, Any]
PATIENT = {"retry": {"max_attempts": 100, "delay": "200ms", "factor": 1.5, "max_delay": "2s"}, "timeout": "20s"}
"""Faults last for seconds; a step that fails meanwhile is tried again until they are over."""
MOST_CALLS = 100
ITEMS = 3
SIGNAL = "go"


@dataclass(frozen=True, kw_only=True)
class Workflow:
    """A definition, and the check of the output of its run: it returns what is wrong, or nothing."""

    definition: Json
    problem: Callable[[Any], str]
    signals: bool = False


def _texts(name: str) -> list[str]:
    return [f"first of {name}", f"second of {name}"]


def _embed(name: str) -> Json:
    return {"step_id": "q", "type": "embedding", "parameters": {"text": _texts(name), "model": MODEL}}


def _ask(name: str, step_id: str, **fields: Any) -> Json:
    query = fields.pop("query", prompt(name, step_id))
    return {"step_id": step_id, "type": "llm_query", "parameters": {"query": query, "max_calls": MOST_CALLS}} | fields


def _store(name: str, number: int) -> Json:
    point = {"id": number, "text": f"document of {name}", "payload": {"name": name}}
    return {
        "step_id": "store",
        "type": "vector_upsert",
        "parameters": {"collection": COLLECTION, "points": [point], "model": MODEL},
    }


def _find(name: str) -> Json:
    wanted = {"collection": COLLECTION, "text": f"document of {name}", "model": MODEL, "limit": 1}
    return {"step_id": "find", "type": "vector_search", "parameters": wanted}


def _each(name: str) -> Json:
    query = prompt(name, "each").replace("-1]", "${{ index }}]")
    return _ask(name, "each", query=query, for_each={"items": list(range(ITEMS)), "max_parallel": 2}, depends_on=["q"])


def _sub(name: str) -> Json:
    inner = f"{name}-sub"
    definition = {
        "workflow_id": inner,
        "defaults": PATIENT,
        "steps": [_embed(inner), _ask(inner, "ask")],
        "output": {"vectors": "${{ steps.q.output.embeddings }}", "text": "${{ steps.ask.output.text }}"},
    }
    return {
        "step_id": "sub",
        "type": "workflow",
        "parameters": {"definition": definition},
        "depends_on": ["q"],
        "timeout": "300s",
    }


def _workflow(name: str, steps: list[Json], output: Json) -> Json:
    return {
        "workflow_id": name,
        "idempotency_key": name,
        "defaults": PATIENT,
        "steps": steps,
        "output": {"vectors": "${{ steps.q.output.embeddings }}"} | output,
    }


def small(name: str, number: int) -> Workflow:
    """Vectors, and a question."""
    del number
    steps = [_embed(name), _ask(name, "one")]

    def problem(output: Any) -> str:
        return vectors_problem(output["vectors"], _texts(name)) or answer_problem(output["one"], prompt(name, "one"))

    return Workflow(
        definition=_workflow(name, steps, {"one": "${{ steps.one.output.text }}"}), problem=_reading(problem)
    )


def retrieval(name: str, number: int) -> Workflow:
    """A point is stored and found again, and a question is asked."""
    steps = [_embed(name), _store(name, number), _find(name), _ask(name, "one")]
    output = {"hit": "${{ steps.find.output.hits[0].id }}", "one": "${{ steps.one.output.text }}"}

    def problem(output: Any) -> str:
        if output["hit"] != number:
            return f"point {output['hit']} was found for {number}"
        return vectors_problem(output["vectors"], _texts(name)) or answer_problem(output["one"], prompt(name, "one"))

    return Workflow(definition=_workflow(name, steps, output), problem=_reading(problem))


def everything(name: str, number: int) -> Workflow:
    """All step types, a `for_each`, a sub-run, and a signal."""
    wait: Json = {"step_id": "pause", "type": "wait", "parameters": {"duration": "300ms"}, "depends_on": ["q"]}
    signal: Json = {
        "step_id": "sig",
        "type": "wait",
        "parameters": {"signal": SIGNAL, "timeout": "10m"},
        "timeout": "10m",
    }
    last = _ask(name, "last", depends_on=["find", "each", "sub", "sig"])
    store = _store(name, number) | {"depends_on": ["q"]}
    find = _find(name) | {"depends_on": ["store"]}
    output = {
        "hit": "${{ steps.find.output.hits[0].id }}",
        "each": "${{ steps.each.output.map(o, o.text) }}",
        "sub": "${{ steps.sub.output.output }}",
        "sig": "${{ steps.sig.output }}",
        "last": "${{ steps.last.output.text }}",
    }
    steps = [_embed(name), store, find, _each(name), _sub(name), wait, signal | {"depends_on": ["pause"]}, last]

    def problem(output: Any) -> str:
        return "; ".join(filter(None, _problems_of_everything(output, name, number)))

    return Workflow(definition=_workflow(name, steps, output), problem=_reading(problem), signals=True)


def _problems_of_everything(output: Mapping[str, Any], name: str, number: int) -> list[str]:
    inner = f"{name}-sub"
    return [
        vectors_problem(output["vectors"], _texts(name)),
        "" if output["hit"] == number else f"point {output['hit']} was found for {number}",
        "" if len(output["each"]) == ITEMS else f"{len(output['each'])} of {ITEMS} items have an answer",
        *(answer_problem(text, prompt(name, "each", item)) for item, text in enumerate(output["each"])),
        vectors_problem(output["sub"]["vectors"], _texts(inner)),
        answer_problem(output["sub"]["text"], prompt(inner, "ask")),
        "" if output["sig"] == {"name": name} else f"the signal is {output['sig']!r}",
        answer_problem(output["last"], prompt(name, "last")),
    ]


def _reading(problem: Callable[[Any], str]) -> Callable[[Any], str]:
    """Return a check that calls an output of another form wrong."""

    def safe(output: Any) -> str:
        try:
            return problem(output)
        except (KeyError, TypeError, IndexError) as error:
            return f"the output has another form: {error!r}"

    return safe


SHAPES = (small, retrieval, everything)
