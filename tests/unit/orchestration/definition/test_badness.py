"""Every kind of badness is found, told apart, and pointed at."""

import math

import pytest

from citadel_common.errors import InvalidDefinition
from citadel_orchestration.definition.models import DefinitionLimits
from tests.unit.orchestration.definition.step_types import embedding, llm, parsed, wait

SMALL = DefinitionLimits(max_steps=4, max_definition_bytes=6000, max_context_bytes=200, max_items=3, max_labels=2)


def steps(*written, **head):
    return {"workflow_id": "w", **head, "steps": list(written)}


def search(step_id="s", **parameters):
    return {"step_id": step_id, "type": "vector_search", "parameters": parameters}


def upsert(points, **parameters):
    return {"step_id": "u", "type": "vector_upsert", "parameters": {"points": points, **parameters}}


def sub(definition, step_id="sub"):
    return {"step_id": step_id, "type": "workflow", "parameters": {"definition": definition}}


def nested(levels, key=None):
    concurrency = {} if key is None else {"concurrency": {"key": key}}
    definition = steps(wait("a"), **concurrency)
    for _ in range(levels):
        definition = steps(sub(definition))
    return definition | concurrency


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


BAD = [
    # the document
    ([], "", "not_an_object"),
    (None, "", "not_an_object"),
    ("text", "", "not_an_object"),
    (steps(wait("a"), context={"x": "y" * 7000}), "", "definition_too_large"),
    (steps(wait("a"), context={"x": "y" * 300}), "/context", "context_too_large"),
    (steps(wait("a"), context={"x": math.nan}), "/context/x", "bad_number"),
    (steps(wait("a"), context={"x": math.inf}), "/context/x", "bad_number"),
    (steps(wait("a"), context={"x": 2**63}), "/context/x", "bad_number"),
    (steps(wait("a"), context={"x": "a\0b"}), "/context/x", "bad_text"),
    (steps(wait("a"), context={"x": "\ud800"}), "/context/x", "bad_text"),
    (steps(wait("a"), context={"x": {1, 2}}), "/context/x", "not_json"),
    (steps(wait("a"), context={"x": {1: 2}}), "/context/x", "not_json"),
    (steps(wait("a"), context={"x": deep(80)}), "/context/x" + "/0" * 62, "too_deep"),
    # fields
    ({"workflow_id": "w"}, "/steps", "missing_field"),
    (steps(), "/steps", "no_steps"),
    (steps(*[wait(f"s{n}") for n in range(5)]), "/steps", "too_many_steps"),
    ({"steps": {}}, "/steps", "wrong_type"),
    ({"steps": ["a"]}, "/steps/0", "wrong_type"),
    ({**steps(wait("a")), "step": []}, "/step", "unknown_field"),
    (steps(wait("a", dependson=[])), "/steps/0/dependson", "unknown_field"),
    (steps({"step_id": "a"}), "/steps/0/type", "missing_field"),
    (steps({"type": "wait", "parameters": {"duration": 1}}), "/steps/0/step_id", "missing_field"),
    (steps(wait(7)), "/steps/0/step_id", "wrong_type"),
    (steps(wait("a b")), "/steps/0/step_id", "bad_name"),
    (steps(wait("")), "/steps/0/step_id", "bad_name"),
    (steps(wait("a", on_error="ignore")), "/steps/0/on_error", "bad_value"),
    (steps(wait("a", when=True)), "/steps/0/when", "wrong_type"),
    (steps(wait("a", parameters=[])), "/steps/0/parameters", "wrong_type"),
    (steps(wait("a"), workflow_id=3), "/workflow_id", "wrong_type"),
    (steps(wait("a"), workflow_id=""), "/workflow_id", "out_of_range"),
    (steps(wait("a"), context=[]), "/context", "wrong_type"),
    (steps(wait("a"), labels={"team": 3}), "/labels/team", "wrong_type"),
    (steps(wait("a"), labels={"a b": "c"}), "/labels/a b", "bad_name"),
    (steps(wait("a"), labels={"a": "", "b": "", "c": ""}), "/labels", "too_many_labels"),
    (steps(wait("a"), concurrency={"limit": 2}), "/concurrency/key", "missing_field"),
    (steps(wait("a"), concurrency={"key": "k", "limit": 0}), "/concurrency/limit", "out_of_range"),
    (steps(wait("a"), concurrency={"key": "k", "limit": 10**9}), "/concurrency/limit", "out_of_range"),
    # durations and numbers
    (steps(wait("a"), deadline="2 days"), "/deadline", "bad_duration"),
    (steps(wait("a"), deadline=True), "/deadline", "bad_duration"),
    (steps(wait("a"), deadline="0s"), "/deadline", "out_of_range"),
    (steps(wait("a"), deadline="9999h"), "/deadline", "out_of_range"),
    (steps(wait("a", timeout="-1s")), "/steps/0/timeout", "bad_duration"),
    (steps(wait("a", timeout="100h")), "/steps/0/timeout", "out_of_range"),
    (steps(wait("a"), defaults={"timeout": "100h"}), "/defaults/timeout", "out_of_range"),
    (steps(wait("a", retry={"max_attempts": 0})), "/steps/0/retry/max_attempts", "out_of_range"),
    (steps(wait("a", retry={"max_attempts": 1000})), "/steps/0/retry/max_attempts", "out_of_range"),
    (steps(wait("a", retry={"max_attempts": "3"})), "/steps/0/retry/max_attempts", "wrong_type"),
    (steps(wait("a", retry={"factor": 0.5})), "/steps/0/retry/factor", "out_of_range"),
    (steps(wait("a", retry={"delay": "9s", "max_delay": "1s"})), "/steps/0/retry/max_delay", "bad_retry"),
    # for_each
    (steps(wait("a", for_each={})), "/steps/0/for_each/items", "missing_field"),
    (steps(wait("a", for_each={"items": "x"})), "/steps/0/for_each/items", "items_not_list"),
    (steps(wait("a", for_each={"items": [1, 2, 3, 4]})), "/steps/0/for_each/items", "too_many_items"),
    (steps(wait("a", for_each={"items": [], "max_parallel": 0})), "/steps/0/for_each/max_parallel", "out_of_range"),
    (steps(wait("a", for_each={"items": [], "max_parallel": 999})), "/steps/0/for_each/max_parallel", "out_of_range"),
    (steps(llm("a", "${{ item }}")), "/steps/0/parameters/query", "item_outside_for_each"),
    (steps(wait("a", for_each={"items": "${{ index }}"})), "/steps/0/for_each/items", "item_outside_for_each"),
    (steps(wait("a", for_each={"items": []}, when="item > 1")), "/steps/0/when", "item_outside_for_each"),
    (steps(wait("a"), output="${{ item }}"), "/output", "item_outside_for_each"),
    (
        steps(embedding("a", for_each={"items": ["x"]}), llm("b", "${{ steps.a.output.embedding }}")),
        "/steps/1/parameters/query",
        "output_is_list",
    ),
    # steps among one another
    (steps(wait("a"), wait("a")), "/steps/1/step_id", "duplicate_step"),
    (steps({**wait("a"), "type": "sing"}), "/steps/0/type", "unknown_type"),
    (steps(wait("a", depends_on=["z"])), "/steps/0/depends_on/0", "unknown_dependency"),
    (
        steps(wait("a"), llm("b", "${{ steps.a.status }}", depends_on=["z"])),
        "/steps/1/depends_on/0",
        "unknown_dependency",
    ),
    (steps(wait("a", depends_on=["a"])), "/steps/0/depends_on/0", "self_dependency"),
    (steps(wait("a"), wait("b", depends_on=["a", "a"])), "/steps/1/depends_on/1", "duplicate_dependency"),
    (steps(wait("a", depends_on=["b"]), wait("b")), "/steps/0/depends_on", "cycle"),
    # parameters
    (steps(llm("a", 5)), "/steps/0/parameters/query", "bad_parameter"),
    (steps(llm("a", "")), "/steps/0/parameters/query", "bad_parameter"),
    (steps({"step_id": "a", "type": "llm_query"}), "/steps/0/parameters/query", "missing_parameter"),
    (steps(llm("a"), wait("b", parameters={"time": 1})), "/steps/1/parameters/time", "unknown_parameter"),
    (steps(upsert([{"id": 1, "text": 2}], collection="x")), "/steps/0/parameters/points/0/text", "bad_parameter"),
    (steps(search(collection="x")), "/steps/0/parameters", "step_check"),
    (steps(wait("a", parameters={})), "/steps/0/parameters", "bad_parameter"),
    (
        steps(wait("a", parameters={"a/b~": 1})),
        "/steps/0/parameters/a~1b~0",
        "unknown_parameter",
    ),
    (
        steps({"step_id": "a", "type": "llm_query", "parameters": {"query": "x", "endpoint": "nowhere"}}),
        "/steps/0/parameters/endpoint",
        "step_check",
    ),
    # expressions
    (steps(llm("a", "${{ context.x")), "/steps/0/parameters/query", "expression_unterminated"),
    (steps(llm("a", "${{ 'x }}")), "/steps/0/parameters/query", "expression_unterminated"),
    (steps(llm("a", "${{ 1 + }}")), "/steps/0/parameters/query", "expression_syntax"),
    (steps(llm("a", "${{ }}")), "/steps/0/parameters/query", "expression_syntax"),
    (steps(llm("a", "${{ b'x' }}")), "/steps/0/parameters/query", "expression_syntax"),
    (steps(llm("a", "${{ " + "1+" * 2500 + "1 }}")), "/steps/0/parameters/query", "expression_too_large"),
    (steps(llm("a", "${{ " + "(" * 99 + "1" + ")" * 99 + " }}")), "/steps/0/parameters/query", "expression_too_large"),
    (steps(llm("a", "${{ env.HOME }}")), "/steps/0/parameters/query", "unknown_name"),
    (steps(llm("a", "${{ run.secret }}")), "/steps/0/parameters/query", "unknown_name"),
    (steps(llm("a", "${{ open('x') }}")), "/steps/0/parameters/query", "unknown_function"),
    (steps(llm("a", "${{ size(1, 2) }}")), "/steps/0/parameters/query", "bad_call"),
    (steps(llm("a", "${{ has(context) }}")), "/steps/0/parameters/query", "bad_call"),
    (steps(llm("a", "${{ steps }}")), "/steps/0/parameters/query", "steps_misused"),
    (steps(llm("a", "${{ steps[context.x].output }}")), "/steps/0/parameters/query", "steps_misused"),
    (steps(wait("a"), llm("b", "${{ steps.a.error }}")), "/steps/1/parameters/query", "unknown_step_field"),
    (steps(llm("a", "${{ steps.z.output }}")), "/steps/0/parameters/query", "unknown_step"),
    (steps(llm("a", "${{ steps.a.output }}")), "/steps/0/parameters/query", "self_reference"),
    (steps(llm("a", "${{ steps.b.output }}"), wait("b")), "/steps/0/parameters/query", "step_not_before"),
    (steps(wait("a"), wait("b", depends_on=[], when="steps.a.status == 'x'")), "/steps/1/when", "step_not_before"),
    (steps(wait("a"), llm("b", "${{ context.a }}", depends_on=[])), "/steps/1/parameters/query", "step_not_before"),
    (steps(embedding("a"), llm("b", "${{ steps.a.output.text }}")), "/steps/1/parameters/query", "unknown_output"),
    (steps(embedding("a"), llm("b", "${{ steps.a.output[0] }}")), "/steps/1/parameters/query", "output_is_object"),
    (steps(wait("a"), output={"x": ["${{ steps.z.output }}"]}), "/output/x/0", "unknown_step"),
    (steps(wait("a"), output={"${{ run.id }}": 1}), "/output/${{ run.id }}", "expression_in_name"),
    (steps(wait("a", when="'yes'")), "/steps/0/when", "when_not_bool"),
    (steps(wait("a", when="size(context.x)")), "/steps/0/when", "when_not_bool"),
    (steps(wait("a", when="1 + 1")), "/steps/0/when", "when_not_bool"),
    (steps(wait("a", when="not ${{ context.x }}")), "/steps/0/when", "when_not_expression"),
    # vector spaces
    (steps(search(collection="docs", embedding=[1.0, 2.0])), "/steps/0/parameters/embedding", "dimension_mismatch"),
    (
        steps(search(collection="docs", text="x", model="bge-m3")),
        "/steps/0/parameters/text",
        "dimension_mismatch",
    ),
    (
        steps(
            {"step_id": "q", "type": "embedding", "parameters": {"text": "x", "model": "bge-m3"}},
            search(collection="docs", embedding="${{ steps.q.output.embedding }}"),
        ),
        "/steps/1/parameters/embedding",
        "dimension_mismatch",
    ),
    (
        steps(
            {"step_id": "q", "type": "embedding", "parameters": {"text": ["x"], "dimensions": 256}},
            upsert([{"id": 1, "embedding": "${{ steps['q'].output.embeddings[0] }}"}], collection="docs"),
        ),
        "/steps/1/parameters/points/0/embedding",
        "dimension_mismatch",
    ),
    # sub-workflows
    (steps(sub({"steps": []})), "/steps/0/parameters/definition/steps", "no_steps"),
    (
        steps(wait("a"), sub(steps(llm("b", "${{ steps.a.output }}")))),
        "/steps/1/parameters/definition/steps/0/parameters/query",
        "unknown_step",
    ),
    (nested(6), "/steps/0/parameters/definition" * 6, "nested_too_deep"),
    (nested(1, key="k"), "/steps/0/parameters/definition/concurrency/key", "key_of_ancestor"),
    (nested(3, key="k"), "/steps/0/parameters/definition" * 3 + "/concurrency/key", "key_of_ancestor"),
]


@pytest.mark.parametrize(("raw", "pointer", "code"), BAD, ids=[f"{n}-{code}" for n, (_, _, code) in enumerate(BAD)])
def test_each_kind_is_found_and_pointed_at(raw, pointer, code):
    with pytest.raises(InvalidDefinition) as raised:
        parsed(raw, limits=SMALL)
    found = {(problem.pointer, problem.code) for problem in raised.value.errors}
    assert (pointer, code) in found
    assert all(problem.detail for problem in raised.value.errors)


@pytest.mark.parametrize(("raw", "pointer", "code"), BAD, ids=[f"{n}-{code}" for n, (_, _, code) in enumerate(BAD)])
def test_one_mistake_is_one_problem(raw, pointer, code):
    with pytest.raises(InvalidDefinition) as raised:
        parsed(raw, limits=SMALL)
    assert len(raised.value.errors) == 1, raised.value.errors


def test_there_are_many_kinds():
    assert len({code for _, _, code in BAD}) >= 40


def test_all_problems_are_listed_at_once():
    raw = {
        "deadline": "soon",
        "steps": [
            wait("a b"),
            llm("x", "${{ steps.nobody.output }} ${{ 1 + }}"),
            llm("y", 3, depends_on=["z"]),
            {**wait("x"), "type": "sing"},
        ],
        "output": "${{ who }}",
    }
    with pytest.raises(InvalidDefinition) as raised:
        parsed(raw)
    codes = [problem.code for problem in raised.value.errors]
    assert {"bad_duration", "bad_name", "expression_syntax", "bad_parameter", "unknown_dependency"} <= set(codes)
    assert {"duplicate_step", "unknown_type", "unknown_name"} <= set(codes)
    assert "/deadline" in str(raised.value)


def test_a_circle_is_named():
    with pytest.raises(InvalidDefinition, match="a → c → b → a"):
        parsed(steps(wait("a", depends_on=["c"]), wait("b", depends_on=["a"]), wait("c", depends_on=["b"])))


def test_two_circles_are_two_problems():
    raw = steps(
        wait("a", depends_on=["b"]),
        wait("b", depends_on=["a"]),
        wait("c", depends_on=["d", "a"]),
        wait("d", depends_on=["c"]),
        wait("e", depends_on=["d"]),
    )
    with pytest.raises(InvalidDefinition) as raised:
        parsed(raw)
    assert [problem.pointer for problem in raised.value.errors] == ["/steps/0/depends_on", "/steps/2/depends_on"]


def test_problems_are_limited():
    raw = steps(*[{**wait(f"s{n}"), "type": "sing"} for n in range(900)])
    with pytest.raises(InvalidDefinition) as raised:
        parsed(raw, limits=DefinitionLimits(max_problems=10))
    assert len(raised.value.errors) == 10
