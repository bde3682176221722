"""The embedding cache and single flight, across two workers."""

import pytest

from tests.support.assertions import assert_vectors

TASK = "generate_embedding"
COUNTS = "nomic-embed-text"


def embedded(double):
    return double.stats()["embedded_counts"].get(COUNTS, {})


class TestHits:
    def test_cached_texts_do_not_reach_the_backend(self, plain, double):
        texts = [f"text {n}" for n in range(50)]
        plain.call(TASK, texts)
        double.reset()
        double.behaviour("dead")
        result = plain.call(TASK, texts)
        assert_vectors(result, texts)
        assert (result["cache_hits"], result["cache_hit_rate"]) == (50, 1.0)
        assert double.stats()["requests"] == 0

    def test_entries_expire_after_seven_days(self, plain, cache):
        plain.call(TASK, ["a"])
        [key] = [key for key in cache.keys("citadel:embedding:*") if not key.endswith(b":claim")]
        assert 7 * 24 * 3600 - 600 < cache.ttl(key) <= 7 * 24 * 3600

    @pytest.mark.parametrize("value", [b"", b"\x01", b"\x01abc", b"\x7f" + b"\x00" * 3072, b"\x01" + b"\x00" * 3072])
    def test_a_damaged_entry_is_computed_anew(self, plain, cache, value):
        plain.call(TASK, ["a"])
        [key] = [key for key in cache.keys("citadel:embedding:*") if not key.endswith(b":claim")]
        cache.set(key, value)
        result = plain.call(TASK, ["a"])
        assert_vectors(result, ["a"])
        assert result["cache_hits"] == 0
        assert plain.call(TASK, ["a"])["cache_hits"] == 1

    def test_an_entry_of_a_wrong_length_is_computed_anew(self, plain, cache):
        plain.call(TASK, ["a"])
        [key] = [key for key in cache.keys("citadel:embedding:*") if not key.endswith(b":claim")]
        cache.set(key, cache.get(key)[: 1 + 4 * 100])
        assert_vectors(plain.call(TASK, ["a"]), ["a"])

    def test_no_claim_is_left_after_an_answer(self, plain, cache):
        plain.call(TASK, ["good", "[[nan]]"])
        assert cache.keys("*:claim") == []


class TestSingleFlight:
    def test_concurrent_tasks_on_two_workers_compute_a_text_once(self, plain, double):
        double.behaviour("slow", delay_ms=150)
        texts = [f"shared {n}" for n in range(10)]
        tasks = [plain.send(TASK, texts) for _ in range(80)]
        for task in tasks:
            assert_vectors(task.get(timeout=60), texts)
        assert embedded(double) == dict.fromkeys(texts, 1)

    def test_overlapping_lists_compute_each_text_once(self, plain, double):
        double.behaviour("slow", delay_ms=50)
        lists = [[f"overlap {(start + n) % 40}" for n in range(20)] for start in range(40)]
        tasks = [plain.send(TASK, texts) for texts in lists]
        for task, texts in zip(tasks, lists, strict=True):
            assert_vectors(task.get(timeout=60), texts)
        assert max(embedded(double).values()) == 1

    def test_batches_and_single_tasks_compute_a_common_text_once(self, plain, double):
        double.behaviour("slow", delay_ms=50)
        batches = [
            plain.send("batch_generate_embeddings", [{"text": f"met {n}"} for n in range(30)], 7) for _ in range(4)
        ]
        singles = [plain.send(TASK, f"met {n}") for n in range(30)]
        for n, task in enumerate(singles):
            assert_vectors(task.get(timeout=60), [f"met {n}"])
        for task in batches:
            assert task.get(timeout=60)["success"]
        assert max(embedded(double).values()) == 1

    def test_a_failure_is_not_kept_for_a_later_request(self, plain, double):
        double.behaviour("zero")
        plain.error(TASK, "shaky")
        double.behaviour("ok")
        assert_vectors(plain.call(TASK, "shaky"), ["shaky"])

    def test_a_claim_whose_holder_died_lapses(self, plain, double, cache):
        plain.call(TASK, ["a"])
        [key] = [key for key in cache.keys("citadel:embedding:*") if not key.endswith(b":claim")]
        cache.delete(key)
        cache.set(key + b":claim", b"1", px=700)
        assert_vectors(plain.call(TASK, ["a"]), ["a"])
        assert embedded(double) == {"a": 2}
