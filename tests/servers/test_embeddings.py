"""The embedding engine before each embedding server, double and real: vectors are what they say."""

import asyncio

import numpy as np
import pytest

from citadel_common.deadline import Deadline
from citadel_common.errors import CitadelError
from citadel_embeddings.engine import EmbedRequest
from tests.support import servers
from tests.support.embedding_engine import engine_before
from tests.support.servers import double_or_real

LONG = "word " * 3000
EATING = ["A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."]
UNICODE = [
    "naïve café",
    "日本語のテキスト",
    "🙂👩\u200d👧",
    "مرحبا",
    "zero\u200bwidth",
    "e\u0301",
    "a\u0000b",
    "\ufefftext",
]


def embed(server, *requests, **profile):
    """Responses to requests that are sent at once; an error of a whole request is raised."""

    async def everything():
        async with engine_before(server, **profile) as engine:
            calls = (engine.embed(EmbedRequest(model=server.model, **each), Deadline.after(60)) for each in requests)
            return await asyncio.gather(*calls)

    return asyncio.run(everything())


def vectors(server, texts, **fields):
    [response] = embed(server, {"text": texts, **fields})
    assert response.errors == {}
    return np.asarray(response.vectors)


def alike(one, other):
    return np.einsum("ij,ij->i", one, other)


def test_a_batch_has_the_vectors_of_its_texts_in_their_order(embedding_server):
    texts = [f"text number {n}, {'long ' * n}" for n in range(40)]
    together = vectors(embedding_server, texts)
    alone = np.concatenate([vectors(embedding_server, [text]) for text in texts[::8]])
    assert together.shape == (40, 384)
    assert np.all(alike(together[::8], alone) > 0.9999)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-3)


def test_equal_texts_have_equal_vectors_and_different_ones_do_not(embedding_server):
    one, other, again = vectors(embedding_server, ["one", "another", "one"])
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


def test_unicode_has_vectors(embedding_server):
    assert np.isfinite(vectors(embedding_server, UNICODE)).all()


def test_many_callers_at_once_get_their_own_vectors(embedding_server):
    texts = [[f"caller {n}", f"caller {n} again"] for n in range(20)]
    responses = embed(embedding_server, *({"text": pair} for pair in texts))
    flat = np.asarray([vector for response in responses for vector in response.vectors])
    expected = vectors(embedding_server, [text for pair in texts for text in pair])
    assert np.all(alike(flat, expected) > 0.9999)


def test_an_overlong_text_is_cut_where_that_is_wished_and_its_neighbours_are_whole(embedding_server):
    [response] = embed(embedding_server, {"text": ["short", LONG, "also short"], "truncate": True})
    assert (response.errors, response.truncated) == ({}, [1])
    assert np.all(alike(np.asarray(response.vectors)[::2], vectors(embedding_server, ["short", "also short"])) > 0.9999)


def test_an_overlong_text_is_refused_where_that_is_wished_and_its_neighbours_are_not(embedding_server):
    [response] = embed(embedding_server, {"text": ["short", LONG, "also short"], "truncate": False})
    assert {index: error.code for index, error in response.errors.items()} == {1: "text_too_long"}
    assert [vector is None for vector in response.vectors] == [False, True, False]


def test_overlong_texts_of_one_caller_cost_the_others_nothing(embedding_server):
    bad, good = embed(
        embedding_server,
        {"text": [f"{n} {LONG}" for n in range(12)], "truncate": False},
        {"text": [f"good {n}" for n in range(12)]},
    )
    assert {error.code for error in bad.errors.values()} == {"text_too_long"}
    assert good.errors == {}


def test_shortened_vectors_are_the_beginnings_of_the_long_ones(embedding_server):
    fields = {"text": ["a text", "another"], "dimensions": 64}
    [short] = embed(embedding_server, fields, dimensions=384, max_tokens=256, matryoshka=True)
    beginnings = vectors(embedding_server, ["a text", "another"])[:, :64]
    beginnings /= np.linalg.norm(beginnings, axis=1, keepdims=True)
    assert np.all(alike(np.asarray(short.vectors), beginnings) > 0.9999)


def test_dimensions_that_a_server_ignores_are_refused_with_a_way_out(openai_server):
    [response] = embed(openai_server, {"text": ["a"], "dimensions": 64}, max_tokens=256)
    assert (response.errors[0].code, response.errors[0].field) == ("invalid_input", "dimensions")
    assert "`matryoshka`" in response.errors[0].message


def test_a_model_that_the_server_lacks_is_named(ollama_server):
    with pytest.raises(CitadelError, match="no backend has 'nope'"):
        asyncio.run(_embed_with("nope", ollama_server))


async def _embed_with(model, server):
    async with engine_before(server) as engine:
        await engine.embed(EmbedRequest(model=model, text="a"), Deadline.after(10))


def test_the_keys_name_the_digest(ollama_server):
    async def identity():
        async with engine_before(ollama_server) as engine:
            return (await engine.registry.resolve(ollama_server.model, Deadline.after(10))).info.identity

    name, _, version = asyncio.run(identity()).partition("@")
    assert name == ollama_server.model
    assert len(version.partition("-")[0]) == 12


@pytest.fixture(
    params=[
        double_or_real(servers.ollama_double, servers.ollama_real, "ollama")[1],
        double_or_real(servers.openai_double, servers.openai_real, "openai")[1],
    ]
)
def real_model(request):
    """A server with the real all-MiniLM-L6-v2, which no double has."""
    with request.param() as server:
        yield server


def test_similarities_are_the_published_ones(real_model):
    eating, bread, baby = vectors(real_model, EATING)
    assert eating @ bread == pytest.approx(0.755, abs=0.005)
    assert abs(eating @ baby) < 0.2
