"""The embedding-backend double: the wire protocol it speaks and the ways it misbehaves."""

import asyncio
import base64
import json
import math
import os
import subprocess
import sys
import time

import httpx
import numpy as np
import openai
import pytest

from tests.doubles import pacing
from tests.doubles.app import OllamaDouble
from tests.doubles.behaviour import MODES, Behaviour
from tests.doubles.models import KNOWN, count_tokens, truncated
from tests.doubles.pacing import Slot, Slots
from tests.doubles.process import ROOT, DoubleFailedError, OllamaProcess
from tests.doubles.settings import Settings
from tests.doubles.vectors import BANK, expected_vector

MODEL = "nomic-embed-text"
DIMENSIONS = {"nomic-embed-text": 768, "mxbai-embed-large": 1024, "bge-m3": 1024, "all-minilm": 384}


class Client:
    """Asks an application in this process, without a socket."""

    def __init__(self, **settings):
        self.app = OllamaDouble(Settings(**settings))

    async def send(self, method, path, **request):
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://double") as client:
            return await client.request(method, path, **request)

    def get(self, path, **request):
        return asyncio.run(self.send("GET", path, **request))

    def post(self, path, data=None, **request):
        return asyncio.run(self.send("POST", path, json=data, **request))

    def embed(self, texts, **fields):
        return self.post("/api/embed", {"model": MODEL, "input": texts, **fields})

    def openai(self, texts, **fields):
        return self.post("/v1/embeddings", {"model": MODEL, "input": texts, **fields})

    def behaviour(self, mode, **parameters):
        answer = self.post("/_double/behaviour", {"mode": mode, **parameters})
        assert answer.status_code == 200, answer.text

    def stats(self):
        return self.get("/_double/stats").json()


@pytest.fixture
def double():
    return Client()


def floats(vectors):
    return np.asarray(vectors, dtype=np.float32)


class TestOllamaProtocol:
    def test_answer_has_every_field(self, double):
        body = double.embed(["one", "two words"]).json()
        assert set(body) == {
            "model",
            "embeddings",
            "total_duration",
            "load_duration",
            "prompt_eval_count",
        }
        assert body["model"] == MODEL
        assert body["prompt_eval_count"] == count_tokens("one") + count_tokens("two words")
        assert 0 <= body["load_duration"] <= body["total_duration"]

    @pytest.mark.parametrize(("model", "dimensions"), DIMENSIONS.items())
    @pytest.mark.parametrize("tag", ["", ":latest"])
    def test_models_and_vectors(self, double, model, dimensions, tag):
        body = double.embed(["a", "b", "a"], model=model + tag).json()
        vectors = floats(body["embeddings"])
        assert body["model"] == model + tag
        assert vectors.shape == (3, dimensions)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        assert np.array_equal(vectors, [expected_vector(model, text) for text in "aba"])

    @pytest.mark.parametrize("given", ["", None, []])
    def test_no_text_is_no_vector(self, double, given):
        answer = double.embed(given)
        assert (answer.status_code, answer.json()) == (200, {"model": MODEL, "embeddings": []})

    def test_absent_input_is_no_vector(self, double):
        assert double.post("/api/embed", {"model": MODEL}).json()["embeddings"] == []

    def test_empty_text_in_a_list_has_a_vector(self, double):
        assert len(double.embed([""]).json()["embeddings"]) == 1

    @pytest.mark.parametrize("given", [1, {"a": 1}, ["a", 1], [["a"]], [[1, 2]], True])
    def test_wrong_input_type(self, double, given):
        answer = double.embed(given)
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid input type"})

    @pytest.mark.parametrize(
        "fields", [{"dimensions": "8"}, {"truncate": 1}, {"options": []}, {"model": 3}, {"dimensions": True}]
    )
    def test_wrong_field_type(self, double, fields):
        answer = double.embed("a", **fields)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("json: cannot unmarshal")

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":'])
    def test_wrong_body(self, double, body):
        answer = double.post("/api/embed", content=body)
        assert answer.status_code == 400
        assert isinstance(answer.json()["error"], str)

    def test_unknown_model(self, double):
        answer = double.embed("a", model="nope")
        assert answer.status_code == 404
        assert answer.json() == {"error": 'model "nope" not found, try pulling it first'}

    def test_only_installed_models_exist(self):
        double = Client(models=("snowflake-arctic-embed",))
        assert double.embed("a").status_code == 404
        assert double.embed("a", model="snowflake-arctic-embed").status_code == 200

    @pytest.mark.parametrize("dimensions", [1, 64, 256, 767])
    def test_dimensions_cut_and_renormalise(self, double, dimensions):
        vector = floats(double.embed("a", dimensions=dimensions).json()["embeddings"][0])
        assert vector.shape == (dimensions,)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
        assert np.array_equal(vector, expected_vector(MODEL, "a", dimensions))

    @pytest.mark.parametrize("dimensions", [0, -1, 768, 5000])
    def test_dimensions_that_cut_nothing(self, double, dimensions):
        vector = floats(double.embed("a", dimensions=dimensions).json()["embeddings"][0])
        assert np.array_equal(vector, expected_vector(MODEL, "a"))

    @pytest.mark.parametrize("model", DIMENSIONS)
    def test_overlong_text_is_cut_silently(self, double, model):
        text = "word " * 4000
        body = double.embed(text, model=model).json()
        cut = truncated(model, text)
        assert body["prompt_eval_count"] == min(KNOWN[model].context, 2048)
        assert np.array_equal(floats(body["embeddings"][0]), expected_vector(model, cut))

    def test_overlong_text_fails_the_request_without_truncate(self, double):
        texts = ["fits", "x" * (2048 * 4 + 1)]
        answer = double.embed(texts, truncate=False)
        assert answer.status_code == 400
        assert answer.json() == {"error": "the input length exceeds the context length"}
        assert double.embed("x" * 2048 * 4, truncate=False).status_code == 200

    def test_options_move_the_limit(self, double):
        text = "x" * 8192 * 4
        wide = {"num_ctx": 8192, "num_batch": 8192}
        assert double.embed(text, model="bge-m3", options=wide).json()["prompt_eval_count"] == 8192
        assert double.embed(text, model="bge-m3", options={"num_ctx": 100}).json()["prompt_eval_count"] == 100

    def test_unknown_route_and_method(self, double):
        assert double.get("/api/nothing").status_code == 404
        assert double.get("/api/embed").status_code == 405


class TestCatalogue:
    def test_tags(self, double):
        models = double.get("/api/tags").json()["models"]
        assert [model["name"] for model in models] == [f"{name}:latest" for name in DIMENSIONS]
        assert len({model["digest"] for model in models}) == 4
        assert all(len(model["digest"]) == 64 for model in models)

    def test_digest_changes_with_the_salt(self):
        digests = [Client(digest_salt=salt).get("/api/tags").json()["models"][0]["digest"] for salt in ("", "2")]
        assert digests[0] != digests[1]

    def test_show(self, double):
        body = double.post("/api/show", {"model": "all-minilm:latest"}).json()
        assert body["capabilities"] == ["embedding"]
        assert body["model_info"]["bert.embedding_length"] == 384
        assert double.post("/api/show", {"model": "nope"}).status_code == 404
        assert double.post("/api/show", {}).status_code == 400

    def test_ps_lists_what_was_used(self, double):
        assert double.get("/api/ps").json() == {"models": []}
        double.embed("a")
        assert [model["name"] for model in double.get("/api/ps").json()["models"]] == [f"{MODEL}:latest"]
        double.embed("a", keep_alive=0)
        assert double.get("/api/ps").json() == {"models": []}

    def test_version_and_root(self, double):
        assert double.get("/api/version").json() == {"version": "0.32.6"}
        assert double.get("/").text == "Ollama is running"

    def test_v1_models(self, double):
        body = double.get("/v1/models").json()
        assert body["object"] == "list"
        assert [model["id"] for model in body["data"]] == [f"{name}:latest" for name in DIMENSIONS]


class TestOpenaiProtocol:
    def test_float(self, double):
        body = double.openai(["a", "b"]).json()
        assert (body["object"], body["model"]) == ("list", MODEL)
        assert body["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
        assert [item["index"] for item in body["data"]] == [0, 1]
        vectors = floats([item["embedding"] for item in body["data"]])
        assert np.array_equal(vectors, [expected_vector(MODEL, text) for text in "ab"])

    @pytest.mark.parametrize("dimensions", [None, 100])
    def test_base64(self, double, dimensions):
        body = double.openai("a", encoding_format="base64", dimensions=dimensions).json()
        vector = np.frombuffer(base64.b64decode(body["data"][0]["embedding"]), dtype="<f4")
        assert np.array_equal(vector, expected_vector(MODEL, "a", dimensions))

    def test_empty_text_has_a_vector(self, double):
        assert len(double.openai("").json()["data"]) == 1

    @pytest.mark.parametrize(
        ("fields", "status", "kind"),
        [
            ({"input": []}, 400, "invalid_request_error"),
            ({"input": None}, 400, "invalid_request_error"),
            ({"input": [[1, 2]]}, 400, "invalid_request_error"),
            ({"encoding_format": "hex"}, 400, "invalid_request_error"),
            ({"model": "nope"}, 404, "not_found_error"),
        ],
    )
    def test_errors(self, double, fields, status, kind):
        answer = (
            double.openai(**{"texts": "a", **fields})
            if "input" not in fields
            else double.post("/v1/embeddings", {"model": MODEL, **fields})
        )
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (status, kind)
        assert set(error) == {"message", "type", "param", "code"}

    def test_api_key(self):
        double = Client(api_key="secret")
        refused = double.openai("a")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        request = {"model": MODEL, "input": "a"}
        headers = {"authorization": "Bearer secret"}
        assert double.post("/v1/embeddings", request, headers=headers).status_code == 200

    def test_rate_limit(self, double):
        double.behaviour("rate429", retry_after_s=0.25)
        answer = double.openai("a")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "0.25")
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"

    def test_shuffled_items_keep_their_index(self, double):
        double.behaviour("shuffled")
        items = double.openai(["a", "b", "c"]).json()["data"]
        assert [item["index"] for item in items] == [2, 1, 0]
        assert np.array_equal(floats(items[0]["embedding"]), expected_vector(MODEL, "c"))


class TestVectors:
    def test_distinct_texts_and_models(self):
        texts = [f"text {number}" for number in range(2000)]
        vectors = {expected_vector(MODEL, text).tobytes() for text in texts}
        assert len(vectors) == len(texts)
        assert not np.array_equal(expected_vector("bge-m3", "a"), expected_vector("mxbai-embed-large", "a"))

    def test_unrelated_texts_are_nearly_orthogonal(self):
        vectors = floats([expected_vector(MODEL, str(number)) for number in range(BANK)])
        products = vectors @ vectors.T - np.eye(BANK)
        assert np.abs(products).max() < 0.6

    def test_same_vector_in_another_process(self):
        code = "from tests.doubles.vectors import expected_vector as e; print(e('bge-m3', 'a').tobytes().hex())"
        output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
        assert output.stdout.decode().strip() == expected_vector("bge-m3", "a").tobytes().hex()


class TestMarkers:
    @pytest.mark.parametrize(
        ("marker", "status", "word"),
        [
            ("[[nan]]", 400, "failed to encode response: json: unsupported value: NaN"),
            ("[[runner400]]", 400, "EOF"),
            ("[[error500]]", 500, "runner process has terminated"),
        ],
    )
    def test_one_bad_text_fails_the_request(self, double, marker, status, word):
        answer = double.embed(["good", f"bad {marker} text", "good too"])
        assert answer.status_code == status
        assert word in answer.json()["error"]
        assert double.embed(["good", "good too"]).status_code == 200

    def test_failure_that_passes(self, double):
        texts = ["good", "bad [[runner400_once]]"]
        assert [double.embed(texts).status_code for _ in range(3)] == [400, 200, 200]

    @pytest.mark.parametrize("flaw", ["zero", "infinite", "null", "wrong_dimension"])
    def test_flaw_touches_its_own_vector_only(self, double, flaw):
        body = double.embed(["good", f"[[{flaw}]]"]).json()
        assert np.array_equal(floats(body["embeddings"][0]), expected_vector(MODEL, "good"))
        assert_flawed(flaw, body["embeddings"][1])

    def test_dead(self, double):
        with pytest.raises(ConnectionResetError):
            double.embed("[[dead]]")

    def test_own_markers(self, double):
        double.behaviour("ok", markers={"poison": "error500"})
        assert double.embed("some poison").status_code == 500
        assert double.embed("[[nan]]").status_code == 200


def assert_flawed(flaw, vector):
    if flaw == "wrong_dimension":
        assert len(vector) == 767
        return
    assert len(vector) == 768
    if flaw == "zero":
        assert not any(vector)
    else:
        assert vector[0] is None if flaw == "null" else math.isinf(vector[0])


class TestModes:
    @pytest.mark.parametrize(
        ("mode", "status"),
        [
            ("nan", 400),
            ("runner400", 400),
            ("auth401", 401),
            ("not_found404", 404),
            ("rate429", 429),
            ("error500", 500),
            ("html502", 502),
            ("busy503", 503),
        ],
    )
    @pytest.mark.parametrize("route", ["embed", "openai"])
    def test_error_modes(self, double, mode, status, route):
        double.behaviour(mode)
        answer = getattr(double, route)("a")
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html" if mode == "html502" else "application")
        assert double.get("/api/version").status_code == 200

    def test_own_words(self, double):
        double.behaviour("error500", status=507, message="full")
        answer = double.embed("a")
        assert (answer.status_code, answer.json()) == (507, {"error": "full"})

    @pytest.mark.parametrize("flaw", ["zero", "infinite", "null", "wrong_dimension"])
    def test_flaws(self, double, flaw):
        double.behaviour(flaw)
        assert_flawed(flaw, double.embed("a").json()["embeddings"][0])
        assert_flawed(flaw, double.openai("a").json()["data"][0]["embedding"])

    def test_infinity_is_a_number_on_the_wire(self, double):
        double.behaviour("infinite")
        assert b"[[1e999," in double.embed("a").content

    @pytest.mark.parametrize(("mode", "check"), [("infinite", np.isinf), ("nan", np.isnan)])
    def test_base64_carries_real_bytes(self, double, mode, check):
        double.behaviour(mode)
        item = double.openai("a", encoding_format="base64").json()["data"][0]
        vector = np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4")
        assert check(vector[0])

    @pytest.mark.parametrize(("mode", "count"), [("missing", 2), ("extra", 4)])
    def test_miscounts(self, double, mode, count):
        double.behaviour(mode)
        assert len(double.embed(["a", "b", "c"]).json()["embeddings"]) == count
        assert len(double.openai(["a", "b", "c"]).json()["data"]) == count

    def test_unreadable_answers(self, double):
        double.behaviour("empty_answer")
        assert double.embed("a").json() == {}
        double.behaviour("garbage_json")
        with pytest.raises(json.JSONDecodeError):
            double.embed("a").json()

    @pytest.mark.parametrize("mode", ["dead", "disconnect"])
    def test_hanging_up(self, double, mode):
        double.behaviour(mode)
        with pytest.raises(ConnectionResetError):
            double.embed("a")
        assert double.stats()["hung_up"] == 1

    def test_dead_touches_every_route_but_control(self, double):
        double.behaviour("dead")
        with pytest.raises(ConnectionResetError):
            double.get("/api/version")
        double.behaviour("dead", routes="embed")
        assert double.get("/api/version").status_code == 200

    def test_from_a_request_for_some(self, double):
        double.behaviour("error500", after_requests=2, for_requests=1)
        assert [double.embed("a").status_code for _ in range(4)] == [200, 200, 500, 200]

    @pytest.mark.parametrize("mode", ["slow", "zero", "error500"])
    def test_delay_comes_on_top_of_the_work(self, mode):
        double = Client(text_ms=10)
        double.behaviour(mode, delay_ms=20, only_models=[MODEL])
        floor = 0.02 if mode == "error500" else 0.03
        assert timed(double) >= floor

    def test_flapping(self, double):
        double.behaviour("flapping", period=2, flap_mode="busy503")
        assert [double.embed("a").status_code for _ in range(6)] == [200, 200, 503, 503, 200, 200]

    def test_only_some_models(self, double):
        double.behaviour("error500", only_models=["bge-m3:latest"])
        assert double.embed("a").status_code == 200
        assert double.embed("a", model="bge-m3").status_code == 500

    def test_routes_all(self, double):
        double.behaviour("error500", routes="all")
        assert double.get("/api/tags").status_code == 500

    @pytest.mark.parametrize(
        "wrong",
        [{"mode": "nope"}, {"who": 1}, {"period": 0}, {"markers": {"a": "nope"}}, {"routes": "some"}],
    )
    def test_wrong_behaviours_are_refused_and_change_nothing(self, double, wrong):
        double.behaviour("error500")
        assert double.post("/_double/behaviour", wrong).status_code == 400
        assert double.embed("a").status_code == 500

    def test_reset(self, double):
        double.behaviour("error500")
        double.embed("a")
        double.post("/_double/reset")
        assert double.stats()["requests"] == 0
        assert double.embed("a").status_code == 200

    def test_every_mode_can_be_set(self):
        assert {Behaviour.parse({"mode": mode}).mode for mode in MODES} == MODES


def timed(double):
    begin = time.monotonic()
    double.embed("a")
    return time.monotonic() - begin


def gathered(double, count):
    async def ask():
        request = {"model": MODEL, "input": "a"}
        return await asyncio.gather(*(double.send("POST", "/api/embed", json=request) for _ in range(count)))

    return sorted(answer.status_code for answer in asyncio.run(ask()))


class TestLoading:
    def test_busy_only_while_loading(self):
        double = Client(load_ms=100)
        assert gathered(double, 3) == [200, 503, 503]
        assert gathered(double, 3) == [200, 200, 200]

    def test_some_may_wait_for_the_load(self):
        assert gathered(Client(load_ms=100, max_queue=1), 3) == [200, 200, 503]

    def test_mode_unloads_once(self, double):
        double.embed("a")
        double.behaviour("loading", delay_ms=100)
        assert gathered(double, 2) == [200, 503]
        assert gathered(double, 2) == [200, 200]

    def test_changed_runner_options_reload(self, double):
        for options in ({"num_ctx": 512}, {"num_ctx": 512, "seed": 1}, {"num_ctx": 1024}, {}):
            double.embed("a", options=options)
        assert double.stats()["loads"] == {MODEL: 3}


class TestStats:
    def test_texts_are_counted(self, double):
        double.embed(["a", "b"])
        double.embed(["a", "[[nan]]"])
        stats = double.stats()
        assert stats["received_counts"] == {MODEL: {"a": 2, "b": 1, "[[nan]]": 1}}
        assert stats["embedded_counts"] == {MODEL: {"a": 1, "b": 1}}
        assert (stats["max_text_count"], stats["max_embedded_count"]) == (2, 1)
        assert (stats["requests"], stats["texts_received"], stats["texts_embedded"]) == (2, 4, 2)
        assert (stats["batch_sizes"], stats["statuses"]) == ({"2": 2}, {"200": 1, "400": 1})

    def test_what_was_asked_for(self, double):
        request = {"model": MODEL, "input": "a", "keep_alive": "5m", "options": {"num_thread": 2}}
        double.post("/api/embed", request, headers={"traceparent": "00-ab"})
        stats = double.stats()
        assert stats["last_headers"]["traceparent"] == "00-ab"
        asked = {name: value for name, value in request.items() if name != "input"}
        assert stats["recent"] == [{"path": "/api/embed", "texts": 1, **asked}]

    def test_counts_are_bounded(self):
        double = Client(track_texts=2)
        for text in "abcd":
            double.embed(text)
        assert double.stats()["distinct_texts"] == 2
        assert double.stats()["texts_untracked"] == 2
        assert "received_counts" not in double.get("/_double/stats?text_counts=0").json()


class Clock:
    """A clock whose sleeps end late; a caller that never leaves."""

    def __init__(self, overshoot):
        self.now = 0.0
        self.overshoot = overshoot

    def monotonic(self):
        return self.now

    async def sleep(self, seconds):
        if seconds > 0:
            self.now += seconds + self.overshoot


class TestPacing:
    @pytest.mark.parametrize("queued", [True, False])
    @pytest.mark.parametrize("overshoot", [0.003, -0.0005])
    def test_the_average_rate_is_exact(self, monkeypatch, overshoot, queued):
        clock = Clock(overshoot)
        monkeypatch.setattr(pacing, "time", clock)
        slot = Slot()

        async def run():
            for _ in range(100):
                await slot.occupy(clock, 0.0 if queued else clock.now, 0.131)

        asyncio.run(run())
        assert clock.now == pytest.approx(13.1, abs=0.004)

    def test_an_idle_slot_saves_nothing_up(self, monkeypatch):
        clock = Clock(0.0)
        monkeypatch.setattr(pacing, "time", clock)
        clock.now = 100.0
        asyncio.run(Slot().occupy(clock, clock.now, 0.5))
        assert clock.now == 100.5

    def test_requests_beyond_the_slots_wait(self):
        double = Client(slots=2, text_ms=5)
        assert gathered(double, 6) == [200] * 6
        stats = double.stats()
        assert (stats["max_running"], stats["max_in_flight"]) == (2, 6)

    def test_who_leaves_the_queue_makes_room(self):
        double = Client(text_ms=5)
        sent = asyncio.run(abandoned_beside_a_hung_slot(double.app))
        assert sent == ["first", "third"]
        assert double.stats()["abandoned"] == 1

    def test_slots_are_passed_on_in_order(self):
        async def run():
            slots, order = Slots(1), []
            held = await slots.acquire(Patient())

            async def queue(name):
                slot = await slots.acquire(Patient())
                order.append(name)
                slots.release(slot)

            tasks = [asyncio.create_task(queue(name)) for name in range(3)]
            await asyncio.sleep(0)
            slots.release(held)
            await asyncio.gather(*tasks)
            return order

        assert asyncio.run(run()) == [0, 1, 2]


class Patient:
    async def until(self, future):
        await future


async def abandoned_beside_a_hung_slot(app):
    """Ask three times at once of one slot; the second client hangs up at once."""
    finished = []

    async def ask(name, leaves):
        body = json.dumps({"model": MODEL, "input": name}).encode()
        messages = [{"type": "http.request", "body": body}]

        async def receive():
            if messages:
                return messages.pop()
            if not leaves:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.body":
                finished.append(name)

        scope = {"type": "http", "method": "POST", "path": "/api/embed", "headers": []}
        await app(scope, receive, send)

    await asyncio.gather(ask("first", False), ask("second", True), ask("third", False))
    return finished


@pytest.fixture(scope="module")
def process():
    with OllamaProcess(slots=2) as running:
        yield running


@pytest.fixture
def server(process):
    process.reset()
    return process


class TestProcess:
    def embed(self, server, timeout=10.0):
        return httpx.post(
            f"{server.url}/api/embed",
            json={"model": MODEL, "input": "a"},
            timeout=timeout,
            trust_env=False,
        )

    def test_embed_and_stats(self, server):
        assert np.array_equal(floats(self.embed(server).json()["embeddings"][0]), expected_vector(MODEL, "a"))
        assert server.stats()["embedded_counts"] == {MODEL: {"a": 1}}

    def test_the_real_openai_client(self, server):
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            data = client.embeddings.create(model=MODEL, input=["a", "b"]).data
            assert np.array_equal(floats(data[1].embedding), expected_vector(MODEL, "b"))
            server.behaviour("rate429")
            with pytest.raises(openai.RateLimitError):
                client.embeddings.create(model=MODEL, input=["a"])

    def test_dead_closes_the_connection(self, server):
        server.behaviour("dead")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            self.embed(server)

    def test_disconnect_closes_it_midway(self, server):
        server.behaviour("disconnect")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            self.embed(server)

    def test_hang_lasts_as_long_as_the_client(self, server):
        server.behaviour("hang", for_requests=1)
        with pytest.raises(httpx.ReadTimeout):
            self.embed(server, timeout=0.05)
        assert self.embed(server).status_code == 200

    def test_unknown_behaviours_raise(self, server):
        with pytest.raises(DoubleFailedError, match="unknown mode"):
            server.behaviour("nope")

    def test_kill_and_restart_on_the_same_port(self):
        with OllamaProcess() as own:
            url, pid = own.url, own.pid
            own.kill()
            with pytest.raises(httpx.ConnectError):
                self.embed(own)
            own.restart_same_port()
            assert (own.url, own.pid != pid) == (url, True)
            assert self.embed(own).status_code == 200

    def test_bad_settings_are_told(self):
        with pytest.raises(DoubleFailedError, match="exit code"):
            OllamaProcess(models=("nope",))

    def test_it_dies_with_its_parent(self):
        code = (
            "import os\n"
            "from tests.doubles.process import OllamaProcess\n"
            "print(OllamaProcess().pid, flush=True)\n"
            "os._exit(1)\n"
        )
        # the double inherits this pipe's writing end for its stderr: the end of the pipe is its death
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as pipe:
            parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=writing)
            os.close(writing)
            assert parent.wait(30) == 1
            assert pipe.read() == b""
