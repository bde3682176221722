"""Transitions on a real PostgreSQL, one at a time."""

import pytest

from citadel_common.errors import Conflict, InvalidInput, LlmUnavailable, NotFound
from citadel_orchestration.db import lost_work
from citadel_orchestration.db.models import StepRef
from citadel_orchestration.engine.submission import new_run_id


def ask(step_id, **others):
    return {"step_id": step_id, "type": "llm_query", "parameters": {"query": "q"}} | others


def begin(record, *steps, **others):
    """A run, its first step claimed."""
    run_id = record.submit({"steps": list(steps)} | others)
    [claim] = record.transitions.start(StepRef(run_id=run_id, step_id=steps[0]["step_id"])).claims
    return run_id, claim


def succeed(record, claim, output=None):
    return record.transitions.succeed(claim.ref, claim.attempt, output or {"text": "t"})


class TestSignals:
    def test_a_signal_that_comes_before_its_wait_is_kept(self, record):
        wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go"}}
        run_id, claim = begin(record, ask("a"), wait)
        record.commands.signal(run_id, "go", {"by": "me"})
        [waiting] = succeed(record, claim).claims
        record.transitions.wait(waiting.ref, waiting.attempt, seconds=None, signal="go")
        assert record.status(run_id) == "succeeded"
        assert record.rows("SELECT output FROM runs")[0][0] == b'{"by":"me"}'

    def test_each_signal_ends_one_wait(self, record):
        waits = [{"step_id": s, "type": "wait", "depends_on": [], "parameters": {"signal": "go"}} for s in ("a", "b")]
        run_id = record.submit({"steps": waits})
        for step_id in ("a", "b"):
            [claim] = record.transitions.start(StepRef(run_id=run_id, step_id=step_id)).claims
            record.transitions.wait(claim.ref, claim.attempt, seconds=None, signal="go")
        record.commands.signal(run_id, "go", 1)
        assert record.steps(run_id) == {"a": "succeeded", "b": "waiting"}
        record.commands.signal(run_id, "go", 2)
        assert record.status(run_id) == "succeeded"

    def test_a_signal_that_does_not_come_in_time_fails_the_step(self, record):
        wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go", "timeout": 0}}
        run_id, claim = begin(record, wait)
        record.transitions.wait(claim.ref, claim.attempt, seconds=0.0, signal="go")
        record.recovery.wake(claim.ref, claim.attempt)
        assert record.status(run_id) == "failed"
        assert "'go'" in record.error(run_id)["message"]

    def test_a_signal_for_an_unknown_run_is_refused(self, record):
        with pytest.raises(NotFound):
            record.commands.signal(new_run_id(), "go", None)

    def test_a_signal_for_an_ended_run_is_refused(self, record):
        run_id, claim = begin(record, ask("a"))
        succeed(record, claim)
        with pytest.raises(Conflict):
            record.commands.signal(run_id, "go", None)


class TestConcurrencyKeys:
    STEPS = (ask("a"),)
    KEY = {"concurrency": {"key": "tenant", "limit": 2}}  # noqa: RUF012  (never changed)

    def ready(self, record, run_ids):
        return [record.steps(run_id)["a"] != "pending" for run_id in run_ids]

    def submit(self, record, count=4):
        return [record.submit({"steps": list(self.STEPS)} | self.KEY) for _ in range(count)]

    def test_no_more_runs_than_the_limit_start(self, record):
        run_ids = self.submit(record)
        assert self.ready(record, run_ids) == [True, True, False, False]

    def test_the_oldest_waiting_run_starts_when_another_ends(self, record):
        run_ids = self.submit(record)
        [claim] = record.transitions.start(StepRef(run_id=run_ids[0], step_id="a")).claims
        assert succeed(record, claim).ended.concurrency_key == "tenant"
        assert [claim.ref.run_id for effects in record.commands.release("tenant") for claim in effects.claims] == [
            run_ids[2]
        ]
        assert self.ready(record, run_ids) == [True, True, True, False]

    def test_a_pause_does_not_let_a_run_past_the_limit(self, record):
        run_ids = self.submit(record)
        record.commands.pause(run_ids[3])
        record.commands.resume(run_ids[3])
        assert self.ready(record, run_ids) == [True, True, False, False]
        for run_id in run_ids[:2]:
            record.commands.cancel(run_id)
        record.commands.release("tenant")
        assert self.ready(record, run_ids[2:]) == [True, True]

    def test_a_paused_run_that_never_started_holds_no_place(self, record):
        run_ids = self.submit(record)
        record.commands.pause(run_ids[2])
        record.commands.cancel(run_ids[0])
        record.commands.release("tenant")
        assert self.ready(record, run_ids[2:]) == [False, True]

    def test_a_retry_does_not_go_past_the_limit(self, record):
        run_ids = self.submit(record)
        record.commands.cancel(run_ids[0])
        record.commands.release("tenant")
        with pytest.raises(Conflict, match="concurrency key"):
            record.commands.retry(run_ids[0], deadline=None)
        record.commands.cancel(run_ids[1])
        record.commands.retry(run_ids[0], deadline=None)
        assert record.status(run_ids[0]) == "running"


class TestRetry:
    def test_steps_that_succeeded_are_not_repeated(self, record):
        run_id, first = begin(record, ask("a"), ask("b"), ask("c"))
        [second] = succeed(record, first).claims
        record.transitions.fail(second.ref, second.attempt, InvalidInput("no"))
        assert record.status(run_id) == "failed"
        [again] = record.commands.retry(run_id, deadline=None).claims
        assert again.ref.step_id == "b"
        [last] = succeed(record, again).claims
        succeed(record, last)
        assert record.status(run_id) == "succeeded"
        record.assert_recorded_once(run_id)

    def test_a_run_that_failed_by_its_output_fails_by_it_again(self, record):
        run_id, claim = begin(record, ask("a"), output="${{ steps.a.output.json.missing }}")
        succeed(record, claim, {"text": "t", "json": {}})
        assert record.status(run_id) == "failed"
        effects = record.commands.retry(run_id, deadline=None)
        assert (record.status(run_id), effects.claims) == ("failed", [])

    def test_failed_items_of_a_tolerant_step_are_not_repeated(self, record):
        each = ask("a", for_each={"items": [1, 2]}, on_error="continue")
        run_id, claim = begin(record, each, ask("b"))
        items = record.transitions.expand(claim.ref, claim.attempt, [1, 2], max_parallel=2).claims
        succeed(record, items[0])
        [after] = record.transitions.fail(items[1].ref, items[1].attempt, InvalidInput()).claims
        record.transitions.fail(after.ref, after.attempt, InvalidInput())
        record.commands.retry(run_id, deadline=None)
        assert record.items(run_id, "a") == ["succeeded", "failed"]
        assert record.steps(run_id) == {"a": "succeeded", "b": "running"}

    def test_items_that_succeeded_are_not_repeated(self, record):
        run_id, claim = begin(record, ask("a", for_each={"items": [1, 2, 3], "max_parallel": 2}))
        items = record.transitions.expand(claim.ref, claim.attempt, [1, 2, 3], max_parallel=2).claims
        [third] = succeed(record, items[0]).claims
        record.transitions.fail(items[1].ref, items[1].attempt, InvalidInput())
        assert record.items(run_id, "a") == ["succeeded", "failed", "cancelled"]
        assert not succeed(record, third).applied
        again = record.commands.retry(run_id, deadline=None).claims
        assert [claim.ref.item for claim in again] == [1, 2]

    def test_a_run_that_succeeded_is_not_retried(self, record):
        run_id, claim = begin(record, ask("a"))
        succeed(record, claim)
        with pytest.raises(Conflict):
            record.commands.retry(run_id, deadline=None)


class TestDeadlines:
    def over(self, record):
        return record.find(lost_work.late_runs)

    def test_a_run_past_its_deadline_ends(self, record):
        run_id, claim = begin(record, ask("a"), deadline="1h")
        assert self.over(record) == []
        record.rows("UPDATE runs SET deadline_at = now() - interval '1 second'")
        assert self.over(record) == [run_id]
        record.commands.time_out(run_id)
        assert record.status(run_id) == "timed_out"
        assert not succeed(record, claim).applied

    def test_a_run_that_was_retried_meanwhile_does_not_time_out(self, record):
        run_id, _ = begin(record, ask("a"), deadline="1h")
        record.rows("UPDATE runs SET deadline_at = now() - interval '1 second'")
        record.commands.time_out(run_id)
        record.commands.retry(run_id, deadline=60.0)
        assert not record.commands.time_out(run_id).applied
        assert record.status(run_id) == "running"


def test_a_step_that_kills_every_worker_fails(record):
    run_id, claim = begin(record, ask("a"))
    for _ in range(4):
        record.rows("UPDATE steps SET lease_until = now() - interval '1 second'")
        [claim] = record.recovery.take_over(claim.ref, claim.attempt).claims
    record.rows("UPDATE steps SET lease_until = now() - interval '1 second'")
    assert record.recovery.take_over(claim.ref, claim.attempt).claims == []
    assert record.status(run_id) == "failed"
    assert record.error(run_id)["code"] == "worker_lost"


def test_a_step_that_is_handed_back_often_does_not_fail(record):
    run_id, claim = begin(record, ask("a"))
    for _ in range(20):
        record.transitions.hand_back(claim.ref, claim.attempt)
        [claim] = record.transitions.start(claim.ref).claims
    succeed(record, claim)
    assert record.status(run_id) == "succeeded"


def test_a_large_output_fails_its_step(record):
    run_id, claim = begin(record, ask("a"))
    succeed(record, claim, {"text": "x" * 2**21})
    assert record.status(run_id) == "failed"
    assert record.error(run_id)["code"] == "payload_too_large"


def test_a_step_fails_after_its_last_attempt(record):
    retry = {"max_attempts": 3, "delay": 0}
    run_id, claim = begin(record, ask("a", retry=retry))
    for attempt in range(3):
        assert record.status(run_id) == "running"
        record.transitions.fail(claim.ref, claim.attempt, LlmUnavailable())
        if attempt < 2:
            [(current,)] = record.rows("SELECT attempt FROM steps")
            [claim] = record.recovery.wake(claim.ref, current).claims
    assert record.status(run_id) == "failed"
    assert [event[0] for event in record.events(run_id)].count("step_retrying") == 2


def test_a_for_each_over_an_empty_list_succeeds_at_once(record):
    run_id, claim = begin(record, ask("a", for_each={"items": "${{ context.none }}"}), context={"none": []})
    record.transitions.expand(claim.ref, claim.attempt, [], max_parallel=4)
    assert record.status(run_id) == "succeeded"
    assert record.rows("SELECT output FROM runs")[0][0] == b"[]"


def test_ten_thousand_items_begin_a_few_at_a_time(record):
    run_id, claim = begin(record, ask("a", for_each={"items": "${{ context.items }}"}), context={"items": []})
    items = record.transitions.expand(claim.ref, claim.attempt, list(range(10_000)), max_parallel=3).claims
    assert [item.ref.item for item in items] == [0, 1, 2]
    assert [item.ref.item for item in succeed(record, items[1]).claims] == [3]
    assert record.items(run_id, "a").count("running") == 3
    record.commands.cancel(run_id)
    assert record.items(run_id, "a").count("cancelled") == 9_999


def test_cancelled_steps_never_start(record):
    steps = [ask(f"s{number}", depends_on=[]) for number in range(1000)]
    run_id = record.submit({"steps": steps})
    record.commands.cancel(run_id)
    assert set(record.steps(run_id).values()) == {"cancelled"}
    assert not any(record.transitions.start(StepRef(run_id=run_id, step_id=f"s{n}")).claims for n in range(0, 1000, 50))
    assert record.find(lost_work.unstarted_steps) == []


def test_the_same_submission_is_recorded_once_and_another_one_is_refused(record):
    definition = {"idempotency_key": "k", "steps": [ask("a")]}
    assert record.submit(definition) == record.submit(definition)
    with pytest.raises(Conflict):
        record.submit(definition | {"context": {"more": 1}})
