"""Each metric: what a score is, which hit is nearer, and what the threshold means."""

import pytest

from citadel_common.errors import VectorStoreRefused
from citadel_orchestration.vectors.points import Point

QUERY = [3.0, 4.0]
POINTS = [Point(id=1, vector=[3.0, 4.0]), Point(id=2, vector=[3.0, 0.0]), Point(id=3, vector=[-6.0, -8.0])]
SCORES = {
    "cosine": [(1, 1.0), (2, 0.6), (3, -1.0)],
    "dot": [(1, 25.0), (2, 9.0), (3, -50.0)],
    "euclid": [(1, 0.0), (2, 4.0), (3, 15.0)],
    "manhattan": [(1, 0.0), (2, 4.0), (3, 21.0)],
}
BETWEEN = {"cosine": (0.8, 0.0), "dot": (20.0, 0.0), "euclid": (2.0, 10.0), "manhattan": (2.0, 10.0)}
"""A threshold that one hit passes, and one that two pass."""


@pytest.fixture(params=list(SCORES))
def metric(request):
    return request.param


@pytest.fixture
def filled(with_store, docs, metric):
    with_store(lambda store: store.upsert(docs, POINTS, distance=metric))
    return docs


def search(with_store, collection, **options):
    return with_store(lambda store: store.search(collection, QUERY, **options))


def test_the_nearest_hit_comes_first_and_hits_name_their_metric(with_store, filled, metric):
    hits = search(with_store, filled)

    assert [hit.id for hit in hits] == [id_ for id_, _ in SCORES[metric]]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in SCORES[metric]], abs=1e-4)
    assert {hit.metric for hit in hits} == {metric}


def test_hits_are_nearer_than_the_threshold(with_store, filled, metric):
    for count, threshold in enumerate(BETWEEN[metric], start=1):
        assert [hit.id for hit in search(with_store, filled, score_threshold=threshold)] == [1, 2][:count]


def test_a_hit_on_the_threshold_is_not_nearer(with_store, filled, metric):
    on_second = {"cosine": 0.6, "dot": 9.0, "euclid": 4.0, "manhattan": 4.0}[metric]
    if metric == "cosine":
        on_second = search(with_store, filled)[1].score

    assert [hit.id for hit in search(with_store, filled, score_threshold=on_second)] == [1]


def test_an_existing_collection_keeps_its_metric(with_store, filled, metric):
    other = "dot" if metric != "dot" else "cosine"

    async def work(store):
        with pytest.raises(VectorStoreRefused, match=f"distance: .* has {metric}, not {other}"):
            await store.upsert(filled, POINTS, distance=other)
        return await store.upsert(filled, POINTS, distance=metric), await store.upsert(filled, POINTS)

    assert with_store(work) == (3, 3)
