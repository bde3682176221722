"""The vector store does the same by HTTP as in its embedded form."""

import asyncio
import contextlib
import math

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import DeadlineExceeded, NotFound, VectorStoreRefused
from citadel_orchestration.vectors.points import Point
from citadel_orchestration.vectors.store import VectorStore

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
COMPASS = [
    Point(id=1, vector=EAST, payload={"name": "east", "lang": "en", "rank": 1}),
    Point(id="550e8400-e29b-41d4-a716-446655440000", vector=NORTH, payload={"name": "north", "lang": "de", "rank": 2}),
    Point(id=3, vector=WEST, payload={"name": "west", "lang": "de", "rank": 3}),
]


def names(hits):
    return [hit.payload["name"] for hit in hits]


def searched(with_store, vector, **options):
    async def work(store: VectorStore):
        await store.upsert("docs", COMPASS)
        return await store.search("docs", vector, **options)

    return with_store(work)


def test_the_nearest_hit_comes_first(with_store):
    hits = searched(with_store, [1.0, 0.1])

    assert names(hits) == ["east", "north", "west"]
    assert [hit.id for hit in hits] == [1, "550e8400-e29b-41d4-a716-446655440000", 3]
    assert hits[0].score == pytest.approx(1 / math.hypot(1, 0.1), abs=1e-5)
    assert hits[0].payload == {"name": "east", "lang": "en", "rank": 1}


def test_hits_are_no_more_than_the_limit(with_store):
    assert names(searched(with_store, EAST, limit=1)) == ["east"]


def test_hits_reach_the_score_threshold(with_store):
    assert names(searched(with_store, EAST, score_threshold=0.5)) == ["east"]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"lang": "de"}, ["north", "west"]),
        ({"lang": "de", "rank": 3}, ["west"]),
        ({"name": ["east", "west"]}, ["east", "west"]),
        ({"must": [{"key": "rank", "range": {"gte": 2}}]}, ["north", "west"]),
        ({"must_not": [{"key": "lang", "match": {"value": "de"}}]}, ["east"]),
        ({"must": [{"has_id": [1, 3]}]}, ["east", "west"]),
        ({"lang": "fr"}, []),
    ],
)
def test_hits_pass_the_filter(with_store, conditions, expected):
    assert names(searched(with_store, [1.0, 0.1], conditions=conditions)) == expected


def test_payloads_are_left_out_or_cut_as_asked(with_store):
    assert searched(with_store, EAST, limit=1, with_payload=False)[0].payload == {}
    assert searched(with_store, EAST, limit=1, with_payload=["rank"])[0].payload == {"rank": 1}


def test_the_same_points_again_change_nothing(with_store):
    async def work(store):
        counts = [await store.upsert("docs", COMPASS) for _ in range(2)]
        return counts, await store.search("docs", EAST)

    counts, hits = with_store(work)

    assert counts == [3, 3]
    assert names(hits) == ["east", "north", "west"]


def test_a_point_with_a_known_id_is_replaced(with_store):
    async def work(store):
        await store.upsert("docs", COMPASS)
        await store.upsert("docs", [Point(id=1, vector=WEST, payload={"name": "new"})])
        return await store.search("docs", EAST)

    assert names(with_store(work))[0] == "north"


def test_of_two_points_with_one_id_the_last_counts(with_store):
    async def work(store):
        stored = await store.upsert("docs", [COMPASS[0], Point(id=1, vector=EAST, payload={"name": "last"})])
        return stored, await store.search("docs", EAST)

    stored, hits = with_store(work)

    assert stored == 1
    assert names(hits) == ["last"]


def test_many_points_are_all_stored(with_store):
    points = [Point(id=index, vector=[1.0, index / 250], payload={"name": str(index)}) for index in range(250)]

    async def work(store):
        stored = await store.upsert("docs", points)
        return stored, await store.search("docs", EAST, limit=1000)

    stored, hits = with_store(work)

    assert stored == 250
    assert names(hits) == [str(index) for index in range(250)]


def test_no_points_create_no_collection(with_store):
    async def work(store):
        return await store.upsert("docs", []), await store.collections()

    assert with_store(work) == (0, {})


def test_stored_points_outlive_the_process(with_store):
    with_store(lambda store: store.upsert("docs", COMPASS))

    assert names(with_store(lambda store: store.search("docs", WEST, limit=1))) == ["west"]


def test_named_vectors_are_kept_apart(with_store):
    async def work(store):
        await store.upsert("docs", COMPASS, vector_name="title")
        with pytest.raises(VectorStoreRefused, match="has no vector named 'body'; it has 'title'"):
            await store.upsert("docs", COMPASS, vector_name="body")
        with pytest.raises(VectorStoreRefused):
            await store.search("docs", EAST, vector_name="body")
        return await store.search("docs", EAST, limit=1, vector_name="title"), await store.collections()

    hits, collections = with_store(work)

    assert names(hits) == ["east"]
    assert collections == {"docs": 2}


def test_collections_are_listed_with_their_dimensions(with_store):
    async def work(store):
        await store.upsert("docs", COMPASS)
        await store.upsert("faq", [Point(id=1, vector=[0.5] * 7)])
        return await store.collections()

    assert with_store(work) == {"docs": 2, "faq": 7}


def test_a_missing_collection_is_not_found(with_store):
    async def work(store):
        with pytest.raises(NotFound, match="there is no 'docs'"):
            await store.search("docs", EAST)

    with_store(work)


def test_vectors_of_another_length_are_refused(with_store):
    words = "'docs' holds vectors of 2 dimensions, not 3"

    async def work(store):
        await store.upsert("docs", COMPASS)
        with pytest.raises(VectorStoreRefused, match=words):
            await store.upsert("docs", [Point(id=9, vector=[1.0, 2.0, 3.0])])
        with pytest.raises(VectorStoreRefused, match=words):
            await store.search("docs", [1.0, 2.0, 3.0])
        with pytest.raises(VectorStoreRefused, match=r"points\[1\]"):
            await store.upsert("docs", [COMPASS[0], Point(id=9, vector=[1.0])])
        return await store.search("docs", EAST)

    assert len(with_store(work)) == 3


@pytest.mark.parametrize("name", ["a/b", "..", "what?"])
def test_a_name_that_no_collection_can_have_is_refused(with_store, name):
    async def work(store):
        with pytest.raises((VectorStoreRefused, NotFound)):
            await store.upsert(name, COMPASS)
        return await store.collections()

    assert with_store(work) == {}


@pytest.mark.parametrize("payload", [{"a": float("nan")}, {"a": "\ud800"}, {"a": 2**70}])
def test_a_payload_beyond_json_harms_no_other_point(with_store, payload):
    """It is stored or refused, never an error of another kind."""

    async def work(store):
        await store.upsert("docs", COMPASS)
        with contextlib.suppress(VectorStoreRefused):
            await store.upsert("docs", [Point(id=9, vector=EAST, payload=payload)])
        return await store.search("docs", WEST, limit=1)

    assert names(with_store(work)) == ["west"]


def test_creators_at_once_agree_on_one_collection(with_store):
    async def work(store):
        writes = (store.upsert("docs", [Point(id=index, vector=EAST)]) for index in range(8))
        stored = await asyncio.gather(*writes)
        return stored, len(await store.search("docs", EAST))

    assert with_store(work) == ([1] * 8, 8)


def test_of_creators_with_different_lengths_one_is_refused(with_store):
    async def work(store):
        writes = (store.upsert("docs", [Point(id=size, vector=[1.0] * size)]) for size in (2, 3))
        return await asyncio.gather(*writes, return_exceptions=True)

    outcomes = with_store(work)

    assert sorted(map(str, map(type, outcomes))) == sorted([str(int), str(VectorStoreRefused)])


@pytest.mark.parametrize(("distance", "score"), [("cosine", 1.0), ("dot", 6.0), ("euclid", 1.0)])
def test_a_collection_has_the_distance_it_was_created_with(with_store, distance, score):
    async def work(store):
        await store.upsert("docs", [Point(id=1, vector=[2.0, 0.0])], distance=distance)
        return await store.search("docs", [3.0, 0.0])

    assert with_store(work)[0].score == pytest.approx(score, abs=1e-5)


def test_creating_a_collection_sets_the_changed_event(with_store):
    async def work(store):
        seen = [store.changed.is_set()]
        for _ in range(2):
            await store.upsert("docs", COMPASS)
            seen.append(store.changed.is_set())
            store.changed.clear()
        return seen

    assert with_store(work) == [False, True, False]


def test_a_healthy_store_says_so(with_store):
    with_store(lambda store: store.health())


def test_past_the_deadline_nothing_is_begun(with_store):
    async def work(store):
        with pytest.raises(DeadlineExceeded):
            await store.upsert("docs", COMPASS, deadline=Deadline.after(-1))
        return await store.collections()

    assert with_store(work) == {}


def test_a_closed_store_opens_again(with_store):
    async def work(store):
        await store.upsert("docs", COMPASS)
        await store.aclose()
        return await store.search("docs", EAST, limit=1)

    assert names(with_store(work)) == ["east"]
