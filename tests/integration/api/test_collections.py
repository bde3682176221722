"""Collections: texts embedded and stored, found by text or vector."""

from typing import Any

import pytest

from tests.doubles.ollama.vectors import expected_vector
from tests.integration.api.stack import MODEL, Stack

TEXTS = ["the cat sat", "on the mat", "a dog barked", "at the moon"]


@pytest.fixture(scope="module")
def filled(stack: Stack) -> Stack:
    """The stack with a collection."""
    points = [{"id": number, "text": text, "payload": {"n": number}} for number, text in enumerate(TEXTS)]
    answer = stack.http.post("/v1/collections/texts/points", json={"points": points, "model": MODEL})
    assert (answer.status_code, answer.json()) == (200, {"upserted": 4, "ids": [0, 1, 2, 3]})
    return stack


def search(stack: Stack, name: str = "texts", **body: Any) -> Any:
    return stack.http.post(f"/v1/collections/{name}/search", json=body)


def vector(text: str) -> list[float]:
    return [float(number) for number in expected_vector(MODEL, "search_document: " + text)]


def test_a_vector_finds_what_was_stored_as_text(filled: Stack) -> None:
    hits = search(filled, embedding=vector(TEXTS[2]), limit=2).json()["hits"]
    assert len(hits) == 2
    assert (hits[0]["id"], hits[0]["payload"]["n"]) == (2, 2)
    assert hits[0]["score"] == pytest.approx(1.0, abs=1e-4)
    assert hits[0]["score"] >= hits[1]["score"]


def test_a_search_by_text_embeds_the_text(filled: Stack) -> None:
    answer = search(filled, text="who sat on the mat?", model=MODEL, limit=3)
    assert answer.status_code == 200
    assert len(answer.json()["hits"]) == 3


def test_hits_are_limited_by_filter_and_score(filled: Stack) -> None:
    found = search(filled, embedding=vector(TEXTS[2]), filter={"must": [{"key": "n", "match": {"value": 1}}]})
    assert [hit["id"] for hit in found.json()["hits"]] == [1]
    near = search(filled, embedding=vector(TEXTS[2]), score_threshold=0.99)
    assert [hit["id"] for hit in near.json()["hits"]] == [2]


def test_named_vectors_and_a_metric_are_chosen_by_the_request(stack: Stack) -> None:
    points = [{"id": 1, "embedding": [3.0, 4.0]}, {"id": 2, "embedding": [0.0, 0.0]}]
    wanted = {"points": points, "vector_name": "title", "distance": "manhattan"}
    assert stack.http.post("/v1/collections/places/points", json=wanted).status_code == 200
    found = search(stack, "places", embedding=[0.0, 1.0], vector_name="title", score_threshold=2.0).json()["hits"]
    assert [(hit["id"], hit["score"], hit["metric"]) for hit in found] == [(2, 1.0, "manhattan")]
    unnamed = search(stack, "places", embedding=[0.0, 1.0])
    assert unnamed.status_code == 422
    assert "has no unnamed vector; " in unnamed.json()["detail"]
    other = stack.http.post("/v1/collections/places/points", json=wanted | {"distance": "dot"})
    assert (other.status_code, "has manhattan, not dot" in other.json()["detail"]) == (422, True)


def test_a_thousand_vectors_are_stored_at_once(stack: Stack) -> None:
    """The body is far larger than a workflow's definition may be."""
    points = [{"id": number, "embedding": [1.0, number / 7] * 192} for number in range(1000)]
    answer = stack.http.post("/v1/collections/wide/points", json={"points": points})
    assert (answer.status_code, answer.json()["upserted"]) == (200, 1000)


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("nowhere", {"text": "a", "model": MODEL}, 404, "not_found"),
        ("texts", {"text": "a", "model": "no-such-model"}, 404, "model_not_found"),
        ("texts", {"embedding": [1.0, 2.0]}, 422, "vector_store_refused"),
        ("texts", {"text": "a", "model": "all-minilm"}, 422, None),
        ("texts", {}, 422, "invalid_input"),
        ("texts", {"text": "a", "embedding": [1.0]}, 422, "invalid_input"),
        ("texts", {"text": "a", "limit": 0}, 422, "invalid_input"),
        ("texts", {"txt": "a"}, 422, "invalid_input"),
        ("x" * 300, {"embedding": [1.0]}, 422, "invalid_input"),
        ("%00", {"embedding": [1.0]}, 422, "invalid_input"),
    ],
)
def test_an_invalid_search_is_refused(
    filled: Stack, name: str, body: dict[str, Any], status: int, code: str | None
) -> None:
    answer = search(filled, name, **body)
    assert answer.status_code == status, answer.text
    assert code in (None, answer.json()["code"])
    assert "step" not in answer.text


@pytest.mark.parametrize(
    ("points", "pointer"),
    [
        ([], "/points"),
        ([{"id": 1}], "/points/0"),
        ([{"id": 1, "text": "a", "vector": [1]}], "/points/0/vector"),
        ([{"id": 1, "text": 5}], "/points/0/text"),
    ],
)
def test_invalid_points_are_named_by_their_place_in_the_body(stack: Stack, points: list[Any], pointer: str) -> None:
    answer = stack.http.post("/v1/collections/never/points", json={"points": points})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_vectors_of_another_length_are_refused(filled: Stack) -> None:
    answer = filled.http.post("/v1/collections/texts/points", json={"points": [{"id": 9, "embedding": [1.0, 2.0]}]})
    assert (answer.status_code, answer.json()["code"]) == (422, "vector_store_refused")
    assert "768" in answer.json()["detail"]


def test_searches_fail_while_the_vector_store_is_down_and_succeed_after(filled: Stack) -> None:
    filled.qdrant.behaviour("error500")
    try:
        answer = search(filled, embedding=vector(TEXTS[0]))
    finally:
        filled.qdrant.behaviour("ok")
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert search(filled, embedding=vector(TEXTS[0])).status_code == 200


def test_searches_are_listed_as_runs(filled: Stack) -> None:
    search(filled, embedding=vector(TEXTS[0]))
    [run] = filled.show("/v1/runs?kind=task&workflow_id=vector_search&limit=1")["runs"]
    assert run["status"] == "succeeded"
