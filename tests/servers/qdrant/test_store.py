"""The vector store does the same with a server and in its embedded form."""

import asyncio
import math

import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import DeadlineExceeded, NotFound, VectorStoreRefused
from citadel_orchestration.vectors.points import Point, point_id
from citadel_orchestration.vectors.store import VectorStore

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
COMPASS = [
    Point(id=1, vector=EAST, payload={"name": "east", "lang": "en", "rank": 1}),
    Point(id="550e8400-e29b-41d4-a716-446655440000", vector=NORTH, payload={"name": "north", "lang": "de", "rank": 2}),
    Point(id=3, vector=WEST, payload={"name": "west", "lang": "de", "rank": 3}),
]


def names(hits):
    return [hit.payload["name"] for hit in hits]


def searched(with_store, docs, vector, **options):
    async def work(store: VectorStore):
        await store.upsert(docs, COMPASS)
        return await store.search(docs, vector, **options)

    return with_store(work)


def test_the_nearest_hit_comes_first(with_store, docs):
    hits = searched(with_store, docs, [1.0, 0.1])

    assert names(hits) == ["east", "north", "west"]
    assert [hit.id for hit in hits] == [1, "550e8400-e29b-41d4-a716-446655440000", 3]
    assert hits[0].score == pytest.approx(1 / math.hypot(1, 0.1), abs=1e-5)
    assert hits[0].payload == {"name": "east", "lang": "en", "rank": 1}


def test_hits_are_no_more_than_the_limit(with_store, docs):
    assert names(searched(with_store, docs, EAST, limit=1)) == ["east"]


def test_hits_reach_the_score_threshold(with_store, docs):
    assert names(searched(with_store, docs, EAST, score_threshold=0.5)) == ["east"]


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
def test_hits_pass_the_filter(with_store, conditions, expected, docs):
    assert names(searched(with_store, docs, [1.0, 0.1], conditions=conditions)) == expected


def test_payloads_are_left_out_or_cut_as_asked(with_store, docs):
    assert searched(with_store, docs, EAST, limit=1, with_payload=False)[0].payload == {}
    assert searched(with_store, docs, EAST, limit=1, with_payload=["rank"])[0].payload == {"rank": 1}


def test_the_same_points_again_change_nothing(with_store, docs):
    async def work(store):
        counts = [await store.upsert(docs, COMPASS) for _ in range(2)]
        return counts, await store.search(docs, EAST)

    counts, hits = with_store(work)

    assert counts == [3, 3]
    assert names(hits) == ["east", "north", "west"]


def test_a_point_with_a_known_id_is_replaced(with_store, docs):
    async def work(store):
        await store.upsert(docs, COMPASS)
        await store.upsert(docs, [Point(id=1, vector=WEST, payload={"name": "new"})])
        return await store.search(docs, EAST)

    assert names(with_store(work))[0] == "north"


def test_of_two_points_with_one_id_the_last_counts(with_store, docs):
    async def work(store):
        stored = await store.upsert(docs, [COMPASS[0], Point(id=1, vector=EAST, payload={"name": "last"})])
        return stored, await store.search(docs, EAST)

    stored, hits = with_store(work)

    assert stored == 1
    assert names(hits) == ["last"]


def test_many_points_are_all_stored(with_store, docs):
    points = [Point(id=index, vector=[1.0, index / 250], payload={"name": str(index)}) for index in range(250)]

    async def work(store):
        stored = await store.upsert(docs, points)
        return stored, await store.search(docs, EAST, limit=1000)

    stored, hits = with_store(work)

    assert stored == 250
    assert names(hits) == [str(index) for index in range(250)]


def test_no_points_create_no_collection(with_store, docs, own):
    async def work(store):
        return await store.upsert(docs, []), own.of(await store.collections())

    assert with_store(work) == (0, {})


def test_stored_points_outlive_the_process(with_store, docs):
    with_store(lambda store: store.upsert(docs, COMPASS))

    assert names(with_store(lambda store: store.search(docs, WEST, limit=1))) == ["west"]


def test_named_vectors_are_kept_apart(with_store, docs, own):
    async def work(store):
        await store.upsert(docs, COMPASS, vector_name="title")
        with pytest.raises(VectorStoreRefused, match="has no vector named 'body'; it has 'title'"):
            await store.upsert(docs, COMPASS, vector_name="body")
        with pytest.raises(VectorStoreRefused):
            await store.search(docs, EAST, vector_name="body")
        return await store.search(docs, EAST, limit=1, vector_name="title"), own.of(await store.collections())

    hits, collections = with_store(work)

    assert names(hits) == ["east"]
    assert collections == {"docs": {"title": 2}}


def test_collections_are_listed_with_their_dimensions(with_store, docs, own):
    async def work(store):
        await store.upsert(docs, COMPASS)
        await store.upsert(own("faq"), [Point(id=1, vector=[0.5] * 7)])
        return own.of(await store.collections())

    assert with_store(work) == {"docs": {"": 2}, "faq": {"": 7}}


def test_a_missing_collection_is_not_found(with_store, docs):
    async def work(store):
        with pytest.raises(NotFound, match=r"there is no '.*docs'"):
            await store.search(docs, EAST)

    with_store(work)


def test_vectors_of_another_length_are_refused(with_store, docs):
    words = "docs' holds vectors of 2 dimensions, not 3"

    async def work(store):
        await store.upsert(docs, COMPASS)
        with pytest.raises(VectorStoreRefused, match=words):
            await store.upsert(docs, [Point(id=9, vector=[1.0, 2.0, 3.0])])
        with pytest.raises(VectorStoreRefused, match=words):
            await store.search(docs, [1.0, 2.0, 3.0])
        with pytest.raises(VectorStoreRefused, match=r"points\[1\]"):
            await store.upsert(docs, [COMPASS[0], Point(id=9, vector=[1.0])])
        return await store.search(docs, EAST)

    assert len(with_store(work)) == 3


@pytest.mark.parametrize("name", ["a/b", "..", "what?"])
def test_a_name_that_no_collection_can_have_is_refused(with_store, name, own):
    async def work(store):
        with pytest.raises((VectorStoreRefused, NotFound)):
            await store.upsert(name, COMPASS)
        return own.of(await store.collections())

    assert with_store(work) == {}


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"a": [1, float("nan")]}, r"points\[0\]\.payload\.a\[1\]: nan is not JSON"),
        ({"a": float("inf")}, "inf is not JSON"),
        ({"a": "\ud800"}, "surrogate"),
        ({"\ud800": 1}, "surrogate|no text"),
        ({"a": {"b": 2**64}}, r"points\[0\]\.payload\.a\.b: is beyond 64 bits"),
        ({"a": -(2**63) - 1}, "is beyond 64 bits"),
    ],
)
def test_a_payload_that_the_store_would_change_is_refused(with_store, docs, payload, problem):
    async def work(store):
        await store.upsert(docs, COMPASS)
        with pytest.raises(VectorStoreRefused, match=problem):
            await store.upsert(docs, [Point(id=9, vector=EAST, payload=payload)])
        return await store.search(docs, WEST, limit=9)

    assert names(with_store(work)) == ["west", "north", "east"]


def test_a_payload_nested_too_deep_is_refused(with_store, docs):
    payload = {}
    for _ in range(200):
        payload = {"a": payload}
    with pytest.raises(VectorStoreRefused, match="levels deep"):
        with_store(lambda store: store.upsert(docs, [Point(id=9, vector=EAST, payload=payload)]))


@pytest.mark.parametrize(
    "value",
    [2**64 - 1, -(2**63), 1e308, 5e-324, 0.1, "nul \x00 nul", "", "日本語 🙂", [], {}, None, True, [[1, {"a": None}]]],
)
def test_a_payload_comes_back_as_it_was_stored(with_store, docs, value):
    async def work(store):
        await store.upsert(docs, [Point(id=1, vector=EAST, payload={"a": value, "": value})])
        return await store.search(docs, EAST)

    assert with_store(work)[0].payload == {"a": value, "": value}


@pytest.mark.parametrize("size", [1, 3])
def test_large_payloads_are_written_in_several_parts(with_store, docs, size):
    """Together they are over a server's limit of 32 MB."""
    points = [Point(id=n, vector=EAST, payload={"text": "x" * (size * 2**20)}) for n in range(36 // size)]

    async def work(store):
        return await store.upsert(docs, points), len(await store.search(docs, EAST, limit=100, with_payload=False))

    assert with_store(work) == (36 // size, 36 // size)


@pytest.mark.parametrize(
    ("id_", "stored"),
    [
        (0, 0),
        (2**64 - 1, 2**64 - 1),
        ("550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"),
        ("550E8400E29B41D4A716446655440000", "550e8400-e29b-41d4-a716-446655440000"),
    ],
)
def test_ids_are_numbers_of_64_bits_or_uuids(with_store, docs, id_, stored):
    async def work(store):
        await store.upsert(docs, [Point(id=point_id(docs, id_), vector=EAST)])
        found = await store.search(docs, EAST)
        return [hit.id for hit in found]

    assert with_store(work) == [stored]


@pytest.mark.parametrize("number", [1e39, -1e300])
def test_numbers_beyond_float32_are_refused(with_store, docs, number):
    async def work(store):
        await store.upsert(docs, COMPASS)
        with pytest.raises(VectorStoreRefused, match=r"embedding\[1\]: .* beyond the range of a float32"):
            await store.search(docs, [1.0, number])
        with pytest.raises(VectorStoreRefused, match=r"points\[0\]\.embedding\[1\]"):
            await store.upsert(docs, [Point(id=9, vector=[1.0, number])])

    with_store(work)


def test_creators_at_once_agree_on_one_collection(with_store, docs):
    async def work(store):
        writes = (store.upsert(docs, [Point(id=index, vector=EAST)]) for index in range(8))
        stored = await asyncio.gather(*writes)
        return stored, len(await store.search(docs, EAST))

    assert with_store(work) == ([1] * 8, 8)


def test_of_creators_with_different_lengths_one_is_refused(with_store, docs):
    async def work(store):
        writes = (store.upsert(docs, [Point(id=size, vector=[1.0] * size)]) for size in (2, 3))
        return await asyncio.gather(*writes, return_exceptions=True)

    outcomes = with_store(work)

    assert sorted(map(str, map(type, outcomes))) == sorted([str(int), str(VectorStoreRefused)])


def test_creating_a_collection_sets_the_changed_event(with_store, docs):
    async def work(store):
        seen = [store.changed.is_set()]
        for _ in range(2):
            await store.upsert(docs, COMPASS)
            seen.append(store.changed.is_set())
            store.changed.clear()
        return seen

    assert with_store(work) == [False, True, False]


def test_a_healthy_store_says_so(with_store):
    with_store(lambda store: store.health())


def test_past_the_deadline_nothing_is_begun(with_store, docs, own):
    async def work(store):
        with pytest.raises(DeadlineExceeded):
            await store.upsert(docs, COMPASS, deadline=Deadline.after(-1))
        return own.of(await store.collections())

    assert with_store(work) == {}


def test_a_closed_store_opens_again(with_store, docs):
    async def work(store):
        await store.upsert(docs, COMPASS)
        await store.aclose()
        return await store.search(docs, EAST, limit=1)

    assert names(with_store(work)) == ["east"]
