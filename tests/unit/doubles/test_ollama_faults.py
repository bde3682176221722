"""Ollama's double: its faults."""

import base64
import json
import math
import time

import numpy as np
import pytest

from tests.doubles.ollama.behaviour import OllamaBehaviour
from tests.doubles.ollama.vectors import expected_vector
from tests.support.double_client import MODEL, Client, floats, gathered


@pytest.fixture
def double():
    return Client()


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

    def test_a_text_can_fail_its_first_request_only(self, double):
        texts = ["good", "bad [[runner400_once]]"]
        assert [double.embed(texts).status_code for _ in range(3)] == [400, 200, 200]

    @pytest.mark.parametrize("flaw", ["zero", "infinite", "null", "wrong_dimension"])
    def test_flaw_touches_its_own_vector_only(self, double, flaw):
        body = double.embed(["good", f"[[{flaw}]]"]).json()
        assert np.array_equal(floats(body["embeddings"][0]), expected_vector(MODEL, "good"))
        assert_flawed(flaw, body["embeddings"][1])

    def test_a_text_can_end_the_connection(self, double):
        with pytest.raises(ConnectionResetError):
            double.embed("[[dead]]")

    def test_markers_can_be_replaced(self, double):
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
    def test_error_modes_have_their_status_on_every_embedding_route(self, double, mode, status, route):
        double.behaviour(mode)
        answer = getattr(double, route)("a")
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html" if mode == "html502" else "application")
        assert double.get("/api/version").status_code == 200

    def test_an_error_can_have_another_status_and_message(self, double):
        double.behaviour("error500", status=507, message="full")
        answer = double.embed("a")
        assert (answer.status_code, answer.json()) == (507, {"error": "full"})

    @pytest.mark.parametrize("flaw", ["zero", "infinite", "null", "wrong_dimension"])
    def test_flaw_modes_touch_every_vector(self, double, flaw):
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
    def test_answers_can_have_too_few_or_too_many_vectors(self, double, mode, count):
        double.behaviour(mode)
        assert len(double.embed(["a", "b", "c"]).json()["embeddings"]) == count
        assert len(double.openai(["a", "b", "c"]).json()["data"]) == count

    def test_answers_can_be_empty_or_not_json(self, double):
        double.behaviour("empty_answer")
        assert double.embed("a").json() == {}
        double.behaviour("garbage_json")
        with pytest.raises(json.JSONDecodeError):
            double.embed("a").json()

    @pytest.mark.parametrize("mode", ["dead", "disconnect"])
    def test_hanging_up_is_counted(self, double, mode):
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

    def test_a_mode_can_touch_a_range_of_requests(self, double):
        double.behaviour("error500", after_requests=2, for_requests=1)
        assert [double.embed("a").status_code for _ in range(4)] == [200, 200, 500, 200]

    @pytest.mark.parametrize("mode", ["slow", "zero", "error500"])
    def test_delay_comes_on_top_of_the_work(self, mode):
        double = Client(text_ms=10)
        double.behaviour(mode, delay_ms=20, only_models=[MODEL])
        floor = 0.02 if mode == "error500" else 0.03
        assert timed(double) >= floor

    def test_flapping_alternates_between_phases(self, double):
        double.behaviour("flapping", period=2, flap_mode="busy503")
        assert [double.embed("a").status_code for _ in range(6)] == [200, 200, 503, 503, 200, 200]

    def test_a_mode_can_touch_only_some_models(self, double):
        double.behaviour("error500", only_models=["bge-m3:latest"])
        assert double.embed("a").status_code == 200
        assert double.embed("a", model="bge-m3").status_code == 500

    def test_a_mode_can_touch_every_route(self, double):
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

    def test_reset_heals_and_counts_from_0(self, double):
        double.behaviour("error500")
        double.embed("a")
        double.post("/_double/reset")
        assert double.stats()["requests"] == 0
        assert double.embed("a").status_code == 200

    def test_every_mode_can_be_set(self):
        assert {OllamaBehaviour.parse({"mode": mode}).mode for mode in OllamaBehaviour.MODES} == OllamaBehaviour.MODES


def timed(double):
    begin = time.monotonic()
    double.embed("a")
    return time.monotonic() - begin


class TestLoading:
    def test_busy_only_while_loading(self):
        double = Client(load_ms=100)
        assert gathered(double, 3) == [200, 503, 503]
        assert gathered(double, 3) == [200, 200, 200]

    def test_some_may_wait_for_the_load(self):
        assert gathered(Client(load_ms=100, max_queue=1), 3) == [200, 200, 503]

    def test_the_loading_mode_unloads_a_model_once(self, double):
        double.embed("a")
        double.behaviour("loading", delay_ms=100)
        assert gathered(double, 2) == [200, 503]
        assert gathered(double, 2) == [200, 200]

    def test_changed_runner_options_reload(self, double):
        for options in ({"num_ctx": 512}, {"num_ctx": 512, "seed": 1}, {"num_ctx": 1024}, {}):
            double.embed("a", options=options)
        assert double.stats()["loads"] == {MODEL: 3}
