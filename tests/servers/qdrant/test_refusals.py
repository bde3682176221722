"""What a server refuses, in its own words: keys, filters, limits of its strict mode, sizes, names."""

import pytest

from citadel_common.errors import NotFound, VectorStoreRefused, VectorStoreUnavailable
from citadel_common.settings.qdrant import QdrantSettings
from citadel_orchestration.vectors.points import Point

POINTS = [Point(id=number, vector=[float(number), 0.0], payload={"rank": number}) for number in range(1, 9)]
QUERY = [0.0, 0.0]


@pytest.fixture(scope="module")
def store_server(qdrant_server):
    """A server: nothing here is for the embedded engine."""
    return qdrant_server


@pytest.fixture
def strict(http, docs):
    """Create a collection in strict mode, and fill it."""

    def create(**limits):
        config = {"vectors": {"size": 2, "distance": "Euclid"}, "strict_mode_config": {"enabled": True} | limits}
        assert http.put(f"/collections/{docs}", json=config).status_code == 200
        return docs

    return create


def refusal(with_store, work, kind=VectorStoreRefused):
    with pytest.raises(kind) as caught:
        with_store(work)
    return caught.value


@pytest.mark.parametrize(
    ("key", "words"),
    [("wrong", "Invalid API key or JWT"), (None, "Must provide an API key or an Authorization bearer token")],
)
def test_a_wrong_key_is_refused_and_the_setting_named(with_store, http, settings, key, words):
    chosen = QdrantSettings(url=settings.url, api_key=key, patience=0)
    for work in (
        lambda store: store.collections(),
        lambda store: store.search("docs", QUERY),
        lambda store: store.upsert("docs", POINTS),
    ):
        with pytest.raises(VectorStoreRefused, match="CITADEL_QDRANT__API_KEY"):
            with_store(work, chosen)
    del http.headers["api-key"]
    answer = http.get("/collections", headers={"api-key": key} if key else {})
    assert (answer.status_code, answer.text) == (401, words)


def test_readiness_needs_no_key(with_store, settings):
    with_store(lambda store: store.health(), QdrantSettings(url=settings.url, api_key="wrong"))


def test_a_missing_collection_is_not_found(with_store, docs):
    error = refusal(with_store, lambda store: store.search(docs, QUERY), NotFound)
    assert error.message == f"collection: there is no {docs!r} in the vector store"


def test_a_search_over_the_strict_limit_is_refused(with_store, strict):
    docs = strict(max_query_limit=5)
    with_store(lambda store: store.upsert(docs, POINTS))
    assert len(with_store(lambda store: store.search(docs, QUERY, limit=5))) == 5
    error = refusal(with_store, lambda store: store.search(docs, QUERY, limit=6))
    assert 'Limit exceeded 6 > 5 for "limit"' in error.message
    assert not error.retryable


def test_a_filter_without_an_index_is_refused_in_strict_mode(with_store, http, strict):
    docs = strict(unindexed_filtering_retrieve=False)
    with_store(lambda store: store.upsert(docs, POINTS))
    error = refusal(with_store, lambda store: store.search(docs, QUERY, conditions={"rank": 1}))
    assert 'Index required but not found for "rank"' in error.message
    index = {"field_name": "rank", "field_schema": "integer"}
    assert http.put(f"/collections/{docs}/index?wait=true", json=index).status_code == 200
    hits = with_store(lambda store: store.search(docs, QUERY, conditions={"rank": 3}))
    assert [hit.id for hit in hits] == [3]


@pytest.mark.parametrize(
    ("limits", "conditions", "words"),
    [
        ({"filter_max_conditions": 1}, {"rank": 1, "name": "x"}, "Filter condition limit reached (2 > 1)"),
        ({"condition_max_size": 2}, {"rank": [1, 2, 3]}, "Condition size limit reached (3 > 2)"),
        ({"condition_max_size": 2}, {"must": [{"has_id": [1, 2, 3]}]}, "Condition size limit reached (3 > 2)"),
    ],
)
def test_filters_over_the_strict_limits_are_refused(with_store, strict, limits, conditions, words):
    docs = strict(**limits)
    with_store(lambda store: store.upsert(docs, POINTS))
    assert words in refusal(with_store, lambda store: store.search(docs, QUERY, conditions=conditions)).message


def test_points_are_written_in_parts_that_strict_mode_takes(with_store, http, strict):
    docs = strict(upsert_max_batchsize=3)
    over = {"points": [{"id": point.id, "vector": list(point.vector)} for point in POINTS]}
    answer = http.put(f"/collections/{docs}/points?wait=true", json=over)
    assert (answer.status_code, "Limit exceeded 8 > 3" in answer.text) == (400, True)
    assert with_store(lambda store: store.upsert(docs, POINTS)) == 8
    assert len(with_store(lambda store: store.search(docs, QUERY))) == 8


def test_a_strict_rate_limit_says_when_to_come_back(with_store, strict):
    docs = strict(read_rate_limit=1)
    for _ in range(2):
        with_store(lambda store: store.upsert(docs, POINTS))
    errors = []
    for _ in range(3):
        try:
            with_store(lambda store: store.search(docs, QUERY))
        except VectorStoreUnavailable as error:
            errors.append(error)
    assert "limits the rate" in errors[-1].message
    assert 0 < errors[-1].retry_after <= 60


def test_a_point_over_the_servers_limit_is_refused_alone(with_store, docs):
    giant = Point(id=1, vector=[1.0, 0.0], payload={"text": "x" * (33 * 2**20)})
    error = refusal(with_store, lambda store: store.upsert(docs, [giant]))
    assert "is larger than allowed (limit: 33554432 bytes)" in error.message
    assert len(error.message) < 700


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"must": [{"key": "a", "range": {"gte": "x"}}]}, "filter.must[0].range.gte"),
        ({"must": [{"key": "a"}]}, "At least one field condition must be specified"),
        ({"must": [{"key": "a", "geo_radius": {"center": {"lon": 1, "lat": 500}, "radius": 1}}]}, "GeoPoint"),
        ({"nope": [], "must": []}, "filter.nope"),
    ],
)
def test_a_wrong_filter_is_refused(with_store, docs, conditions, words):
    with_store(lambda store: store.upsert(docs, POINTS))
    error = refusal(with_store, lambda store: store.search(docs, QUERY, conditions=conditions))
    assert words in error.message
    assert not error.retryable
