"""Properties of the engine that hold for any mix of texts and any answers of the backend."""

import asyncio
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from citadel_common.deadline import Deadline
from citadel_common.errors import BackendUnavailable, BadVector, DeadlineExceeded, TextRejected
from citadel_embeddings.engine import EmbedRequest
from tests.support.engine import DIMENSIONS, FLAWS, MODEL, PREFIXES, SECONDS, World, vector_of
from tests.support.virtual_time import run_virtually

numbers = st.integers(0, 5)
good = st.builds("good {}".format, st.integers(0, 12))
passing = st.one_of(st.builds("lost 1 {}".format, numbers), st.builds("failing 2 {}".format, numbers))
bad = st.builds("{} {}".format, st.sampled_from([*FLAWS, "rejected"]), numbers)
worlds = st.fixed_dictionaries(
    {"urls": st.integers(1, 3), "concurrency": st.integers(1, 4), "batch": st.sampled_from([1, 2, 8, 32])}
)


def requests_of(texts):
    return st.builds(
        EmbedRequest,
        text=st.lists(texts, min_size=1, max_size=12),
        model=st.just(MODEL),
        cache_enabled=st.booleans(),
        dimensions=st.sampled_from([None, 4, DIMENSIONS]),
        input_type=st.sampled_from([None]),
    )


def groups_of(texts):
    """Requests in groups that run at once; the groups follow one another."""
    return st.lists(st.lists(requests_of(texts), min_size=1, max_size=5), min_size=1, max_size=3)


def run(world, groups, *, seconds=1500.0):
    """Return the responses, in virtual time; that this returns is itself a property."""

    async def everything():
        responses = []
        for group in groups:
            deadline = Deadline.after(seconds)
            responses += await asyncio.gather(*(world.engine.embed(request, deadline) for request in group))
        return responses

    return run_virtually(everything())


def dimensions_of(request):
    return None if request.dimensions == DIMENSIONS else request.dimensions


def is_bad(text):
    return text.split()[0] in {*FLAWS, "rejected"}


def assert_belongs(request, response):
    """Vector i belongs to text i, or error i says why there is none."""
    assert len(response.vectors) == len(request.text)
    for index, text in enumerate(request.text):
        vector = response.vectors[index]
        if is_bad(text):
            assert vector is None
            assert isinstance(response.errors[index], TextRejected | BadVector)
        else:
            assert index not in response.errors
            assert np.array_equal(vector, vector_of(text, dimensions_of(request)))


def assert_cache_is_sound(world, requests):
    vectors = {vector_of(t, dimensions_of(r)).tobytes() for r in requests for t in r.text if r.cache_enabled}
    assert {stored.vector.tobytes() for stored in world.cache.stored.values()} <= vectors
    assert world.cache.claims == set()


@given(worlds, groups_of(st.one_of(good, bad, passing)))
@settings(deadline=None, max_examples=150)
def test_every_text_gets_its_own_vector_or_its_own_error(world, groups):
    world = World(**world, patience=3600.0)
    requests = [request for group in groups for request in group]
    for request, response in zip(requests, run(world, groups), strict=True):
        assert_belongs(request, response)
    assert_cache_is_sound(world, requests)


@given(worlds, groups_of(good))
@settings(deadline=None, max_examples=100)
def test_a_good_text_is_computed_once(world, groups):
    world = World(**world)
    run(world, groups)
    cached = {(t, dimensions_of(r)) for group in groups for r in group if r.cache_enabled for t in r.text}
    uncached = Counter()
    for request in (request for group in groups for request in group if not request.cache_enabled):
        uncached.update({(text, dimensions_of(request)) for text in request.text})
    for text, count in world.backend.computed.items():
        assert count <= (text in cached) + uncached[text]
    assert set(world.backend.computed) == cached | set(uncached)


@given(worlds, st.lists(good, min_size=1, max_size=20), st.lists(good, min_size=1, max_size=20))
@settings(deadline=None, max_examples=60)
def test_a_cached_text_is_counted_as_a_hit_and_not_computed(world, before, after):
    world = World(**world)
    requests = [EmbedRequest(text=before, model=MODEL), EmbedRequest(text=after, model=MODEL)]
    first, second = run(world, [[requests[0]], [requests[1]]])
    assert first.cache_hits == 0
    assert second.cache_hits == sum(text in set(before) for text in after)
    assert set(world.backend.computed.values()) == {1}
    assert first.tokens == len(set(before))
    assert second.tokens == len(set(after) - set(before))


@given(st.lists(st.one_of(good, bad), min_size=1, max_size=40), st.sampled_from([4, 8, 32]))
@settings(deadline=None, max_examples=60)
def test_bisecting_costs_a_bounded_number_of_calls(texts, batch):
    world = World(batch=batch)
    run(world, [[EmbedRequest(text=texts, model=MODEL)]])
    distinct = set(texts)
    bad_ones = sum(is_bad(text) for text in distinct)
    assert len(world.backend.calls) <= 2 * len(distinct) + bad_ones * 3 * (batch.bit_length() + 2)


@given(st.lists(st.one_of(good, st.just("lost 1000000 0")), min_size=1, max_size=10), st.floats(0.01, 300))
@settings(deadline=None, max_examples=40)
def test_a_backend_that_never_answers_ends_in_time(texts, seconds):
    world = World(patience=30.0)
    [response] = run(world, [[EmbedRequest(text=[*texts, "lost 1000000 0"], model=MODEL)]], seconds=seconds)
    errors = [response.errors[index] for index, text in enumerate(texts) if text.startswith("lost")]
    assert all(isinstance(error, BackendUnavailable | DeadlineExceeded) for error in errors)
    assert world.cache.claims == set() or seconds < 31


def test_a_backend_that_is_only_busy_is_never_given_up():
    world = World(concurrency=1, batch=1, patience=1.0)
    texts = [f"good {n}" for n in range(20 * round(world.patience / SECONDS))]
    [response] = run(world, [[EmbedRequest(text=texts, model=MODEL)]])
    assert response.errors == {}


@given(st.sampled_from(["query", "document"]), st.lists(st.integers(0, 5), min_size=1))
@settings(deadline=None, max_examples=20)
def test_prefixes_belong_to_the_text(kind, texts):
    world = World()
    texts = [f"text {n}" for n in texts]
    [response] = run(world, [[EmbedRequest(text=texts, model=MODEL, input_type=kind)]])
    assert np.array_equal(response.vectors, [vector_of(PREFIXES[kind] + text) for text in texts])


def test_a_defect_of_the_backend_leaves_nobody_waiting():
    world = World()

    async def defect(*_, **__):
        raise ZeroDivisionError

    world.backend.embed = defect
    [response] = run(world, [[EmbedRequest(text=["good"], model=MODEL)]])
    assert response.errors[0].code == "internal"


def test_a_cancelled_caller_does_not_cancel_a_text_that_others_wait_for():
    world = World(concurrency=1)

    async def everything():
        deadline = Deadline.after(100)
        leaver = asyncio.ensure_future(world.engine.embed(EmbedRequest(text="lost 2 x", model=MODEL), deadline))
        stayer = asyncio.ensure_future(world.engine.embed(EmbedRequest(text="lost 2 x", model=MODEL), deadline))
        await asyncio.sleep(0.01)
        leaver.cancel()
        return await stayer

    response = run_virtually(everything())
    assert np.array_equal(response.vectors[0], vector_of("lost 2 x"))


def test_texts_for_which_nobody_waits_any_more_are_not_sent():
    world = World(concurrency=1, batch=2)
    texts = [f"good {n}" for n in range(40)]

    async def everything():
        deadline = Deadline.after(100)
        leaver = asyncio.ensure_future(world.engine.embed(EmbedRequest(text=texts, model=MODEL), deadline))
        stayer = asyncio.ensure_future(world.engine.embed(EmbedRequest(text=texts[-4:], model=MODEL), deadline))
        await asyncio.sleep(SECONDS / 2)
        leaver.cancel()
        await asyncio.sleep(0)
        # at once, while the texts that were given up are still being settled
        again = await world.engine.embed(EmbedRequest(text=texts[10:12], model=MODEL), deadline)
        return await stayer, again

    stayer, again = run_virtually(everything())
    assert np.array_equal(stayer.vectors, [vector_of(text) for text in texts[-4:]])
    assert np.array_equal(again.vectors, [vector_of(text) for text in texts[10:12]])
    assert sum(map(len, world.backend.calls)) <= 2 + 4 + 2
    assert world.single_flight.pending == 0
    assert world.cache.claims == set()


def test_an_impatient_caller_does_not_end_the_wait_of_a_patient_one():
    world = World()

    async def everything():
        request = EmbedRequest(text="lost 5 x", model=MODEL)
        impatient = asyncio.ensure_future(world.engine.embed(request, Deadline.after(0.2)))
        patient = asyncio.ensure_future(world.engine.embed(request, Deadline.after(100)))
        return await impatient, await patient

    impatient, patient = run_virtually(everything())
    assert isinstance(impatient.errors[0], BackendUnavailable | DeadlineExceeded)
    assert np.array_equal(patient.vectors[0], vector_of("lost 5 x"))


def test_an_engine_that_is_closed_releases_its_claims_on_unfinished_texts():
    world = World()

    async def everything():
        request = EmbedRequest(text=["good", "lost 1000 x"], model=MODEL)
        caller = asyncio.ensure_future(world.engine.embed(request, Deadline.after(100)))
        await asyncio.sleep(SECONDS / 2)
        held = set(world.cache.claims)
        caller.cancel()
        await world.aclose()
        return held

    assert len(run_virtually(everything())) == 2
    assert world.cache.claims == set()
