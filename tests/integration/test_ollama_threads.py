"""The number of threads that calls ask Ollama to compute with."""

import pytest

from tests.support.worker import WorkerProcess

TASK = "generate_embedding"


@pytest.fixture(scope="module", autouse=True)
def six_threads(redis_url, ollama):
    """A worker whose Ollama is pinned to six processors."""
    ollama.reset()
    with WorkerProcess(redis_url, ollama.url, EMBEDDINGS__BACKENDS__main__THREADS=6) as process:
        yield process


def options_of(double) -> dict[str, int]:
    return double.stats()["recent"][-1]["options"]


def test_each_call_sends_num_thread_beside_the_options_that_the_model_pins(plain, double):
    plain.call(TASK, "six threads", "nomic-embed-text")
    assert options_of(double) == {"num_ctx": 2048, "num_thread": 6}


def test_an_option_of_the_request_overrides_the_setting(plain, double):
    plain.call(TASK, "two threads", "nomic-embed-text", {"num_thread": 2})
    assert options_of(double)["num_thread"] == 2


def test_cached_vectors_stay_valid_when_the_number_of_threads_changes(plain, redis_url, double, six_threads):
    plain.call(TASK, "cached", "nomic-embed-text")
    six_threads.terminate()
    with WorkerProcess(redis_url, double.url, EMBEDDINGS__BACKENDS__main__THREADS=2):
        assert plain.call(TASK, "cached", "nomic-embed-text")["cache_hits"] == 1
