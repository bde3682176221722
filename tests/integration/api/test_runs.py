"""Runs: lists, views, commands."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.api.stack import MODEL, WAIT, Stack, embedding, step_of

SHORT = {"step_id": "s", "type": "wait", "parameters": {"duration": "1ms"}}
BROKEN = {"step_id": "broken", "type": "embedding", "parameters": {"text": "t", "model": "no-such-model"}}
NOBODY = "/v1/runs/0190a000-0000-7000-8000-000000000000"


def pages(stack: Stack, query: str) -> list[str]:
    """Return the ids on all pages of a list."""
    found: list[str] = []
    cursor = ""
    while True:
        page = stack.show(f"/v1/runs?{query}{cursor}")
        found += [run["run_id"] for run in page["runs"]]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


def test_runs_are_found_by_workflow_status_kind_and_labels(stack: Stack) -> None:
    first = stack.submit(SHORT, workflow_id="found", labels={"team": "a", "env": "x:y"})
    second = stack.submit(WAIT, workflow_id="found", labels={"team": "a"})
    batch = stack.submit_batch([{"text": "t", "model": MODEL}], label="team:b")
    stack.ended(first)
    stack.ended(batch)
    stack.waiting(second)
    assert pages(stack, "workflow_id=found") == [id_of(second), id_of(first)]
    assert pages(stack, "workflow_id=found&status=succeeded") == [id_of(first)]
    assert pages(stack, "label=team:a&status=running") == [id_of(second)]
    assert pages(stack, "label=team:a&label=env:x:y") == [id_of(first)]
    assert pages(stack, "label=team:b") == pages(stack, "kind=batch") == [id_of(batch)]
    assert pages(stack, "label=team:a&label=env:other") == []


def test_runs_are_found_by_time(stack: Stack) -> None:
    path = stack.submit(SHORT, workflow_id="timed")
    at = datetime.fromisoformat(stack.show(path)["created_at"])
    before, after = ((at + timedelta(seconds=s)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for s in (-2, 2))
    assert pages(stack, f"workflow_id=timed&since={before}&until={after}") == [id_of(path)]
    assert pages(stack, f"workflow_id=timed&until={before}") == []
    assert pages(stack, f"workflow_id=timed&since={after}") == []


def test_pages_are_not_shifted_by_runs_that_begin_meanwhile(stack: Stack) -> None:
    old = [stack.submit(SHORT, workflow_id="paged") for _ in range(7)]
    seen: list[str] = []
    cursor = ""
    for _ in range(4):
        page = stack.show(f"/v1/runs?workflow_id=paged&limit=2{cursor}")
        seen += [run["run_id"] for run in page["runs"]]
        cursor = f"&cursor={page['next_cursor']}"
        stack.submit(SHORT, workflow_id="paged")
    assert page["next_cursor"] is None
    assert seen == [id_of(path) for path in reversed(old)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=done", "status"),
        ("kind=cron", "kind"),
        ("label=team", "label"),
        ("label=:a", "label"),
        ("since=yesterday", "since"),
        ("until=1", "until"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("cursor=abc", "cursor"),
        ("cursor=WzEsMl0=", "cursor"),
        ("workflow_id=%00", "workflow_id"),
        ("stauts=failed", "stauts"),
    ],
)
def test_a_bad_filter_is_named(stack: Stack, query: str, field: str) -> None:
    answer = stack.http.get(f"/v1/runs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{field}"]


def test_a_step_is_shown_with_its_output(stack: Stack) -> None:
    items = embedding("each", "${{ item }}", for_each={"items": ["a", "b", "c"]})
    path = stack.submit(items)
    run = stack.ended(path)
    assert step_of(run, "each")["items"] == {"total": 3, "done": 3, "failed": 0, "waiting": 0}
    step = stack.show(f"{path}/steps/each")
    assert (step["status"], step["type"]) == ("succeeded", "embedding")
    assert [len(part["embedding"]) for part in step["output"]] == [768] * 3
    bare = stack.show(f"{path}?outputs=false")
    assert (bare["status"], bare["output"], bare["final_context"]) == ("succeeded", None, None)


def test_a_graph_shows_the_states_of_the_steps(stack: Stack) -> None:
    path = stack.submit(SHORT, WAIT)
    stack.waiting(path)
    answer = stack.http.get(f"{path}/graph")
    assert answer.headers["content-type"].startswith("text/vnd.mermaid")
    assert answer.text.startswith("flowchart")
    assert "succeeded" in answer.text
    assert "waiting" in answer.text


def test_a_run_that_fails_says_why_and_where(stack: Stack) -> None:
    run = stack.ended(stack.submit(SHORT, BROKEN))
    assert run["status"] == "failed"
    assert (run["error"]["code"], run["error"]["step_id"]) == ("model_not_found", "broken")
    assert step_of(run, "broken")["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["", "/graph", "/events", "/results", "/steps/s"])
@pytest.mark.parametrize("run", [NOBODY, "/v1/runs/x", "/v1/runs/%00"])
def test_unknown_runs_are_not_found(stack: Stack, run: str, path: str) -> None:
    answer = stack.http.get(run + path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("action", ["cancel", "pause", "resume", "retry", "signals/go"])
@pytest.mark.parametrize("run", [NOBODY, "/v1/runs/x"])
def test_commands_on_unknown_runs_are_not_found(stack: Stack, run: str, action: str) -> None:
    assert stack.http.post(f"{run}/{action}").status_code == 404


@pytest.mark.parametrize("step_id", ["other", "%00"])
def test_an_unknown_step_is_not_found(stack: Stack, step_id: str) -> None:
    path = stack.submit(SHORT)
    answer = stack.http.get(f"{path}/steps/{step_id}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_cancelled_run_starts_nothing_more(stack: Stack) -> None:
    path = stack.submit(WAIT, SHORT)
    stack.waiting(path)
    answer = stack.http.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()) == (202, {"run_id": id_of(path), "status": "cancelled"})
    assert [step["status"] for step in stack.show(path)["steps"]] == ["cancelled", "cancelled"]
    for action in ("cancel", "pause", "resume", "signals/go"):
        refused = stack.http.post(f"{path}/{action}")
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_a_cancelled_run_cancels_its_sub_runs(stack: Stack) -> None:
    inner = {"workflow_id": "inner", "steps": [WAIT]}
    path = stack.submit({"step_id": "sub", "type": "workflow", "parameters": {"definition": inner}})
    stack.waiting(path, "sub")
    stack.http.post(f"{path}/cancel").raise_for_status()
    [child] = stack.show("/v1/runs?workflow_id=inner")["runs"]
    view = stack.show(f"/v1/runs/{child['run_id']}")
    assert (view["status"], view["parent_run_id"]) == ("cancelled", id_of(path))


def test_a_paused_run_waits_until_it_is_resumed(stack: Stack) -> None:
    path = stack.submit(WAIT, SHORT)
    stack.waiting(path)
    assert stack.http.post(f"{path}/pause").json()["status"] == "paused"
    assert stack.http.post(f"{path}/signals/go").status_code == 202
    paused = stack.show(path)
    assert paused["status"] == "paused"
    assert [step["status"] for step in paused["steps"]] == ["succeeded", "pending"]
    assert stack.http.post(f"{path}/resume").status_code == 202
    assert stack.ended(path)["status"] == "succeeded"


def test_a_retry_runs_failed_steps_again_and_no_others(stack: Stack) -> None:
    path = stack.submit(embedding("first", "retried once"), BROKEN)
    stack.ended(path)
    before = stack.double.stats()["requests"]
    assert stack.http.post(f"{path}/retry").status_code == 202
    run = stack.until(path, lambda view: view["status"] == "failed" and step_of(view, "broken")["attempt"] > 1)
    assert step_of(run, "first")["attempt"] == 1
    assert stack.double.stats()["requests"] == before
    good = stack.submit(SHORT)
    stack.ended(good)
    assert stack.http.post(f"{good}/retry").status_code == 409


@pytest.mark.parametrize("payload", [{"approved": True}, [1, 2], "text", 7])
def test_the_body_of_a_signal_is_the_output_of_the_waiting_step(stack: Stack, payload: Any) -> None:
    path = stack.submit(WAIT)
    stack.waiting(path)
    assert stack.http.post(f"{path}/signals/go", json=payload).status_code == 202
    assert stack.ended(path)["output"] == payload


def test_a_signal_that_comes_early_is_kept(stack: Stack) -> None:
    first = WAIT | {"step_id": "first", "parameters": {"signal": "first"}}
    path = stack.submit(first, WAIT)
    assert stack.http.post(f"{path}/signals/go", json={"early": 1}).status_code == 202
    assert stack.http.post(f"{path}/signals/first").status_code == 202
    run = stack.ended(path)
    assert (run["status"], run["output"]) == ("succeeded", {"early": 1})


@pytest.mark.parametrize("name", ["a b", "x" * 129, "%00"])
def test_a_bad_name_of_a_signal_is_refused(stack: Stack, name: str) -> None:
    path = stack.submit(SHORT)
    answer = stack.http.post(f"{path}/signals/{name}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/name")


def test_a_signal_that_is_not_json_is_refused(stack: Stack) -> None:
    path = stack.submit(SHORT)
    assert stack.http.post(f"{path}/signals/go", content=b"{").status_code == 400


def test_a_run_says_for_which_concurrency_key_it_waits(stack: Stack) -> None:
    key = {"concurrency": {"key": "one at a time"}}
    first, second, third = (stack.submit(WAIT, **key) for _ in range(3))
    shown = [stack.show(path)["waiting_for"] for path in (first, second, third)]
    assert shown[0] is None
    assert [(line["concurrency_key"], line["limit"], line["position"]) for line in shown[1:]] == [
        ("one at a time", 1, 1),
        ("one at a time", 1, 2),
    ]
    stack.http.post(f"{first}/cancel").raise_for_status()
    stack.waiting(second)
    assert stack.show(second)["waiting_for"] is None
    assert stack.show(third)["waiting_for"]["position"] == 1
    for path in (third, second):
        stack.http.post(f"{path}/cancel").raise_for_status()


def test_a_sub_workflow_with_the_key_of_a_workflow_that_waits_for_it_is_refused(stack: Stack) -> None:
    key = {"concurrency": {"key": "mine", "limit": 5}}
    inner = {"steps": [SHORT]} | key
    sub = {"step_id": "sub", "type": "workflow", "parameters": {"definition": inner}}
    answer = stack.http.post("/v1/workflows", json={"steps": [sub]} | key)
    assert answer.status_code == 422
    [problem] = answer.json()["errors"]
    assert (problem["pointer"], problem["code"]) == (
        "/steps/0/parameters/definition/concurrency/key",
        "key_of_ancestor",
    )
