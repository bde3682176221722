"""Servers of one backend with different versions of a model, and a version that is replaced while the worker runs."""

import numpy as np
import pytest

from citadel_common.embeddings.vectors import unpack
from tests.doubles.ollama.vectors import expected_vector
from tests.doubles.process import OllamaProcess
from tests.support.assertions import MODEL
from tests.support.celery_client import PlainClient
from tests.support.worker import WorkerProcess

TASK = "generate_embedding"
SETTINGS = {"EMBEDDINGS__PATIENCE": 5, "EMBEDDINGS__REFRESH": 3600, "WORKER__RETRY__MAX_RETRIES": 0}


@pytest.fixture(scope="module")
def servers():
    """Two servers; a model that was replaced takes a moment to load."""
    with OllamaProcess(slots=4, load_ms=60) as one, OllamaProcess(slots=4, load_ms=60) as two:
        yield one, two


@pytest.fixture
def pair(servers, store):
    """Both servers with the same version; nothing is cached."""
    for server in servers:
        server.reset()
    store.delete(*(store.keys("citadel:*") or ["none"]))
    return servers


@pytest.fixture
def started(redis_url, pair):
    """A starter of workers with a refresh of the catalogue once an hour, and their client."""

    def start(*urls, **settings):
        return WorkerProcess(redis_url, list(urls), **SETTINGS, **settings)

    with PlainClient(redis_url) as plain:
        yield start, plain


def assert_version(result, texts, salt):
    assert result["errors"] == []
    expected = [expected_vector(MODEL, text, salt=salt) for text in texts]
    assert np.array_equal(np.asarray(result["embeddings"], dtype="<f4"), expected)


def stored_under(store):
    """What is cached: the identities in the keys, each with its vectors."""
    found = {}
    for key in store.scan_iter("citadel:embedding:*"):
        value = store.get(key)
        identity = key.decode().split(":")[3]
        if value is not None and not key.endswith(b":claim"):
            found.setdefault(identity, []).append(unpack(value).vector)
    return found


def test_calls_go_only_to_servers_with_the_version_that_the_keys_name(started, pair, store):
    start, plain = started
    pair[1].behaviour("ok", digest_salt="other")
    texts = [f"text {n}" for n in range(200)]
    with start(pair[0].url, pair[1].url):
        assert_version(plain.call(TASK, texts), texts, "")
    assert pair[1].stats()["texts_embedded"] == 0
    assert len(stored_under(store)) == 1


def test_a_version_that_is_replaced_is_noticed_before_its_vectors_are_stored_under_the_old_name(started, pair, store):
    start, plain = started
    with start(pair[0].url):
        for salt in ("", "second", "third"):
            pair[0].behaviour("ok", digest_salt=salt)
            texts = [f"{salt} {n}" for n in range(60)]
            assert_version(plain.call(TASK, texts), texts, salt)
    found = stored_under(store)
    assert sorted(len(vectors) for vectors in found.values()) == [60, 60, 60]


def test_the_other_server_takes_over_when_one_gets_another_version(started, pair, store):
    start, plain = started
    with start(pair[0].url, pair[1].url):
        plain.call(TASK, ["before"])
        pair[0].behaviour("ok", digest_salt="new")
        texts = [f"text {n}" for n in range(100)]
        assert_version(plain.call(TASK, texts), texts, "")
    assert len(stored_under(store)) == 1


def test_vectors_whose_version_no_server_confirms_are_answered_and_not_stored(started, pair, store):
    start, plain = started
    with start(pair[0].url):
        plain.call(TASK, ["before"])
        pair[0].behaviour("error500", routes="side")
        pair[0].behaviour("error500", routes="side", digest_salt="new")
        assert_version(plain.call(TASK, ["after"]), ["after"], "new")
    assert [len(vectors) for vectors in stored_under(store).values()] == [1]


def test_another_revision_has_keys_of_its_own(started, pair, store):
    start, plain = started
    backend = "EMBEDDINGS__BACKENDS__main__"
    for revision in ("r1", "r2"):
        with start(pair[0].url + "/v1", **{f"{backend}KIND": "openai", f"{backend}REVISION": revision}):
            plain.call(TASK, ["a"])
    assert sorted(identity.split("-r")[-1][0] for identity in stored_under(store)) == ["1", "2"]
