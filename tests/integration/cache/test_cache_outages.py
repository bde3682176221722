"""Callers get their vectors while the cache is slow, emptied or down."""

from tests.support.assertions import assert_vectors
from tests.support.polling import eventually

TASK = "generate_embedding"


class TestOutages:
    def test_a_slow_cache_is_bypassed_and_used_again(self, plain, cache_server):
        plain.call(TASK, ["a"])
        with cache_server.frozen():
            assert_vectors(plain.call(TASK, ["a", "b"]), ["a", "b"])

        def read_again():
            return plain.call(TASK, ["a"])["cache_hits"] == 1

        eventually(read_again)

    def test_a_cache_that_is_flushed_during_a_task_costs_no_text(self, plain, double, cache):
        double.behaviour("slow", delay_ms=30)
        texts = [f"flushed {n}" for n in range(300)]
        task = plain.send(TASK, texts)
        eventually(lambda: double.stats()["requests"] >= 2)
        cache.flushall()
        assert_vectors(task.get(timeout=60), texts)

    def test_a_cache_that_is_down_is_bypassed_and_used_again(self, plain, cache, cache_server, workers):
        cache.close()
        plain.call(TASK, ["a"])
        cache_server.kill()
        for _ in range(2):
            assert_vectors(plain.call(TASK, ["a", "b", "a"]), ["a", "b", "a"])
            batch = plain.call("batch_generate_embeddings", [{"text": "a"}, {"text": "b"}])
            assert batch["success"]
        cache_server.restart()

        def used_again():
            plain.call(TASK, ["again"])
            return plain.call(TASK, ["again"])["cache_hits"]

        eventually(used_again)
        assert not any(worker.is_over for worker in workers)
