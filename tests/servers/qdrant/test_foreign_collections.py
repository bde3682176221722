"""Collections that somebody else made: named, sparse and several vectors per point, aliases, indices, quantization."""

import pytest

from citadel_common.errors import VectorStoreRefused
from citadel_orchestration.vectors.points import Point

POINT = Point(id=1, vector=[1.0, 0.0], payload={"name": "east"})
LARGE = Point(id=1, vector=[1.0, 0.0, 0.0], payload={"name": "east"})
MIXED = {
    "vectors": {
        "title": {"size": 2, "distance": "Dot"},
        "body": {"size": 3, "distance": "Manhattan"},
        "tokens": {"size": 2, "distance": "Cosine", "multivector_config": {"comparator": "max_sim"}},
    },
    "sparse_vectors": {"words": {}},
}


@pytest.fixture(scope="module")
def store_server(qdrant_server):
    """A server: nothing here is for the embedded engine."""
    return qdrant_server


@pytest.fixture
def make(http, docs):
    """Create the collection as its owner would."""

    def create(config):
        answer = http.put(f"/collections/{docs}", json=config)
        assert answer.status_code == 200, answer.text
        return docs

    return create


@pytest.fixture
def mixed(make):
    return make(MIXED)


def test_a_name_says_which_vectors_are_stored_and_searched(with_store, mixed):
    async def work(store):
        await store.upsert(mixed, [POINT], vector_name="title")
        await store.upsert(mixed, [Point(id=2, vector=[0.0, 1.0, 2.0])], vector_name="body")
        by_title = await store.search(mixed, [2.0, 0.0], vector_name="title")
        by_body = await store.search(mixed, [0.0, 0.0, 0.0], vector_name="body")
        return [(hit.id, hit.score, hit.metric) for hit in by_title + by_body]

    assert with_store(work) == [(1, 2.0, "dot"), (2, 3.0, "manhattan")]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (None, "has no unnamed vector; it has 'body', 'title'|has no unnamed vector; it has 'title', 'body'"),
        ("nope", "has no vector named 'nope'; it has"),
        ("words", "'words' of .* are sparse vectors, which Citadel neither makes nor searches"),
        ("tokens", r"'tokens' of .* has several vectors per point \(a multivector\)"),
        ("body", "holds vectors of 3 dimensions, not 2"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused_by_name(with_store, mixed, name, problem):
    async def work(store):
        with pytest.raises(VectorStoreRefused, match=problem):
            await store.search(mixed, [1.0, 0.0], vector_name=name)
        with pytest.raises(VectorStoreRefused, match=problem):
            await store.upsert(mixed, [POINT], vector_name=name)

    with_store(work)


def test_an_unnamed_multivector_is_refused(with_store, make):
    docs = make({"vectors": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}}})
    with pytest.raises(VectorStoreRefused, match="several vectors per point"):
        with_store(lambda store: store.search(docs, [1.0, 0.0]))


def test_a_collection_with_sparse_vectors_only_is_refused(with_store, make):
    docs = make({"sparse_vectors": {"words": {}}})
    with pytest.raises(VectorStoreRefused, match="has no unnamed vector; it has none"):
        with_store(lambda store: store.search(docs, [1.0, 0.0]))


def test_the_vectors_that_can_be_used_are_listed(with_store, mixed, own):
    listed = with_store(lambda store: store.collections())
    assert own.of(listed) == {"docs": {"title": 2, "body": 3}}


def test_a_point_is_replaced_with_all_of_its_vectors(with_store, mixed):
    async def work(store):
        await store.upsert(mixed, [POINT], vector_name="title")
        await store.upsert(mixed, [LARGE], vector_name="body")
        return await store.search(mixed, [1.0, 0.0], vector_name="title")

    assert with_store(work) == []


@pytest.mark.parametrize(
    "extra",
    [
        {"quantization_config": {"scalar": {"type": "int8", "always_ram": True}}},
        {"on_disk_payload": False, "hnsw_config": {"m": 4}},
        {"shard_number": 2},
    ],
)
def test_a_collection_with_settings_of_its_own_is_used_as_it_is(with_store, make, extra):
    docs = make({"vectors": {"size": 2, "distance": "Euclid"}} | extra)

    async def work(store):
        await store.upsert(docs, [POINT])
        return await store.search(docs, [1.0, 0.0])

    assert [(hit.id, hit.metric) for hit in with_store(work)] == [(1, "euclid")]


def test_a_collection_with_a_payload_index_is_filtered_by_it(with_store, http, make):
    docs = make({"vectors": {"size": 2, "distance": "Dot"}})
    index = {"field_name": "name", "field_schema": "keyword"}
    assert http.put(f"/collections/{docs}/index?wait=true", json=index).status_code == 200

    async def work(store):
        await store.upsert(docs, [POINT, Point(id=2, vector=[1.0, 0.0], payload={"name": "west"})])
        return await store.search(docs, [1.0, 0.0], conditions={"name": "west"})

    assert [hit.id for hit in with_store(work)] == [2]


def test_an_alias_names_its_collection(with_store, http, make):
    docs = make({"vectors": {"size": 2, "distance": "Euclid"}})
    alias = f"{docs}-alias"
    created = {"create_alias": {"collection_name": docs, "alias_name": alias}}
    assert http.post("/collections/aliases", json={"actions": [created]}).status_code == 200

    async def work(store):
        await store.upsert(alias, [POINT])
        return await store.search(alias, [1.0, 0.0])

    assert [(hit.id, hit.metric) for hit in with_store(work)] == [(1, "euclid")]


def test_the_metric_of_a_collection_that_was_made_anew_is_noticed(with_store, http, docs):

    async def work(store):
        await store.upsert(docs, [POINT], distance="dot")
        before = await store.search(docs, [1.0, 0.0])
        http.delete(f"/collections/{docs}")
        await store.upsert(docs, [POINT], distance="euclid")
        return before[0].metric, (await store.search(docs, [1.0, 0.0]))[0].metric

    assert with_store(work) == ("dot", "euclid")
