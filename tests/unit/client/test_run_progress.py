"""Progress of a run, computed from its events."""

from citadel_client.cli.run_progress import RunProgress
from citadel_contracts.runs import RunEvent, RunView
from tests.unit.client.run_double import run_view

STEPS = [
    {"step_id": "a", "type": "embedding", "status": "failed", "attempt": 3},
    {"step_id": "b", "type": "wait", "status": "pending", "attempt": 0},
]


def after(*events):
    progress = RunProgress.of(RunView.model_validate(run_view("failed", steps=STEPS)))
    for seq, (kind, more) in enumerate(events, start=1):
        progress.apply(RunEvent.model_validate({"seq": seq, "at": f"2026-01-01T00:00:{seq:02}Z", "type": kind, **more}))
    return progress


def test_steps_are_pending_before_the_first_event():
    assert [step.status for step in after().steps.values()] == ["pending", "pending"]


def test_a_step_from_its_start_to_its_end():
    progress = after(
        ("run_submitted", {}),
        ("step_started", {"step_id": "a", "data": {"attempt": 1}}),
        ("step_retrying", {"step_id": "a", "data": {"error": {"message": "lost"}}}),
        ("step_started", {"step_id": "a", "data": {"attempt": 2}}),
        ("step_succeeded", {"step_id": "a", "data": {"error": None}}),
    )
    step = progress.steps["a"]
    assert (step.status, step.attempt, step.error, step.seconds) == ("succeeded", 2, "", 3.0)
    assert progress.status == "running"


def test_ended_items_are_counted():
    expanded = ("step_expanded", {"step_id": "a", "data": {"items": 3}})
    items = [(f"step_{end}", {"step_id": "a", "item": n}) for n, end in enumerate(["succeeded", "failed", "skipped"])]
    step = after(("step_started", {"step_id": "a"}), expanded, *items).steps["a"]
    assert (step.status, step.total, step.done, step.failed) == ("running", 3, 2, 1)


def test_a_retry_of_the_run_resets_failed_steps():
    failed = ("step_failed", {"step_id": "b", "data": {"error": {"message": "no"}}})
    progress = after(("step_succeeded", {"step_id": "a"}), failed, ("run_failed", {}), ("run_retried", {}))
    assert progress.status == "running"
    assert [step.status for step in progress.steps.values()] == ["succeeded", "pending"]
    assert progress.steps["b"].error == ""


def test_unknown_events_change_nothing():
    progress = after(("signal", {"data": {"name": "go"}}), ("dream", {"step_id": "a"}))
    assert [step.status for step in progress.steps.values()] == ["pending", "pending"]


def test_an_item_of_a_batch_counts_as_several_requests():
    whole = {"step_id": "a", "type": "embedding_chunk", "status": "waiting", "attempt": 1}
    view = run_view("running", steps=[whole | {"items": {"total": 100, "done": 0, "failed": 0}}])
    progress = RunProgress.of(RunView.model_validate(view))
    for kind, data in (("succeeded", {"requests": 64, "failed": 3}), ("failed", {"requests": 36, "failed": 36})):
        event = {"seq": 1, "at": "2026-01-01T00:00:00Z", "type": f"step_{kind}", "step_id": "a", "item": 0}
        progress.apply(RunEvent.model_validate(event | {"data": data}))
    step = progress.steps["a"]
    assert (step.total, step.done, step.failed) == (100, 61, 39)
