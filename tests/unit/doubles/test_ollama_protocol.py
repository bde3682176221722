"""Ollama's double: its wire protocols."""

import base64
import subprocess
import sys

import numpy as np
import pytest

from tests.doubles.ollama.models import KNOWN, count_tokens, truncated
from tests.doubles.ollama.vectors import BANK, expected_vector
from tests.doubles.process import ROOT
from tests.support.double_client import MODEL, Client, floats

DIMENSIONS = {"nomic-embed-text": 768, "mxbai-embed-large": 1024, "bge-m3": 1024, "all-minilm": 384}


@pytest.fixture
def double():
    return Client()


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
    def test_each_model_gives_its_own_vectors(self, double, model, dimensions, tag):
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
    def test_input_of_a_wrong_type_is_refused(self, double, given):
        answer = double.embed(given)
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid input type"})

    @pytest.mark.parametrize(
        "fields", [{"dimensions": "8"}, {"truncate": 1}, {"options": []}, {"model": 3}, {"dimensions": True}]
    )
    def test_a_field_of_a_wrong_type_is_refused(self, double, fields):
        answer = double.embed("a", **fields)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("json: cannot unmarshal")

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model":'])
    def test_a_body_that_is_not_an_object_is_refused(self, double, body):
        answer = double.post("/api/embed", content=body)
        assert answer.status_code == 400
        assert isinstance(answer.json()["error"], str)

    def test_an_unknown_model_is_not_found(self, double):
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
    def test_dimensions_beyond_the_models_own_cut_nothing(self, double, dimensions):
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

    def test_unknown_routes_and_methods_are_refused(self, double):
        assert double.get("/api/nothing").status_code == 404
        assert double.get("/api/embed").status_code == 405


class TestCatalogue:
    def test_tags_list_the_installed_models(self, double):
        models = double.get("/api/tags").json()["models"]
        assert [model["name"] for model in models] == [f"{name}:latest" for name in DIMENSIONS]
        assert len({model["digest"] for model in models}) == 4
        assert all(len(model["digest"]) == 64 for model in models)

    def test_digest_changes_with_the_salt(self):
        digests = [Client(digest_salt=salt).get("/api/tags").json()["models"][0]["digest"] for salt in ("", "2")]
        assert digests[0] != digests[1]

    def test_show_describes_an_installed_model(self, double):
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

    def test_version_and_root_are_those_of_ollama(self, double):
        assert double.get("/api/version").json() == {"version": "0.32.6"}
        assert double.get("/").text == "Ollama is running"

    def test_v1_models_list_the_installed_models(self, double):
        body = double.get("/v1/models").json()
        assert body["object"] == "list"
        assert [model["id"] for model in body["data"]] == [f"{name}:latest" for name in DIMENSIONS]


class TestOpenaiProtocol:
    def test_vectors_come_as_lists_of_floats(self, double):
        body = double.openai(["a", "b"]).json()
        assert (body["object"], body["model"]) == ("list", MODEL)
        assert body["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
        assert [item["index"] for item in body["data"]] == [0, 1]
        vectors = floats([item["embedding"] for item in body["data"]])
        assert np.array_equal(vectors, [expected_vector(MODEL, text) for text in "ab"])

    @pytest.mark.parametrize("dimensions", [None, 100])
    def test_vectors_come_as_base64_on_demand(self, double, dimensions):
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
    def test_errors_have_openais_form(self, double, fields, status, kind):
        answer = (
            double.openai(**{"texts": "a", **fields})
            if "input" not in fields
            else double.post("/v1/embeddings", {"model": MODEL, **fields})
        )
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (status, kind)
        assert set(error) == {"message", "type", "param", "code"}

    def test_a_wrong_api_key_is_refused(self):
        double = Client(api_key="secret")
        refused = double.openai("a")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        request = {"model": MODEL, "input": "a"}
        headers = {"authorization": "Bearer secret"}
        assert double.post("/v1/embeddings", request, headers=headers).status_code == 200

    def test_a_rate_limit_says_when_to_try_again(self, double):
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
    def test_distinct_texts_and_models_have_distinct_vectors(self):
        texts = [f"text {number}" for number in range(2000)]
        vectors = {expected_vector(MODEL, text).tobytes() for text in texts}
        assert len(vectors) == len(texts)
        assert not np.array_equal(expected_vector("bge-m3", "a"), expected_vector("mxbai-embed-large", "a"))

    def test_unrelated_texts_are_nearly_orthogonal(self):
        vectors = floats([expected_vector(MODEL, str(number)) for number in range(BANK)])
        products = vectors @ vectors.T - np.eye(BANK)
        assert np.abs(products).max() < 0.6

    def test_a_vector_is_the_same_in_another_process(self):
        command = [sys.executable, "-m", "tests.support.programs.print_vector", "bge-m3", "a"]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        assert output.stdout.decode().strip() == expected_vector("bge-m3", "a").tobytes().hex()
