"""Priority lanes: all are served, the interactive one first."""

from tests.support.polling import eventually

TASK = "generate_embedding"


def test_every_lane_is_served(fleet):
    fleet.start()
    tasks = [fleet.plain.publish(TASK, ["a"], priority=priority) for priority in (None, 0, 1, 3, 5, 6, 9, 255)]
    assert all(task.get(timeout=60)["success"] for task in tasks)


def test_interactive_tasks_run_before_batch_tasks(fleet):
    """The tasks are queued in the reverse order before the worker starts."""
    published = [(lane, n) for lane in (9, 6, 3, 0) for n in range(5)]
    tasks = [
        fleet.plain.publish(TASK, [f"lane {lane} {n}"], {"cache_enabled": False}, priority=lane)
        for lane, n in published
    ]
    fleet.start(WORKER__CONCURRENCY=1)
    for task in tasks:
        task.get(timeout=60)
    order = list(fleet.double.stats()["embedded_counts"]["nomic-embed-text"])
    lanes = [int(text.split()[1]) for text in order]
    assert lanes == sorted(lanes)
    assert order[:5] == [f"lane 0 {n}" for n in range(5)]


def test_an_interactive_task_passes_a_running_batch(fleet):
    """The batch holds some threads and some calls, never all."""
    fleet.double.behaviour("slow", delay_ms=100)
    fleet.start(WORKER__BATCH_CONCURRENCY=2, EMBEDDINGS__BACKENDS__main__MAX_CONCURRENCY=1)
    batches = [
        fleet.plain.publish(
            "batch_generate_embeddings", [[{"text": f"b{m} {n}"} for n in range(400)]], priority=6
        )
        for m in range(4)
    ]  # fmt: skip
    eventually(lambda: fleet.double.stats()["requests"] >= 2)
    assert fleet.plain.publish(TASK, ["urgent"], priority=0).get(timeout=60)["success"]
    assert fleet.double.stats()["texts_embedded"] < 800
    del batches
