"""What `vector_search` and `vector_upsert` find wrong at submission, and refuse when it came from an expression."""

import pytest
from pydantic import ValidationError

from citadel_common.errors import InvalidInput
from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.steps.vector_search import VectorSearch, VectorSearchParameters
from citadel_orchestration.steps.vector_upsert import PointParameters, VectorUpsert, VectorUpsertParameters
from citadel_orchestration.vectors.store import VectorStore
from tests.unit.orchestration.vectors.known import NOTHING, KnownFacts

KNOWN = KnownFacts(models={"small": 384, None: 768}, collections={"docs": 768})


@pytest.fixture
def store(tmp_path):
    """Never opened: checks need no store."""
    return VectorStore(QdrantSettings(path=tmp_path / "never"))


@pytest.fixture
def search(store):
    return VectorSearch(store)


@pytest.fixture
def upsert(store):
    return VectorUpsert(store)


@pytest.mark.parametrize(
    ("raw", "where", "problem"),
    [
        ({}, "", "needs either"),
        ({"embedding": [0.1], "text": "a"}, "/text", "stands beside"),
        ({"embedding": "${{ steps.q.output.embedding }}", "text": "a"}, "/text", "stands beside"),
        ({"text": ""}, "/text", "is empty"),
        ({"text": "a", "filter": {"price": 1.5}}, "/filter", "must be a string"),
        ({"text": "a", "collection": "docs", "model": "small"}, "/collection", "768 dimensions, not 384"),
        ({"text": "a", "collection": "docs", "dimensions": 64}, "/collection", "768 dimensions, not 64"),
        ({"embedding": [0.1, 0.2], "collection": "docs"}, "/collection", "768 dimensions, not 2"),
    ],
)
def test_a_search_that_cannot_work_is_seen_at_submission(search, raw, where, problem):
    found = dict(search.check({"collection": "other", **raw}, KNOWN))

    assert list(found) == [where]
    assert problem in found[where]


@pytest.mark.parametrize(
    "raw",
    [
        {"text": "${{ context.question }}"},
        {"embedding": "${{ steps.q.output.embedding }}"},
        {"embedding": ["${{ context.x }}", 0.5]},
        {"text": "a", "model": "${{ context.model }}"},
        {"text": "a", "model": "small", "dimensions": "${{ context.n }}"},
        {"text": "a", "model": "unknown"},
        {"text": "a", "filter": {"price": "${{ context.price }}"}},
        {"text": "a", "filter": {"must": [{"key": "${{ context.key }}", "is_null": "${{ context.null }}"}]}},
        {"text": "a", "filter": "${{ context.filter }}"},
        {"text": "a", "model": "small", "collection": "${{ context.collection }}"},
        {"text": "a"},
    ],
)
def test_what_only_the_run_will_know_is_left_alone(search, raw):
    assert list(search.check({"collection": "docs", **raw}, KNOWN)) == []


def test_points_that_cannot_be_stored_are_seen_at_submission(upsert):
    points = [{"id": 1}, {"text": "a", "embedding": [0.1]}, {"text": ""}, {"embedding": [0.1]}, "${{ item }}"]
    found = list(upsert.check({"collection": "docs", "points": points}, KNOWN))

    assert [where for where, _ in found] == ["/points/0", "/points/1/text", "/points/1", "/points/2/text", "/points/3"]


def test_the_texts_model_must_fit_the_collection(upsert):
    raw = {"collection": "docs", "points": [{"text": "a"}]}

    assert list(upsert.check(raw, KNOWN)) == []
    assert dict(upsert.check(raw | {"model": "small"}, KNOWN)) == {
        "/points/0": "'docs' holds vectors of 768 dimensions, not 384"
    }
    assert list(upsert.check({"collection": "docs", "points": "${{ context.points }}"}, NOTHING)) == []


@pytest.mark.parametrize("given", [{}, {"text": ""}, {"text": "a", "embedding": [0.1]}])
def test_the_same_is_refused_when_it_came_from_an_expression(search, upsert, given):
    with pytest.raises(InvalidInput):
        search.wants(VectorSearchParameters(collection="docs", **given))
    with pytest.raises(InvalidInput, match=r"points\[0\]"):
        upsert.wants(VectorUpsertParameters(collection="docs", points=[PointParameters(**given)]))


def test_a_search_by_text_wants_it_as_a_query(search):
    wanted = search.wants(VectorSearchParameters(collection="docs", text="a", model="m", dimensions=64))

    assert (wanted.texts, wanted.model, wanted.dimensions, wanted.input_type) == (["a"], "m", 64, "query")
    assert search.wants(VectorSearchParameters(collection="docs", embedding=[0.1])) is None


def test_an_upsert_wants_the_texts_of_its_points_as_documents(upsert):
    points = [PointParameters(text="a"), PointParameters(embedding=[0.1]), PointParameters(text="b")]
    wanted = upsert.wants(VectorUpsertParameters(collection="docs", points=points, model="m"))

    assert (wanted.texts, wanted.model, wanted.input_type) == (["a", "b"], "m", "document")
    assert upsert.wants(VectorUpsertParameters(collection="docs", points=points[1:2])) is None
    assert upsert.wants(VectorUpsertParameters(collection="docs", points=[])) is None


@pytest.mark.parametrize(
    "given",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "5"},
        {"embedding": []},
        {"embedding": [float("nan")]},
        {"score_threshold": float("inf")},
        {"collection": ""},
        {"colection": "docs"},
    ],
)
def test_parameters_out_of_bounds_are_refused(given):
    with pytest.raises(ValidationError):
        VectorSearchParameters(**{"collection": "docs", "text": "a"} | given)


def test_a_thousand_points_is_the_most():
    points = [{"id": index, "embedding": [0.1]} for index in range(1001)]

    assert len(VectorUpsertParameters(collection="docs", points=points[:1000]).points) == 1000
    with pytest.raises(ValidationError):
        VectorUpsertParameters(collection="docs", points=points)


@pytest.mark.parametrize("bad", [-1, 2**64, True, "", 1.5])
def test_ids_that_no_point_can_have_are_refused(bad):
    with pytest.raises(ValidationError):
        PointParameters(id=bad, embedding=[0.1])


def test_a_filter_nested_beyond_reason_is_refused_at_submission(search):
    nested = {"must": []}
    for _ in range(2000):
        nested = {"must": [nested]}

    assert [where for where, _ in search.check({"collection": "docs", "text": "a", "filter": nested}, NOTHING)] == [
        "/filter"
    ]
