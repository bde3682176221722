"""The contract of the tasks, as seen by a Celery client that knows only a broker URL and the tasks' names."""

import base64
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.doubles.ollama.vectors import expected_vector
from tests.support.assertions import assert_vectors

GENERATED = {
    "success", "task_id", "embeddings", "model_used", "cache_hits", "total_texts", "cache_hit_rate",
    "processing_time_ms", "timestamp",
}  # fmt: skip
BATCHED = {
    "success", "task_id", "total_processed", "failed_requests", "batch_results", "processing_time_ms",
    "average_time_per_request", "timestamp",
}  # fmt: skip
WARMED = {"success", "task_id", "cache_warming_results", "processing_time_ms", "timestamp"}
MODELS = {"nomic-embed-text": 768, "mxbai-embed-large": 1024, "bge-m3": 1024, "all-minilm": 384}


@pytest.fixture(autouse=True)
def fresh(store, double, worker):
    """An empty store and a healthy double for each test."""
    store.flushall()
    return worker


def assert_now(timestamp):
    moment = datetime.fromisoformat(timestamp)
    assert moment.utcoffset() == timedelta(0)
    assert timedelta(0) <= datetime.now(UTC) - moment < timedelta(minutes=2)


class TestGenerateEmbedding:
    def test_one_text_gives_one_vector_under_the_documented_keys(self, plain):
        task = plain.send("generate_embedding", "hello")
        result = task.get(timeout=60)
        assert result.keys() >= GENERATED
        assert_vectors(result, ["hello"])
        assert (result["success"], result["task_id"], result["errors"]) == (True, task.id, [])
        assert (result["model_used"], result["dimensions"]) == ("nomic-embed-text", 768)
        assert (result["total_texts"], result["cache_hits"], result["cache_hit_rate"]) == (1, 0, 0.0)
        assert result["processing_time_ms"] > 0
        assert_now(result["timestamp"])

    def test_positional_arguments_have_the_order_of_the_contract(self, plain):
        result = plain.call("generate_embedding", ["a", "b"], "all-minilm", {"num_thread": 1}, False)
        assert_vectors(result, ["a", "b"], "all-minilm")
        assert plain.call("generate_embedding", "a", "all-minilm", {"num_thread": 1}, True)["cache_hits"] == 0

    def test_arguments_may_be_given_by_name(self, plain):
        result = plain.call(
            "generate_embedding", text=["a"], model="bge-m3", options={"num_thread": 1}, cache_enabled=True
        )
        assert_vectors(result, ["a"], "bge-m3")

    @pytest.mark.parametrize(("model", "dimensions"), MODELS.items())
    @pytest.mark.parametrize("tag", ["", ":latest"])
    def test_each_built_in_model_gives_its_dimensions(self, plain, model, dimensions, tag):
        result = plain.call("generate_embedding", ["a", "b"], model=model + tag)
        assert_vectors(result, ["a", "b"], model)
        assert (result["model_used"], result["dimensions"]) == (model, dimensions)

    def test_vector_i_belongs_to_text_i_with_hits_and_duplicates(self, plain):
        plain.call("generate_embedding", ["b", "d"])
        texts = ["a", "b", "a", "c", "d", "b", "a"]
        result = plain.call("generate_embedding", texts)
        assert_vectors(result, texts)
        assert (result["cache_hits"], result["total_texts"]) == (3, 7)
        assert result["cache_hit_rate"] == pytest.approx(3 / 7)

    def test_a_request_with_the_cache_disabled_neither_reads_nor_writes_it(self, plain, double):
        for _ in range(2):
            assert plain.call("generate_embedding", "x", cache_enabled=False)["cache_hits"] == 0
        assert plain.call("generate_embedding", "x")["cache_hits"] == 0
        assert double.stats()["embedded_counts"] == {"nomic-embed-text": {"x": 3}}

    @pytest.mark.parametrize("model", ["nomic-embed-text", "mxbai-embed-large"])
    def test_dimensions_shorten_the_vectors(self, plain, model):
        result = plain.call("generate_embedding", ["a", "b"], model=model, dimensions=64)
        assert_vectors(result, ["a", "b"], model, dimensions=64)
        assert result["dimensions"] == 64

    def test_dimensions_are_cached_apart(self, plain):
        for dimensions in (None, 256, 64):
            result = plain.call("generate_embedding", "a", dimensions=dimensions)
            assert_vectors(result, ["a"], dimensions=dimensions)
            assert result["cache_hits"] == 0
        assert plain.call("generate_embedding", "a", dimensions=768)["cache_hits"] == 1

    @pytest.mark.parametrize(
        ("model", "kind", "prefix"),
        [
            ("nomic-embed-text", "query", "search_query: "),
            ("nomic-embed-text", "document", "search_document: "),
            ("mxbai-embed-large", "query", "Represent this sentence for searching relevant passages: "),
            ("mxbai-embed-large", "document", ""),
            ("bge-m3", "query", ""),
        ],
    )
    def test_input_type_adds_the_models_prefix(self, plain, model, kind, prefix):
        result = plain.call("generate_embedding", ["x", "y"], model=model, input_type=kind)
        assert_vectors(result, [prefix + "x", prefix + "y"], model)

    def test_options_reach_the_backend_beside_the_pinned_ones(self, plain, double):
        plain.call("generate_embedding", "x", options={"num_thread": 3})
        assert double.stats()["recent"][-1]["options"] == {"num_ctx": 2048, "num_thread": 3}

    def test_options_are_cached_apart(self, plain):
        plain.call("generate_embedding", "x", options={"seed": 1})
        assert plain.call("generate_embedding", "x", options={"seed": 2})["cache_hits"] == 0
        assert plain.call("generate_embedding", "x", options={"seed": 1})["cache_hits"] == 1

    @pytest.mark.parametrize("dimensions", [None, 100])
    def test_base64_and_float_are_the_same_numbers(self, plain, dimensions):
        asked = {"dimensions": dimensions}
        packed = plain.call("generate_embedding", ["a", "b"], encoding_format="base64", **asked)["embeddings"]
        floats = plain.call("generate_embedding", ["a", "b"], encoding_format="float", **asked)["embeddings"]
        vectors = [np.frombuffer(base64.b64decode(text), dtype="<f4") for text in packed]
        assert np.array_equal(vectors, np.asarray(floats, dtype=np.float32))
        assert_vectors({"embeddings": vectors}, ["a", "b"], dimensions=dimensions)

    def test_tokens_are_the_backends_count(self, plain):
        texts = ["four", "eight888", "four"]
        assert plain.call("generate_embedding", texts)["total_tokens"] == 3
        assert plain.call("generate_embedding", texts)["total_tokens"] == 0

    @pytest.mark.parametrize("text", ["\x00", "naïve", "日本語", "🦜" * 50, " ", "\n\t", "a\u0000b", "\u202e"])
    def test_any_text_in_unicode_gets_its_vector(self, plain, text):
        assert_vectors(plain.call("generate_embedding", [text, "other"]), [text, "other"])

    def test_long_lists_keep_their_order(self, plain):
        texts = [f"text {n % 700}" for n in range(2048)]
        assert_vectors(plain.call("generate_embedding", texts), texts)

    def test_an_overlong_text_is_cut_and_reported(self, plain):
        texts = ["short", "word " * 4000, "also short"]
        result = plain.call("generate_embedding", texts)
        assert (result["success"], result["truncated"]) == (True, [1])
        assert_vectors(result, [texts[0], texts[1][: 2048 * 4], texts[2]])

    def test_a_client_without_citadel_reads_results_and_errors(self, redis_url):
        command = [sys.executable, "-m", "tests.support.programs.foreign_client", redis_url]
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        success, error = output.stdout.splitlines()
        assert success == "True"
        assert error.startswith("InvalidInput text: is empty")


class TestBatch:
    def test_results_have_the_order_of_the_requests(self, plain):
        requests = [{"text": f"text {n}", "request_id": n} for n in range(25)]
        requests[3] = {"text": ["two", "texts"], "model": "all-minilm", "request_id": "three", "dimensions": None}
        requests[4] = {"text": "no id"}
        task = plain.send("batch_generate_embeddings", requests, batch_size=10)
        result = task.get(timeout=60)
        assert result.keys() >= BATCHED
        assert [item["request_id"] for item in result["batch_results"]] == [r.get("request_id") for r in requests]
        for request, item in zip(requests, result["batch_results"], strict=True):
            texts = request["text"] if isinstance(request["text"], list) else [request["text"]]
            assert item["result"].keys() >= GENERATED
            assert_vectors(item["result"], texts, request.get("model", "nomic-embed-text"))
        assert (result["success"], result["task_id"]) == (True, task.id)
        assert (result["total_requests"], result["total_processed"], result["failed_requests"]) == (25, 25, 0)
        assert result["average_time_per_request"] == pytest.approx(result["processing_time_ms"] / 25)
        assert_now(result["timestamp"])

    def test_progress_is_reported(self, plain):
        states = []
        task = plain.send("batch_generate_embeddings", [{"text": f"p{n}"} for n in range(30)], 10)
        task.get(timeout=30, on_message=lambda message: states.append((message["status"], message["result"])))
        progress = [meta for status, meta in states if status == "PROGRESS"]
        assert progress[-1] == {"processed": 30, "total": 30, "percent": 100.0}
        assert progress == sorted(progress, key=lambda meta: meta["processed"])
        assert all(meta["percent"] == pytest.approx(meta["processed"] / 30 * 100) for meta in progress)
        assert states[-1][0] == "SUCCESS"

    def test_a_bad_request_fails_alone(self, plain):
        requests = [
            {"text": "good", "request_id": "good"},
            {"text": "bad [[nan]]", "request_id": "nan"},
            {"text": "", "request_id": "empty"},
            {"text": "x", "model": "nope", "request_id": "model"},
            {"text": ["good too", "[[nan]]"], "request_id": "half"},
            {"text": "x", "dimensions": 5000, "request_id": "dimensions"},
        ]
        result = plain.call("batch_generate_embeddings", requests)
        items = {item["request_id"]: item["result"] for item in result["batch_results"]}
        assert (result["success"], result["failed_requests"], result["total_processed"]) == (False, 4, 6)
        assert_vectors(items["good"], ["good"])
        codes = {name: item["error"]["code"] for name, item in items.items() if "error" in item}
        assert codes == {
            "nan": "text_rejected", "empty": "invalid_input", "model": "model_not_found", "dimensions": "invalid_input"
        }  # fmt: skip
        assert np.allclose(items["half"]["embeddings"][0], expected_vector("nomic-embed-text", "good too"), atol=1e-6)
        assert items["half"]["embeddings"][1] is None
        assert [(error["index"], error["code"]) for error in items["half"]["errors"]] == [(1, "text_rejected")]

    def test_duplicates_across_requests_are_computed_once(self, plain, double):
        plain.call("batch_generate_embeddings", [{"text": f"t{n % 5}"} for n in range(100)], 7)
        assert double.stats()["embedded_counts"] == {"nomic-embed-text": {f"t{n}": 1 for n in range(5)}}


class TestWarming:
    def test_named_models_are_warmed(self, plain, double):
        plain.call("generate_embedding", "a", model="bge-m3")
        task = plain.send("warm_embedding_cache", ["a", "b"], ["bge-m3", "all-minilm"])
        result = task.get(timeout=60)
        assert result.keys() >= WARMED
        assert result["cache_warming_results"] == {"warmed": 3, "skipped": 1, "errors": 0}
        assert (result["success"], result["task_id"], result["models"]) == (True, task.id, ["bge-m3", "all-minilm"])
        assert_now(result["timestamp"])
        double.behaviour("dead")
        assert plain.call("generate_embedding", ["a", "b"], model="all-minilm")["cache_hits"] == 2

    def test_every_known_model_is_warmed_by_default(self, plain):
        result = plain.call("warm_embedding_cache", texts=["w"])
        assert result["models"] == list(MODELS)
        assert result["cache_warming_results"] == {"warmed": 4, "skipped": 0, "errors": 0}

    def test_failing_texts_are_counted(self, plain):
        result = plain.call("warm_embedding_cache", ["fine", "[[nan]] text"], ["nomic-embed-text"])
        assert (result["success"], result["cache_warming_results"]["errors"]) == (False, 1)
        assert result["cache_warming_results"]["warmed"] == 1

    def test_progress_is_reported(self, plain):
        states = []
        task = plain.send("warm_embedding_cache", [f"w{n}" for n in range(300)], ["all-minilm"])
        task.get(timeout=30, on_message=lambda message: states.append((message["status"], message["result"])))
        last = [meta for status, meta in states if status == "PROGRESS"][-1]
        assert last == {"processed": 300, "total": 300, "percent": 100.0}
