"""`embed_many`: order, memory, bad texts, failures."""

import asyncio
import threading

import httpx
import pytest

from citadel_client import AsyncCitadel, NotFound, ServerUnreachable
from tests.unit.client.double import Double, openai_error, talk_sync, vector_of


def texts(count):
    return [f"text {number}" for number in range(count)]


@pytest.mark.parametrize(("size", "parallel"), [(1, 1), (7, 3), (64, 4), (1000, 2)])
def test_vectors_come_in_the_order_of_the_texts(talk, size, parallel):
    wanted = texts(200)
    double = Double()
    found = talk(double, lambda client: client.embed_many(iter(wanted), chunk_size=size, parallel=parallel))
    assert [item.text for item in found] == wanted
    assert [item.index for item in found] == list(range(200))
    assert [item.vector for item in found] == [vector_of(text) for text in wanted]
    assert len(double.requests) == -(-200 // size)


def test_no_texts_give_no_vectors(talk):
    assert talk(Double(), lambda client: client.embed_many([])) == []


@pytest.mark.parametrize("names_texts", [True, False], ids=["named", "unnamed"])
def test_a_bad_text_fails_alone(talk, names_texts):
    wanted = texts(30)
    for place in (0, 7, 8, 29):
        wanted[place] = f"bad {place}"
    double = Double(names_texts=names_texts)
    found = talk(double, lambda client: client.embed_many(wanted, chunk_size=10))
    assert [item.index for item in found] == list(range(30))
    assert [item.index for item in found if item.error] == [0, 7, 8, 29]
    assert all(item.vector == vector_of(item.text) for item in found if not item.error)
    assert found[7].error.code == ("invalid_input" if names_texts else "text_rejected")
    with pytest.raises(type(found[7].error)):
        _ = found[7].vector


def test_progress_is_reported_after_each_chunk(talk):
    reports = []
    wanted = ["hit 1", "hit 2", "bad 3", "text 4"]
    talk(Double(), lambda client: client.embed_many(wanted, chunk_size=2, progress=reports.append))
    assert [(p.done, p.failed, p.cache_hits) for p in reports] == [(2, 0, 2), (4, 1, 2)]
    assert reports[-1].model == "m"


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (openai_error(404, "model: no such model", "model", "model_not_found"), NotFound),
        (httpx.ConnectError("refused"), ServerUnreachable),
    ],
)
def test_an_error_that_concerns_all_texts_ends_the_stream(talk, refusal, kind):
    double = Double(*[refusal] * 50)
    with pytest.raises(kind):
        talk(double, lambda client: client.embed_many(texts(30), chunk_size=10, parallel=1))


def test_texts_are_read_as_they_are_needed(talk):
    read = []

    def source():
        for number in range(1000):
            read.append(number)
            yield f"text {number}"

    async def first_async():
        async with AsyncCitadel("http://api.test", transport=httpx.MockTransport(Double().handle)) as client:
            stream = client.embed_many(source(), chunk_size=5, parallel=2)
            await anext(stream)
            await stream.aclose()

    if talk is talk_sync:
        talk(Double(), lambda client: next(client.embed_many(source(), chunk_size=5, parallel=2)))
    else:
        asyncio.run(first_async())
    assert len(read) == 20


def test_requests_are_made_concurrently():
    together = threading.Barrier(3, timeout=30)

    class Meeting(Double):
        def handle(self, request):
            together.wait()
            return super().handle(request)

    assert len(talk_sync(Meeting(), lambda client: client.embed_many(texts(6), chunk_size=2, parallel=3))) == 6


def test_an_async_source_is_read():
    async def source():
        for text in texts(5):
            yield text

    async def run():
        async with AsyncCitadel("http://api.test", transport=httpx.MockTransport(Double().handle)) as client:
            return [item.text async for item in client.embed_many(source(), chunk_size=2)]

    assert asyncio.run(run()) == texts(5)


def test_a_chunk_size_of_zero_is_refused(talk):
    with pytest.raises(ValueError, match="chunk_size"):
        talk(Double(), lambda client: client.embed_many(["x"], chunk_size=0))
