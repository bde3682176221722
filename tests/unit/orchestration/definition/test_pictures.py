"""Order, graph and plan."""

import re

import pytest

from citadel_orchestration.definition.graph import mermaid, order
from citadel_orchestration.definition.plan import plan
from tests.unit.orchestration.definition.step_types import RAG, embedding, llm, parsed, wait

LINE = re.compile(
    r"flowchart TD"
    r"|    s\d+(\[\[\"[^\"\[\]{}|]*\"\]\]|\[\"[^\"\[\]{}|]*\"\])"
    r"|    s\d+ (-->|-\.->) s\d+"
    r"|    classDef [a-z_]+ [a-zA-Z0-9:,# -]+"
    r"|    class s\d+(,s\d+)* [a-z_]+"
)


def test_order_is_by_levels():
    assert order(parsed(RAG)) == [["q"], ["docs", "faq"], ["answer"]]
    assert order(parsed({"steps": [wait("a", depends_on=["b"]), wait("b", depends_on=[])]})) == [["b"], ["a"]]


def test_the_graph_has_nodes_edges_and_states():
    lines = mermaid(parsed(RAG), {"q": "succeeded", "docs": "running", "faq": "running", "x": "failed"}).splitlines()
    assert lines[0] == "flowchart TD"
    assert '    s0["q<br/>embedding"]' in lines
    assert "    s0 --> s1" in lines
    assert "    s1 -.-> s3" in lines
    assert "    class s1,s2 running" in lines
    assert not any("failed" in line for line in lines)


def test_labels_cannot_break_out():
    evil = 'context.x == "a]b[c" || "<script>|{}" == \'`%%;\''
    picture = mermaid(parsed({"steps": [wait("a.b:c-d", when=evil)]}), {"a.b:c-d": "x; click s0 evil"})
    assert "<script>" not in picture
    assert all(LINE.fullmatch(line) for line in picture.splitlines()), picture


def test_every_line_is_mermaid():
    raw = {"steps": [embedding("a", for_each={"items": [1]}), wait("b", when="true")]}
    picture = mermaid(parsed(raw), {"a": "failed", "b": "skipped"})
    assert all(LINE.fullmatch(line) for line in picture.splitlines()), picture


def calls(raw, **settings):
    return {step["step_id"]: step for step in plan(parsed(raw), **settings)["steps"]}


def test_a_plan_says_order_calls_and_queue():
    planned = plan(parsed(RAG))
    assert planned["order"] == [["q"], ["docs", "faq"], ["answer"]]
    assert planned["graph"].startswith("flowchart TD")
    by_id = {step["step_id"]: step for step in planned["steps"]}
    assert (by_id["q"]["queue"], by_id["answer"]["queue"]) == ("embeddings", "orchestration")
    assert by_id["answer"]["calls"]["llm"] == 1
    assert by_id["docs"]["calls"]["searches"] == 1
    assert by_id["answer"]["conditional"]


def test_a_plan_shows_the_limits_of_each_step_from_itself_the_defaults_or_the_language():
    raw = {"defaults": {"timeout": "90s"}, "steps": [wait("a", start_timeout="2m"), wait("b", timeout=1.5)]}
    found = calls(raw)
    assert [(found[name]["start_timeout"], found[name]["timeout"]) for name in "ab"] == [(120, 90), (86_400, 1.5)]


@pytest.mark.parametrize(
    ("text", "texts"), [("one", 1), (["a", "b"], 2), ("${{ context.x }}", None), (["${{ context.x }}", "b"], 2)]
)
def test_texts_are_counted_as_far_as_they_are_known(text, texts):
    assert calls({"steps": [embedding("a", text)]})["a"]["calls"]["embedding_texts"] == texts


def test_the_cache_is_asked_for_texts_that_are_known():
    asked = []

    def cached(wanted):
        asked.append(wanted.texts)
        return 1

    planned = calls({"steps": [embedding("a", ["x", "y"]), llm("b")]}, cached=cached)
    assert planned["a"]["calls"]["cached_texts"] == 1
    assert planned["b"]["calls"]["cached_texts"] == 0
    assert asked == [["x", "y"]]


def test_calls_of_a_for_each_are_per_item():
    step = calls({"steps": [embedding("a", "${{ item }}", for_each={"items": ["x", "y", "z"]})]})["a"]
    assert (step["per_item"], step["items"]) == (True, 3)
    step = calls({"context": {"l": []}, "steps": [llm("a", for_each={"items": "${{ context.l }}"})]})["a"]
    assert step["items"] is None


def test_plans_warn_of_skipped_failed_and_missing_values():
    raw = {
        "deadline": "10s",
        "steps": [
            wait("a", when="true", on_error="continue"),
            llm("b", "${{ steps.a.output }} ${{ context.later }}", timeout="5s"),
        ],
    }
    planned = plan(parsed(raw))["warnings"]
    assert any("`b` reads `a`, which may be skipped" in warning for warning in planned)
    assert any("which may have failed" in warning for warning in planned)
    assert any("context.later" in warning for warning in planned)
    assert any("`a` may take 300 s" in warning for warning in planned)
