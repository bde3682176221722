"""What a worker runs, and whether it is stuck: the health file says so by its age."""

from citadel_common.tasks.running import RunningTasks


def test_a_task_is_stuck_past_its_hard_limit():
    now = 100.0
    running = RunningTasks(clock=lambda: now)
    running.start("a", "task", hard_limit=10, accepted=False)
    running.start("b", "task", hard_limit=20, accepted=True)
    assert running.stuck() == []
    now += 15
    assert [task.task_id for task in running.stuck()] == ["a"]
    running.end("a", ok=True)
    assert running.stuck() == []


def test_ended_tasks_are_counted_as_processed_or_failed():
    running = RunningTasks()
    for task_id, ok in (("a", True), ("b", False)):
        running.start(task_id, "task", hard_limit=1, accepted=False)
        assert running.has(task_id)
        running.end(task_id, ok=ok)
    assert (running.processed, running.failed, running.tasks()) == (2, 1, [])
    assert not running.has("a")
