"""Counting of what tasks came to, in one process."""

import threading

from citadel_common.tasks.stats import TaskStats, parse_stats


def test_ends_are_counted_by_outcome_code_and_duration():
    stats = TaskStats()
    stats.ended("embed", "succeeded", seconds=0.0078125)
    stats.ended("embed", "succeeded", seconds=4096)
    stats.ended("embed", "failed", seconds=0.0546875, code="invalid_input")
    assert stats.take() == {
        ("embed", "ended", "succeeded"): 2,
        ("embed", "ended", "failed"): 1,
        ("embed", "failures", "invalid_input"): 1,
        ("embed", "runtime", "0.01"): 1,
        ("embed", "runtime", "0.1"): 1,
        ("embed", "runtime", "inf"): 1,
        ("embed", "runtime", "sum"): 4096.0625,
    }


def test_counts_are_taken_once():
    stats = TaskStats()
    stats.waited("embed", 0.2)
    stats.dead_lettered("embeddings", "internal")
    assert stats.take() == {
        ("embed", "wait", "0.25"): 1,
        ("embed", "wait", "sum"): 0.2,
        ("embeddings", "dead_letters", "internal"): 1,
    }
    assert stats.take() == {}


def test_threads_count_while_another_takes():
    stats, taken = TaskStats(), 0.0
    threads = [
        threading.Thread(target=lambda: [stats.ended("embed", "succeeded", seconds=0.1) for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += stats.take().get(("embed", "ended", "succeeded"), 0)
    assert taken + stats.take().get(("embed", "ended", "succeeded"), 0) == 8000


def test_fields_that_are_not_statistics_are_skipped():
    stored = {
        b"embed ended succeeded": b"3",
        b"embed runtime sum": b"0.25",
        b"embed": b"1",
        b"embed ended": b"1",
        b"embed ended failed": b"many",
        b"\xff ended failed": b"2",
    }
    assert dict(parse_stats(stored)) == {
        ("embed", "ended", "succeeded"): 3,
        ("embed", "runtime", "sum"): 0.25,
        ("\ufffd", "ended", "failed"): 2,
    }
