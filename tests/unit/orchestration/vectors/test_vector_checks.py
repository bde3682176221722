"""What `vector_search` and `vector_upsert` find wrong at submission, and refuse when it came from an expression."""

import pytest
from pydantic import ValidationError

from citadel_common.errors import InvalidDefinition, InvalidInput
from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.definition.parse import parse
from citadel_orchestration.step_types import Execute, StepTypes
from citadel_orchestration.steps.embedding import EmbeddingStep
from citadel_orchestration.steps.vector_search import VectorSearch, VectorSearchParameters
from citadel_orchestration.steps.vector_upsert import PointParameters, VectorUpsert, VectorUpsertParameters
from citadel_orchestration.vectors.store import VectorStore
from tests.unit.orchestration.vectors.known import NOTHING, KnownFacts

CONTEXT = dict.fromkeys(["question", "x", "model", "n", "price", "key", "null", "filter", "collection", "points"])
Q = {"step_id": "q", "type": "embedding", "parameters": {"text": "a"}}
KNOWN = KnownFacts(
    models={"small": 384, None: 768}, collections={"docs": {"": 768}, "books": {"title": 384, "body": 768}}
)


def problems(step_type, parameters, catalog=KNOWN):
    """Return what is wrong with the parameters of a step of that type: pointers below them, and messages."""
    step = {"step_id": "s", "type": step_type.name, "parameters": parameters}
    try:
        parse({"context": CONTEXT, "steps": [Q, step]}, types=StepTypes([step_type, EmbeddingStep()]), catalog=catalog)
    except InvalidDefinition as error:
        return [(problem.pointer.removeprefix("/steps/1/parameters"), problem.detail) for problem in error.errors]
    return []


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
        ({"text": "a", "collection": "docs", "model": "small"}, "/text", "384 dimensions, the collection `docs` 768"),
        ({"text": "a", "collection": "docs", "dimensions": 64}, "/text", "64 dimensions, the collection `docs` 768"),
        ({"embedding": [0.1, 0.2], "collection": "docs"}, "/embedding", "2 dimensions, the collection `docs` 768"),
        (
            {"text": "a", "collection": "books", "vector_name": "title"},
            "/text",
            "768 dimensions, the vector `title` of the collection `books` 384",
        ),
        (
            {"text": "a", "collection": "books"},
            "",
            "no unnamed vector; name one with `vector_name`: it has `title` (384)",
        ),
        ({"text": "a", "collection": "books", "vector_name": "x"}, "", "has no vector named `x`"),
        ({"text": "a", "collection": "docs", "vector_name": "x"}, "", "it has only the unnamed one"),
    ],
)
def test_a_search_that_cannot_work_is_seen_at_submission(search, raw, where, problem):
    found = dict(problems(search, {"collection": "other", **raw}))

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
def test_searches_with_expressions_are_not_checked_at_submission(search, raw):
    assert problems(search, {"collection": "docs", **raw}) == []


def test_points_that_cannot_be_stored_are_seen_at_submission(upsert):
    points = [{"id": 1}, {"text": "a", "embedding": [0.1]}, {"text": ""}, {"embedding": [0.1]}, "${{ context.x }}"]
    found = problems(upsert, {"collection": "docs", "points": points})

    assert [where for where, _ in found] == [
        "/points/0",
        "/points/1/text",
        "/points/2/text",
        "/points/1/embedding",
        "/points/3/embedding",
    ]


def test_the_texts_model_must_fit_the_collection(upsert):
    raw = {"collection": "docs", "points": [{"text": "a"}]}

    assert problems(upsert, raw) == []
    assert problems(upsert, raw | {"model": "small"}) == [
        ("/points/0/text", "the text's vector by `small` has 384 dimensions, the collection `docs` 768")
    ]
    assert problems(upsert, {"collection": "docs", "points": "${{ context.points }}"}, NOTHING) == []


@pytest.mark.parametrize("given", [{}, {"text": ""}, {"text": "a", "embedding": [0.1]}])
def test_bad_sources_from_expressions_are_refused_when_the_step_begins(search, upsert, given):
    with pytest.raises(InvalidInput):
        search.begin(VectorSearchParameters(collection="docs", **given))
    with pytest.raises(InvalidInput, match=r"points\[0\]"):
        upsert.begin(VectorUpsertParameters(collection="docs", points=[PointParameters(**given)]))


def test_a_search_by_text_wants_it_as_a_query(search):
    (wanted,) = search.begin(VectorSearchParameters(collection="docs", text="a", model="m", dimensions=64)).requests

    assert (wanted.texts, wanted.model, wanted.dimensions, wanted.input_type) == (["a"], "m", 64, "query")
    assert isinstance(search.begin(VectorSearchParameters(collection="docs", embedding=[0.1])), Execute)


def test_an_upsert_wants_the_texts_of_its_points_as_documents(upsert):
    points = [PointParameters(text="a"), PointParameters(embedding=[0.1]), PointParameters(text="b")]
    (wanted,) = upsert.begin(VectorUpsertParameters(collection="docs", points=points, model="m")).requests

    assert (wanted.texts, wanted.model, wanted.input_type) == (["a", "b"], "m", "document")
    assert isinstance(upsert.begin(VectorUpsertParameters(collection="docs", points=points[1:2])), Execute)
    assert isinstance(upsert.begin(VectorUpsertParameters(collection="docs", points=[])), Execute)


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
