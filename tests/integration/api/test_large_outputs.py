"""Outputs that are too large to stand in an answer: the view has links, which stream the whole."""

from collections.abc import Iterator

import httpx
import pytest

from citadel_client import Citadel
from tests.integration.api.stack import Stack
from tests.integration.api.test_runs import NOBODY, SHORT
from tests.support.bombs import CONTEXT, NINE_MEGABYTES, small_sub_run

TEXT = "x" * 90_000
NINE = [TEXT] * 100


@pytest.fixture(scope="module")
def large(stack: Stack) -> str:
    """Return the path of a run that has ended with a large output, in three steps of which one is a `for_each`."""
    steps = [
        small_sub_run("one", NINE_MEGABYTES),
        small_sub_run("each", "${{ context.big }}", for_each={"items": [1, 2, 3]}),
        SHORT | {"step_id": "last"},
    ]
    path = stack.submit(*steps, context=CONTEXT, output={"all": "${{ steps.one.output.output }}"})
    assert stack.ended(path)["status"] == "succeeded"
    return path


@pytest.fixture
def citadel(stack: Stack) -> Iterator[Citadel]:
    with Citadel(stack.api.url) as citadel:
        yield citadel


def test_a_view_leaves_out_what_is_large_and_says_where_it_is(stack: Stack, large: str) -> None:
    view = stack.show(large)
    assert (view["output"], view["final_context"]) == (None, None)
    assert view["output_bytes"] == len(stack.http.get(view["output_url"]).content) == 9_000_000 + 300 + 9
    assert view["final_context_url"] == f"{large}/final_context"
    step = stack.show(f"{large}/steps/one")
    assert (step["output"], step["output_url"]) == (None, f"{large}/steps/one/output")
    assert step["output_bytes"] > 9_000_000


def test_the_links_give_the_whole(stack: Stack, large: str) -> None:
    assert stack.show(f"{large}/output") == {"all": NINE}
    assert stack.show(f"{large}/steps/one/output")["output"] == NINE
    assert [item["output"] for item in stack.show(f"{large}/steps/each/output")] == [TEXT] * 3
    assert stack.show(f"{large}/steps/last/output") == {}
    context = stack.show(f"{large}/final_context")
    assert context["big"] == TEXT
    assert context["one"]["output"] == NINE
    assert [item["output"] for item in context["each"]] == [TEXT] * 3
    assert list(context) == ["big", "l", "one", "each", "last"]


def test_a_final_context_has_the_data_of_outputs_wherever_it_stands(stack: Stack) -> None:
    wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go"}}
    path = stack.submit(wait, context={"a": 1, "b": 2}, output="${{ context.b }}")
    stack.waiting(path, "w")
    payload = {"data": {"b": 3, "c": [None]}}
    stack.http.post(f"{path}/signals/go", json=payload).raise_for_status()
    inline = stack.ended(path)["final_context"]
    assert stack.show(f"{path}/final_context") == inline == {"a": 1, "b": 3, "w": payload, "c": [None]}


def test_small_outputs_stand_in_the_view_and_have_links_too(stack: Stack) -> None:
    path = stack.submit(SHORT, output={"n": 1})
    view = stack.ended(path)
    assert (view["output"], view["output_bytes"], view["output_url"]) == ({"n": 1}, 7, None)
    assert stack.show(f"{path}/output") == {"n": 1}
    assert stack.show(f"{path}/steps/s") | {"output_bytes": 2} == stack.show(f"{path}/steps/s")


def test_a_run_that_has_not_ended_has_no_output_and_no_final_context(stack: Stack) -> None:
    path = stack.submit({"step_id": "w", "type": "wait", "parameters": {"signal": "go"}})
    assert stack.show(f"{path}/output") is None
    assert stack.show(f"{path}/steps/w/output") is None
    answer = stack.http.get(f"{path}/final_context")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("below", ["output", "final_context", "steps/s/output"])
def test_nobody_has_no_output(stack: Stack, below: str) -> None:
    assert stack.http.get(f"{NOBODY}/{below}").status_code == httpx.codes.NOT_FOUND


def test_an_unknown_step_has_no_output(stack: Stack, large: str) -> None:
    assert stack.http.get(f"{large}/steps/none/output").status_code == httpx.codes.NOT_FOUND


def test_the_sdk_has_the_whole_output(citadel: Citadel, large: str) -> None:
    run = citadel.runs.handle(large.rpartition("/")[2])
    assert run.wait().output == run.show().output == run.output() == {"all": NINE}
    assert run.step("one").output["output"] == NINE
    assert run.final_context()["one"]["output"] == NINE
    assert run.show(outputs=False).output is None
