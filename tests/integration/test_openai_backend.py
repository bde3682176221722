"""The worker with a server of the OpenAI protocol."""

import asyncio
import contextlib
import threading

import pytest

from tests.doubles.process import OllamaProcess
from tests.support.assertions import MODEL, assert_good_but, assert_vectors
from tests.support.celery_client import PlainClient
from tests.support.gateway import gateway
from tests.support.planted import planted
from tests.support.worker import BACKEND, FAST, ServiceProcess, WorkerProcess, backend_settings

TASK = "generate_embedding"
KIND = {"EMBEDDINGS__BACKENDS__main__KIND": "openai"}
KEY = {"EMBEDDINGS__BACKENDS__main__API_KEY": "secret"}


@pytest.fixture(scope="module")
def guarded():
    """A server that requires a key."""
    with OllamaProcess(slots=4, api_key="secret") as process:
        yield process


@pytest.fixture(scope="module", autouse=True)
def openai_worker(redis_url, guarded):
    """A worker that knows the key."""
    with WorkerProcess(redis_url, guarded.url + "/v1", EMBEDDINGS__PATIENCE=1, **KIND, **KEY) as process:
        yield process


@pytest.fixture(autouse=True)
def server(store, guarded):
    """The healthy server; nothing is cached."""
    guarded.reset()
    store.delete(*(store.keys("citadel:embedding:*") or ["none"]))
    return guarded


@pytest.mark.parametrize("model", ["nomic-embed-text", "bge-m3"])
def test_each_text_gets_its_own_vector(plain, model):
    texts = [f"text {n}" for n in range(100)]
    assert_vectors(plain.call(TASK, texts, model=model), texts, model)
    assert plain.call(TASK, texts, model=model)["cache_hits"] == 100


def test_shortened_dimensions_are_honoured(plain):
    assert_vectors(plain.call(TASK, ["a"], dimensions=128), ["a"], dimensions=128)


def test_items_may_come_in_any_order(plain, server):
    server.behaviour("shuffled")
    texts = [f"text {n}" for n in range(20)]
    assert_vectors(plain.call(TASK, texts), texts)


@pytest.mark.parametrize("marker", ["nan", "zero", "infinite", "null", "wrong_dimension"])
def test_a_bad_text_never_fails_its_neighbours(plain, marker):
    texts = [f"good {n}" for n in range(10)] + [f"bad [[{marker}]]", "good too"]
    assert_good_but(plain.call(TASK, texts), texts, bad=(10,))


def test_calls_never_ask_the_server_to_truncate(plain, server):
    plain.call(TASK, ["short", "word " * 4000])
    assert all("truncate" not in request for request in server.stats()["recent"])


@pytest.mark.parametrize("mode", ["missing", "extra", "empty_answer", "garbage_json", "disconnect", "html502"])
def test_a_call_with_an_unusable_answer_is_repeated(plain, server, mode):
    server.behaviour(mode, for_requests=2)
    texts = [f"text {n}" for n in range(40)]
    assert_vectors(plain.call(TASK, texts), texts)


def test_vectors_of_nan_are_an_error_and_not_cached(plain, server, store):
    server.behaviour("nan")
    assert "that is not finite" in plain.error(TASK, ["a", "b"])
    assert store.keys("citadel:embedding:*") == []


def test_a_rate_limited_call_is_repeated(plain, server):
    server.behaviour("rate429", for_requests=2)
    assert_vectors(plain.call(TASK, ["a"]), ["a"])


def test_an_error_names_the_model_that_is_gone(plain, server):
    server.behaviour("not_found404")
    assert plain.error(TASK, "a").startswith(f"UnknownModel: model: '{MODEL}:latest' is not on the backend")


def test_a_wrong_key_is_an_error_that_does_not_repeat_it(redis_server, guarded):
    url = redis_server.database(1)
    wrong = {"EMBEDDINGS__BACKENDS__main__API_KEY": "wrong-key", "EMBEDDINGS__BACKENDS__main__MODELS": MODEL}
    with WorkerProcess(url, guarded.url, **KIND, **wrong) as worker, PlainClient(url) as plain:
        error = plain.error(TASK, "a")
        assert "BackendRefused: " in error
        assert "answered 401: Incorrect API key provided" in error
        assert "wrong-key" not in error + worker.output


def test_credentials_of_the_url_are_sent_and_stay_out_of_logs_and_errors(redis_server, guarded):
    url, secret = redis_server.database(3), planted("url")

    def worker_with(backend):
        settings = backend_settings(url, backend) | FAST | KIND | {f"{BACKEND}MODELS": MODEL}
        del settings[f"{BACKEND}API_KEY"]  # a call has one authorization
        return ServiceProcess("citadel_embeddings", settings)

    with (
        OllamaProcess(models=(MODEL,)) as server,
        gateway(f"{server.url}/v1", mount="/gw", credentials=f"me:{secret}@") as (address, _),
        PlainClient(url) as plain,
    ):
        right = address.replace("://", f"://me:{secret}%40@")
        with worker_with(right) as worker:
            assert_vectors(plain.call(TASK, ["a"]), ["a"])
            assert secret not in worker.output
        with worker_with(right.replace("%40", "-wrong")) as worker:
            error = plain.error(TASK, "b")
            assert "answered 401" in error
            assert secret not in error + worker.output


class Stub:
    """A server that answers with what a function of the test writes."""

    def __init__(self, serve):
        self._serve = serve
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        self._server = self._loop.run_until_complete(asyncio.start_server(self._answer, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._started.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _answer(self, reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            await self._serve(writer)
        except (asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def __enter__(self):
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@contextlib.contextmanager
def stubbed(redis_server, serve, **settings):
    """A client of a worker whose backend is a stub."""
    url = redis_server.database(2)
    chosen = {"EMBEDDINGS__BACKENDS__main__MODELS": MODEL, "WORKER__RETRY__MAX_RETRIES": 0} | settings
    with Stub(serve) as stub, WorkerProcess(url, stub.url, **KIND, **chosen) as worker, PlainClient(url) as plain:
        yield plain
        assert not worker.is_over


def test_a_call_whose_answer_trickles_times_out(redis_server):
    async def trickle(writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    settings = {"EMBEDDINGS__BACKENDS__main__TIMEOUT": 0.3, "EMBEDDINGS__PATIENCE": 0.5}
    with stubbed(redis_server, trickle, **settings) as plain:
        assert "did not answer within 0.3 s" in plain.error(TASK, "a")


NONSENSE = {
    "huge": b'{"data": [{"embedding": [1%s], "index": 0}]}' % (b"0" * 400),
    "number": b'{"data": [5]}',
    "base64": b'{"data": [{"embedding": "!", "index": 0}]}',
    "object": b'{"data": [{"embedding": {"a": 1}, "index": 0}]}',
    "ragged": b'{"data": [{"embedding": [[1, 2], [3]], "index": 0}]}',
    "index": b'{"data": [{"index": 7}]}',
    "data": b'{"data": 7, "usage": 5}',
    "usage": b'{"data": [{"embedding": [1], "index": 0}], "usage": {"prompt_tokens": "many"}}',
    "deep": b"[" * 5000,
    "text": b"hello",
    "empty": b"",
}


def test_a_nonsensical_answer_is_an_error_of_the_backend(redis_server):
    asked = []

    async def nonsense(writer):
        body = NONSENSE[asked[-1]]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()

    with stubbed(redis_server, nonsense, EMBEDDINGS__PATIENCE=0.3) as plain:
        for name in NONSENSE:
            asked.append(name)
            error = plain.error(TASK, name)
            assert error.startswith(("BadVector: text: ", "BackendUnavailable: ", "ServerFailed: ")), (name, error)
