"""The vector steps, from parameters to what a workflow sees."""

import asyncio
from uuid import uuid4

import numpy as np
import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import NotFound, VectorStoreRefused
from citadel_orchestration.step_types import Embed, Embedded, StepCall
from citadel_orchestration.steps.vector_search import VectorSearch, VectorSearchParameters
from citadel_orchestration.steps.vector_upsert import VectorUpsert, VectorUpsertParameters

DRINKS = f"drinks-{uuid4().hex[:10]}"
VECTORS = {"tea": [1.0, 0.0], "coffee": [0.9, 0.1], "car": [0.0, 1.0]}


@pytest.fixture(autouse=True)
def _dropped(own):
    """Drop the collection after each test."""
    own.names.append(DRINKS)


async def run(step, kind, given):
    """Carry out a step's effects as the engine does."""
    effect = step.begin(kind.model_validate(given))
    if isinstance(effect, Embed):
        effect = effect.then([_embedded(request) for request in effect.requests])
    return await effect.run(StepCall(run_id="r", step_id="s", item=None, attempt=1, deadline=Deadline.after(30)))


def _embedded(request):
    vectors = [np.asarray(VECTORS[text], dtype="<f4") for text in request.texts]
    return Embedded(vectors=vectors, model="m", dimensions=2, cache_hits=0, truncated=[])


def upsert(store, points, **given):
    given = {"collection": DRINKS, "points": points, **given}
    return run(VectorUpsert(store), VectorUpsertParameters, given)


def search(store, **given):
    return run(VectorSearch(store), VectorSearchParameters, {"collection": DRINKS, **given})


def test_texts_are_stored_and_found_by_text(with_store):
    async def work(store):
        points = [{"text": text, "payload": {"price": index}} for index, text in enumerate(VECTORS)]
        return await upsert(store, points), await search(store, text="coffee", limit=2)

    stored, found = with_store(work)

    assert stored["upserted"] == 3
    assert [hit["payload"] for hit in found["hits"]] == [{"text": "coffee", "price": 1}, {"text": "tea", "price": 0}]
    assert [hit["id"] for hit in found["hits"]] == [stored["ids"][1], stored["ids"][0]]
    assert found["hits"][0]["score"] == pytest.approx(1.0, abs=1e-5)


def test_points_with_vectors_and_with_texts_may_be_mixed(with_store):
    async def work(store):
        points = [
            {"id": 7, "embedding": [0.5, 0.5]},
            {"id": "my car", "text": "car"},
            {"embedding": [-1.0, 0.0], "payload": {"kind": "anti-tea"}},
            {"text": "tea", "payload": {"text": "a cup of tea"}},
        ]
        return await upsert(store, points), await search(store, embedding=[1.0, 0.0])

    stored, found = with_store(work)
    by_id = {hit["id"]: hit["payload"] for hit in found["hits"]}

    assert stored["ids"][0] == 7
    assert [by_id[name] for name in stored["ids"]] == [
        {},
        {"text": "car"},
        {"kind": "anti-tea"},
        {"text": "a cup of tea"},
    ]
    assert found["hits"][0]["id"] == stored["ids"][3]


def test_a_step_that_ran_twice_stored_once(with_store):
    async def work(store):
        points = [{"text": "tea"}, {"text": "car", "payload": {"wheels": 4}}, {"embedding": [0.3, 0.4]}]
        first, second = await upsert(store, points), await upsert(store, points)
        return first, second, await search(store, embedding=[1.0, 1.0])

    first, second, found = with_store(work)

    assert first == second
    assert len(found["hits"]) == 3


def test_upserting_no_points_does_nothing(with_store):
    assert with_store(lambda store: upsert(store, [])) == {"upserted": 0, "ids": []}


def test_every_parameter_of_a_search_counts(with_store):
    async def work(store):
        await upsert(store, [{"text": text, "payload": {"hot": text != "car"}} for text in VECTORS], vector_name="v")
        given = {"text": "car", "vector_name": "v"}
        return [
            await search(store, **given),
            await search(store, **given, filter={"hot": True}, score_threshold=0.05),
            await search(store, **given, limit=1, with_payload=["hot"]),
        ]

    texts = [[hit["payload"].get("text") for hit in found["hits"]] for found in with_store(work)]

    assert texts == [["car", "coffee", "tea"], ["coffee"], [None]]


def test_vectors_and_filters_that_do_not_fit_are_refused(with_store):
    async def work(store):
        with pytest.raises(NotFound):
            await search(store, text="tea")
        await upsert(store, [{"text": "tea"}])
        with pytest.raises(VectorStoreRefused, match="2 dimensions, not 3"):
            await search(store, embedding=[1.0, 2.0, 3.0])
        with pytest.raises(VectorStoreRefused, match=r"points\[1\]"):
            await upsert(store, [{"text": "tea"}, {"embedding": [1.0]}])
        with pytest.raises(VectorStoreRefused, match=r"filter\.price"):
            await search(store, text="tea", filter={"price": 1.5})

    with_store(work)


def test_steps_at_once_share_a_store(with_store):
    async def work(store):
        await asyncio.gather(*(upsert(store, [{"id": index, "text": "tea"}]) for index in range(10)))
        return await asyncio.gather(*(search(store, text="tea", limit=100) for _ in range(10)))

    assert [len(found["hits"]) for found in with_store(work)] == [10] * 10
