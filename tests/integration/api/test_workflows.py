"""Workflows: submitted, checked, planned."""

from typing import Any

import pytest

from tests.integration.api.stack import WAIT, Stack, embedding
from tests.support.polling import eventually

SHORT = {"step_id": "s", "type": "wait", "parameters": {"duration": "1ms"}}


def runs_of(stack: Stack, workflow_id: str) -> list[Any]:
    found: list[Any] = stack.show(f"/v1/runs?workflow_id={workflow_id}")["runs"]
    return found


def test_an_accepted_workflow_runs_to_its_end_with_output_context_and_steps(stack: Stack) -> None:
    definition = {
        "workflow_id": "whole",
        "context": {"question": "what is this?"},
        "labels": {"team": "a"},
        "steps": [embedding("q", "${{ context.question }}"), SHORT],
        "output": {"length": "${{ size(steps.q.output.embedding) }}"},
    }
    answer = stack.http.post("/v1/workflows", json=definition)
    body = answer.json()
    assert (answer.status_code, body["workflow_id"], body["status"]) == (202, "whole", "queued")
    assert answer.headers["location"] == f"/v1/runs/{body['run_id']}"
    run = stack.ended(answer.headers["location"])
    assert (run["status"], run["output"], run["labels"]) == ("succeeded", {"length": 768}, {"team": "a"})
    assert run["final_context"]["question"] == "what is this?"
    assert len(run["final_context"]["q"]["embedding"]) == 768
    assert [(step["step_id"], step["type"], step["status"]) for step in run["steps"]] == [
        ("q", "embedding", "succeeded"),
        ("s", "wait", "succeeded"),
    ]
    assert run["created_at"] <= run["started_at"] <= run["finished_at"]


def test_all_problems_of_a_definition_are_reported_at_once_and_nothing_is_recorded(stack: Stack) -> None:
    answer = stack.http.post(
        "/v1/workflows",
        json={
            "workflow_id": "wrong",
            "steps": [
                {"step_id": "a", "type": "nothing"},
                {"step_id": "b", "type": "embedding", "parameters": {"text": "${{ steps.z.output }}", "bogus": 1}},
                {"step_id": "b", "type": "wait", "depends_on": ["y"], "parameters": {"duration": "soon"}},
            ],
        },
    )
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["status"]) == (422, "invalid_definition", 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["trace_id"]
    found = {(error["pointer"], error["code"]) for error in problem["errors"]}
    assert found >= {
        ("/steps/0/type", "unknown_type"),
        ("/steps/1/parameters/text", "unknown_step"),
        ("/steps/1/parameters/bogus", "unknown_parameter"),
        ("/steps/2/depends_on/0", "unknown_dependency"),
    }
    assert any(pointer.startswith("/steps/2/step_id") for pointer, _ in found)
    assert runs_of(stack, "wrong") == []


def test_the_same_idempotency_key_gives_the_same_run(stack: Stack) -> None:
    definition = {"workflow_id": "once", "idempotency_key": "once", "steps": [SHORT]}
    paths = {stack.http.post("/v1/workflows", json=definition).headers["location"] for _ in range(3)}
    assert len(paths) == 1
    other = stack.http.post("/v1/workflows", json=definition | {"context": {"more": 1}})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    assert len(runs_of(stack, "once")) == 1


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{nope", "application/json", 400, "malformed_body"),
        (b"", "application/json", 400, "malformed_body"),
        (b"\xff", "application/json", 400, "malformed_body"),
        (b"[1]", "application/json", 422, "invalid_definition"),
        (b"steps: []", "application/yaml", 415, "unsupported_media_type"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/workflows", "/v1/workflows/plan"])
def test_a_body_that_is_not_a_definition_is_refused(
    stack: Stack, path: str, body: bytes, kind: str, status: int, code: str
) -> None:
    answer = stack.http.post(path, content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_plan_tells_order_graph_calls_and_cache_hits_and_runs_nothing(stack: Stack) -> None:
    known, unknown = embedding("known", "planned text", depends_on=[]), embedding("new", "never seen", depends_on=[])
    stack.ended(stack.submit(known))
    search = {"collection": "c", "embedding": "${{ steps.new.output.embedding }}"}
    steps = [known, unknown, {"step_id": "s", "type": "vector_search", "parameters": search}]
    plan = stack.http.post("/v1/workflows/plan", json={"workflow_id": "plan", "steps": steps}).raise_for_status().json()
    assert plan["order"] == [["known", "new"], ["s"]]
    assert plan["graph"].startswith("flowchart")
    calls = {step["step_id"]: step["calls"] for step in plan["steps"]}
    assert [calls[name]["cached_texts"] for name in ("known", "new")] == [1, 0]
    assert (calls["new"]["embedding_texts"], calls["s"]["searches"]) == (1, 1)
    assert runs_of(stack, "plan") == []


def test_an_invalid_definition_cannot_be_planned(stack: Stack) -> None:
    answer = stack.http.post("/v1/workflows/plan", json={"steps": [{"step_id": "a", "type": "nothing"}]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/steps/0/type")


def test_the_schema_of_definitions_has_the_public_step_types(stack: Stack) -> None:
    answer = stack.http.get("/v1/workflows/schema")
    assert answer.headers["content-type"] == "application/schema+json"
    schema = answer.json()
    assert schema["$schema"].endswith("2020-12/schema")
    assert "steps" in schema["required"]
    assert "embedding" in schema["$defs"]["StepModel"]["properties"]["type"]["enum"]
    assert "embedding_chunk" not in schema["$defs"]["StepModel"]["properties"]["type"]["enum"]


def test_workflows_are_accepted_while_the_broker_is_down(stack: Stack) -> None:
    stack.redis.pause()
    try:
        wide = [SHORT | {"step_id": f"s{number}", "depends_on": []} for number in range(20)]
        paths = [stack.submit(*wide) for _ in range(5)]
    finally:
        stack.redis.resume()
    for path in paths:
        assert stack.ended(path)["status"] == "succeeded"
    # the timeout of a message is paid for once in a while, not for each step and not for each submission
    assert stack.log.read_text().count("steps_not_published") in (1, 2)


def test_without_postgres_nothing_is_accepted_and_embeddings_are_served(stack: Stack) -> None:
    stack.postgres.stop()
    try:
        refused = stack.http.post("/v1/workflows", json={"workflow_id": "lost", "steps": [WAIT]})
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        served = stack.http.post("/v1/embeddings", json={"input": "meanwhile", "model": "nomic-embed-text"})
        assert served.status_code == 200
    finally:
        stack.postgres.start()
    eventually(lambda: stack.http.get("/v1/runs").status_code == 200)
    assert runs_of(stack, "lost") == []
    assert stack.ended(stack.submit(SHORT))["status"] == "succeeded"
