"""Good definitions: what they become."""

import copy
import json
import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citadel_common.errors import InvalidDefinition
from citadel_orchestration.definition.parse import load
from tests.unit.orchestration.definition.step_types import RAG, TYPES, embedding, llm, parsed, wait

DOCUMENTATION = Path(__file__).parents[4] / "docs" / "workflows.md"


def test_the_minimal_form_is_accepted_with_defaults():
    definition = parsed(
        {
            "workflow_id": "w",
            "context": {"k": 1},
            "steps": [
                {"step_id": "e", "type": "embedding", "parameters": {"text": "a", "model": "nomic-embed-text"}},
                {"step_id": "l", "type": "llm_query", "parameters": {"query": "b"}},
                {"step_id": "s", "type": "vector_search", "parameters": {"collection": "docs", "text": "c"}},
            ],
        }
    )
    assert definition.workflow_id == "w"
    assert definition.context == {"k": 1}
    assert {name: step.depends_on for name, step in definition.steps.items()} == {"e": (), "l": ("e",), "s": ("l",)}
    assert definition.steps["e"].dependents == ("l",)
    step = definition.steps["l"]
    assert (step.timeout, step.on_error, step.when, step.for_each) == (300.0, "fail", None, None)
    retry = step.retry
    assert (retry.max_attempts, retry.delay, retry.factor, retry.max_delay) == (3, 1.0, 2.0, 60.0)
    assert (definition.deadline, definition.output, definition.concurrency) == (None, None, None)


def test_the_full_form_is_accepted():
    definition = parsed(RAG)
    assert (definition.deadline, definition.idempotency_key) == (120.0, "req-8f2")
    docs, answer = definition.steps["docs"], definition.steps["answer"]
    assert docs.timeout == 30.0
    assert (docs.retry.max_attempts, docs.retry.delay, docs.retry.max_delay) == (4, 0.5, 20.0)
    assert definition.steps["q"].dependents == ("docs", "faq")
    assert definition.steps["faq"].on_error == "continue"
    assert answer.references.steps == {"docs"}
    assert answer.references.context_keys == {"question"}
    scope = {"context": {"question": "why?"}, "steps": {"docs": {"output": {"hits": []}}}}
    assert answer.when.evaluate(scope) is False
    assert answer.parameters.evaluate(scope) == {"query": "Context: []\nQuestion: why?"}
    assert definition.output.references.steps == {"answer"}


def test_the_documentations_examples_are_good():
    blocks = re.findall(r"```json\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    examples = [json.loads(block) for block in blocks]
    whole = [example for example in examples if "steps" in example]
    parts = [{"context": {"documents": []}, "steps": [example]} for example in examples if "step_id" in example]
    assert (len(whole), len(parts)) == (2, 1)
    for raw in whole + parts:
        assert parsed(raw)


def test_an_empty_list_means_no_dependency_and_an_omitted_one_the_step_before():
    definition = parsed({"steps": [wait("a"), wait("b", depends_on=[]), wait("c")]})
    assert [step.depends_on for step in definition.steps.values()] == [(), (), ("b",)]


def test_a_steps_own_retry_is_laid_over_the_default():
    raw = {"defaults": {"retry": {"max_attempts": 9, "factor": 3}}, "steps": [wait("a", retry={"max_attempts": 2})]}
    retry = parsed(raw).steps["a"].retry
    assert (retry.max_attempts, retry.factor, retry.delay) == (2, 3.0, 1.0)


def test_a_for_each_is_parsed_with_the_default_parallelism():
    step = parsed({"steps": [llm("a", "${{ item }} ${{ index }}", for_each={"items": ["x"]})]}).steps["a"]
    assert step.for_each.items.evaluate({}) == ["x"]
    assert step.for_each.max_parallel == 16
    assert step.parameters.evaluate({"item": "x", "index": 0}) == {"query": "x 0"}


def test_the_output_of_a_for_each_is_a_list():
    raw = {"steps": [embedding("a", for_each={"items": ["x"]}), llm("b", "${{ steps.a.output[0].model }}")]}
    assert parsed(raw).steps["b"].references.steps == {"a"}


def test_a_value_may_be_an_expression_wherever_it_stands():
    search = {"collection": "${{ context.c }}", "embedding": "${{ context.v }}", "limit": "${{ context.n }}"}
    points = [{"id": "${{ context.i }}", "embedding": "${{ context.v }}"}]
    raw = {
        "steps": [
            {"step_id": "s", "type": "vector_search", "parameters": search},
            {"step_id": "u", "type": "vector_upsert", "parameters": {"collection": "docs", "points": points}},
            {
                "step_id": "w",
                "type": "vector_upsert",
                "parameters": {"collection": "docs", "points": "${{ context.p }}"},
            },
            {"step_id": "x", "type": "workflow", "parameters": {"definition": "${{ context.d }}"}},
        ]
    }
    assert list(parsed(raw).steps) == ["s", "u", "w", "x"]


def test_a_sub_workflows_expressions_are_its_own():
    inner = {"steps": [llm("x", "${{ context.deep }}")]}
    parameters = {"definition": inner, "context": {"deep": "${{ context.here }}"}}
    step = parsed({"steps": [{"step_id": "sub", "type": "workflow", "parameters": parameters}]}).steps["sub"]
    assert step.parameters.evaluate({"context": {"here": 1}}) == {"definition": inner, "context": {"deep": 1}}
    assert step.references.context_keys == {"here"}


@pytest.mark.parametrize("given", [{"b": 1}, "${{ context.all }}"])
def test_a_sub_workflow_may_be_given_what_is_named_like_its_steps(given):
    inner = {"steps": [llm("a", "${{ context.b }}"), llm("b")]}
    step = {"step_id": "sub", "type": "workflow", "parameters": {"definition": inner, "context": given}}
    assert parsed({"steps": [step]})
    del step["parameters"]["context"]
    with pytest.raises(InvalidDefinition, match="may not have run"):
        parsed({"steps": [step]})


def test_steps_that_stand_later_may_come_first():
    assert parsed({"steps": [wait("a", depends_on=["b"]), wait("b", depends_on=[])]}).steps["b"].dependents == ("a",)


def test_a_step_may_read_indirect_dependencies():
    raw = {"steps": [embedding("a"), wait("b"), wait("c"), llm("d", "${{ steps.a.output.model }} ${{ context.a }}")]}
    assert parsed(raw).steps["d"].references.steps == {"a"}


def test_vectors_of_the_collections_length_are_accepted():
    search = {"collection": "docs", "embedding": "${{ steps.q.output.embedding }}"}
    raw = {"steps": [embedding("q"), {"step_id": "s", "type": "vector_search", "parameters": search}]}
    assert parsed(raw)
    raw["steps"][0]["parameters"]["model"] = "never heard of"
    assert parsed(raw)


def test_parsing_does_not_change_the_submitted_definition():
    raw = copy.deepcopy(RAG)
    assert parsed(raw).raw == RAG
    assert raw == RAG


def test_a_stored_definition_is_loaded_as_it_was_parsed():
    definition = parsed(RAG)
    again = load(orjson.loads(orjson.dumps(definition.raw)), TYPES)
    assert list(again.steps) == list(definition.steps)
    for name, step in definition.steps.items():
        assert (again.steps[name].depends_on, again.steps[name].retry) == (step.depends_on, step.retry)
        assert again.steps[name].references == step.references


def test_a_stored_definition_may_have_lost_its_type():
    with pytest.raises(InvalidDefinition, match="embedding"):
        load(RAG, {})


def chain(count):
    return {
        "context": {"x": "y"},
        "steps": [
            wait("s0"),
            *[llm(f"s{n}", f"${{{{ steps.s{n - 1}.status + context.x }}}}") for n in range(1, count)],
        ],
    }


def test_a_thousand_steps_in_a_row_are_parsed():
    steps = parsed(chain(1000)).steps
    assert len(steps) == 1000
    assert steps["s999"].references.steps == {"s998"}


names = st.sampled_from(["a", "b", "c", "a b", "", "workflow"])
texts = st.sampled_from(
    ["x", "${{ steps.a.output.text }}", "${{ item", "${{ 1 + }}", "${{ context.a }}", "1h", "\ud800", "size(", "${{}}"]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | texts | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | names, inner, max_size=4),
    max_leaves=12,
)
fields = [
    "step_id", "type", "parameters", "depends_on", "when", "on_error", "for_each", "timeout", "retry", "steps",
    "context", "labels", "deadline", "concurrency", "defaults", "output", "text", "query", "definition", "items",
    "points", "embedding", "collection", "model", "max_attempts", "delay", "key", "limit",
]  # fmt: skip
close = st.recursive(
    junk | st.sampled_from(list(TYPES)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(fields), inner, max_size=8),
    max_leaves=25,
)
written_steps = st.fixed_dictionaries(
    {"step_id": names | junk, "type": st.sampled_from(list(TYPES)) | junk},
    optional={
        "parameters": close,
        "depends_on": st.lists(names, max_size=3) | junk,
        "when": texts | junk,
        "for_each": close,
        "retry": close,
        "timeout": junk,
    },
)
definitions = st.fixed_dictionaries(
    {"steps": st.lists(written_steps | close, max_size=4) | junk},
    optional={"context": close, "output": close, "defaults": close, "labels": close, "deadline": junk},
)


@settings(max_examples=400, deadline=None)
@given(definitions | close | junk)
def test_any_json_is_either_accepted_or_an_invalid_definition(raw):
    try:
        definition = parsed(raw)
    except InvalidDefinition as error:
        problems = [[problem.pointer, problem.detail, problem.code] for problem in error.errors]
        orjson.dumps(problems)
        if not problems:
            raise
    else:
        assert list(load(definition.raw, TYPES).steps) == list(definition.steps)


def test_deeply_nested_json_is_refused_without_a_crash():
    value = []
    for _ in range(100_000):
        value = [value]
    for raw in (value, {"steps": value}, {"steps": [llm("a", value)]}):
        with pytest.raises(InvalidDefinition):
            parsed(raw)
