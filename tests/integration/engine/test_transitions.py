"""Transitions on a real PostgreSQL, one at a time."""

import json

import pytest

from citadel_common.errors import (
    Conflict,
    InvalidInput,
    LlmUnavailable,
    NotFound,
    PayloadTooLarge,
    VectorStoreUnavailable,
)
from citadel_orchestration.db import lost_work
from citadel_orchestration.db.models import StepRef
from citadel_orchestration.engine.submission import new_run_id


def ask(step_id, **others):
    return {"step_id": step_id, "type": "llm_query", "parameters": {"query": "q"}} | others


def begin(db, *steps, **others):
    """A run, its first step claimed."""
    run_id = db.submit({"steps": list(steps)} | others)
    [claim] = db.transitions.start(StepRef(run_id=run_id, step_id=steps[0]["step_id"])).claims
    return run_id, claim


def succeed(db, claim, output=None):
    return db.transitions.succeed(claim.ref, claim.attempt, output or {"text": "t"})


class TestSignals:
    def test_a_signal_that_comes_before_its_wait_is_kept(self, db):
        wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go"}}
        run_id, claim = begin(db, ask("a"), wait)
        db.commands.signal(run_id, "go", {"by": "me"})
        [waiting] = succeed(db, claim).claims
        db.transitions.wait(waiting.ref, waiting.attempt, seconds=None, signal="go")
        assert db.status(run_id) == "succeeded"
        assert db.rows("SELECT output FROM runs")[0][0] == b'{"by":"me"}'

    def test_each_signal_ends_one_wait(self, db):
        waits = [{"step_id": s, "type": "wait", "depends_on": [], "parameters": {"signal": "go"}} for s in ("a", "b")]
        run_id = db.submit({"steps": waits})
        for step_id in ("a", "b"):
            [claim] = db.transitions.start(StepRef(run_id=run_id, step_id=step_id)).claims
            db.transitions.wait(claim.ref, claim.attempt, seconds=None, signal="go")
        db.commands.signal(run_id, "go", 1)
        assert db.steps(run_id) == {"a": "succeeded", "b": "waiting"}
        db.commands.signal(run_id, "go", 2)
        assert db.status(run_id) == "succeeded"

    def test_a_signal_that_does_not_come_in_time_fails_the_step(self, db):
        wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go", "timeout": 0}}
        run_id, claim = begin(db, wait)
        db.transitions.wait(claim.ref, claim.attempt, seconds=0.0, signal="go")
        db.recovery.wake(claim.ref, claim.attempt)
        assert db.status(run_id) == "failed"
        assert "'go'" in db.error(run_id)["message"]

    def test_a_signal_for_an_unknown_run_is_refused(self, db):
        with pytest.raises(NotFound):
            db.commands.signal(new_run_id(), "go", None)

    def test_a_signal_for_an_ended_run_is_refused(self, db):
        run_id, claim = begin(db, ask("a"))
        succeed(db, claim)
        with pytest.raises(Conflict):
            db.commands.signal(run_id, "go", None)


def nested(levels, value=1):
    for _ in range(levels):
        value = [value]
    return value


class TestValuesThatCannotBeKept:
    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            (10**30, "/hits/0/n: is an integer beyond 64 bits"),
            (float("nan"), "/hits/0/n: is not a finite number"),
            (float("-inf"), "/hits/0/n: is not a finite number"),
            (nested(240), "is nested more than 234 levels deep"),
            (nested(5000), "is nested more than 234 levels deep"),
            ({"\ud800": 10**30}, "/hits/0/n/\ufffd: is an integer beyond 64 bits"),
        ],
    )
    def test_an_output_is_refused_with_the_place(self, db, value, problem):
        run_id, claim = begin(db, ask("a"))
        succeed(db, claim, {"hits": [{"n": value}]})
        assert db.status(run_id) == "failed"
        assert problem in db.error(run_id)["message"]
        assert db.error(run_id)["code"] == "invalid_input"

    def test_the_output_of_a_run_is_refused_too(self, db):
        wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go"}}
        run_id, claim = begin(db, wait, output=nested(60, "${{ steps.w.output }}"))
        db.transitions.wait(claim.ref, claim.attempt, seconds=None, signal="go")
        db.commands.signal(run_id, "go", nested(200))
        assert db.status(run_id) == "failed"
        assert "the run's output cannot be written as JSON: /0/0" in db.error(run_id)["message"]

    def test_a_payload_of_a_signal_that_is_too_large_is_refused(self, db):
        run_id, claim = begin(db, {"step_id": "w", "type": "wait", "parameters": {"signal": "go"}})
        db.transitions.wait(claim.ref, claim.attempt, seconds=None, signal="go")
        with pytest.raises(PayloadTooLarge, match=r"the signal's payload has 90,003,001 bytes as JSON"):
            db.commands.signal(run_id, "go", ["x" * 90_000] * 1000)
        assert db.steps(run_id) == {"w": "waiting"}

    def test_an_item_is_refused_too(self, db):
        run_id, claim = begin(db, ask("a", for_each={"items": [1]}))
        with pytest.raises(InvalidInput, match=r"items\[1\] cannot be written as JSON: the value: is an integer"):
            db.transitions.expand(claim.ref, claim.attempt, [1, 10**30], max_parallel=1)
        assert db.status(run_id) == "running"

    def test_the_payload_of_a_signal_goes_through_expressions_unchanged(self, db):
        payload = {"n": 2**64 - 1, "deep": nested(198), "nul": "a\x00"}
        wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go"}}
        run_id, claim = begin(db, wait, output={"is": "${{ steps.w.output }}", "n": "${{ [steps.w.output.n] }}"})
        db.transitions.wait(claim.ref, claim.attempt, seconds=None, signal="go")
        db.commands.signal(run_id, "go", payload)
        assert db.status(run_id) == "succeeded", db.error(run_id)
        [(body,)] = db.rows("SELECT output FROM runs")
        assert json.loads(body) == {"is": payload, "n": [2**64 - 1]}


class TestDelaysThatServersAskFor:
    QUICK = {"retry": {"max_attempts": 3, "delay": "1ms", "max_delay": "2ms"}}  # noqa: RUF012  (never changed)

    def failed(self, db, seconds, kind=LlmUnavailable, **others):
        run_id, claim = begin(db, ask("a", timeout="300s", **self.QUICK), **others)
        db.transitions.fail(claim.ref, claim.attempt, kind("slow down", retry_after=seconds))
        return run_id

    @pytest.mark.parametrize("kind", [LlmUnavailable, VectorStoreUnavailable])
    def test_the_next_attempt_waits_as_long(self, db, kind):
        self.failed(db, 299, kind)
        [(left, data)] = db.rows(
            "SELECT extract(epoch FROM due_at - now()), data FROM steps JOIN events USING (run_id)"
            " WHERE type = 'step_retrying'"
        )
        assert 290 < left <= 299 * 1.1
        assert data["delay_s"] >= 299

    @pytest.mark.parametrize(
        ("seconds", "others", "reason"),
        [
            (301, {}, "it asks to wait 301 s, which is longer than the step's timeout of 300 s"),
            (86_400, {}, "it asks to wait 86400 s, which is longer than the step's timeout of 300 s"),
            (90, {"deadline": "60s"}, "it asks to wait 90 s, which is longer than the run has left"),
        ],
    )
    def test_a_delay_that_is_too_long_fails_the_step_at_once_and_says_so(self, db, seconds, others, reason):
        run_id = self.failed(db, seconds, **others)
        assert db.status(run_id) == "failed"
        assert db.error(run_id)["message"] == f"slow down; {reason}"
        assert db.error(run_id)["retry_after"] == seconds


class TestOutputsThatCannotBeStored:
    def test_text_is_replaced(self, db):
        run_id, claim = begin(db, ask("a"))
        succeed(db, claim, {"text\x00": ["\x00", "\ud800", "ok"]})
        assert db.rows("SELECT output FROM runs WHERE run_id = %s", run_id)[0][0] == (
            '{"text\ufffd":["\ufffd","\ufffd","ok"]}'.encode()
        )

    @pytest.mark.parametrize("value", [2**70, object()])
    def test_what_is_no_json_fails_the_step(self, db, value):
        run_id, claim = begin(db, ask("a"))
        succeed(db, claim, {"text": value})
        assert db.status(run_id) == "failed"
        assert "the output cannot be written as JSON" in db.error(run_id)["message"]


class TestConcurrencyKeys:
    STEPS = (ask("a"),)
    KEY = {"concurrency": {"key": "tenant", "limit": 2}}  # noqa: RUF012  (never changed)

    def ready(self, db, run_ids):
        return [db.steps(run_id)["a"] != "pending" for run_id in run_ids]

    def submit(self, db, count=4):
        return [db.submit({"steps": list(self.STEPS)} | self.KEY) for _ in range(count)]

    def test_no_more_runs_than_the_limit_start(self, db):
        run_ids = self.submit(db)
        assert self.ready(db, run_ids) == [True, True, False, False]

    def test_the_oldest_waiting_run_starts_when_another_ends(self, db):
        run_ids = self.submit(db)
        [claim] = db.transitions.start(StepRef(run_id=run_ids[0], step_id="a")).claims
        assert succeed(db, claim).ended.concurrency_key == "tenant"
        assert [claim.ref.run_id for effects in db.commands.release("tenant") for claim in effects.claims] == [
            run_ids[2]
        ]
        assert self.ready(db, run_ids) == [True, True, True, False]

    def test_a_pause_does_not_let_a_run_past_the_limit(self, db):
        run_ids = self.submit(db)
        db.commands.pause(run_ids[3])
        db.commands.resume(run_ids[3])
        assert self.ready(db, run_ids) == [True, True, False, False]
        for run_id in run_ids[:2]:
            db.commands.cancel(run_id)
        db.commands.release("tenant")
        assert self.ready(db, run_ids[2:]) == [True, True]

    def test_a_paused_run_that_never_started_holds_no_place(self, db):
        run_ids = self.submit(db)
        db.commands.pause(run_ids[2])
        db.commands.cancel(run_ids[0])
        db.commands.release("tenant")
        assert self.ready(db, run_ids[2:]) == [False, True]

    def test_a_retry_does_not_go_past_the_limit(self, db):
        run_ids = self.submit(db)
        db.commands.cancel(run_ids[0])
        db.commands.release("tenant")
        with pytest.raises(Conflict, match="concurrency key"):
            db.commands.retry(run_ids[0], deadline=None)
        db.commands.cancel(run_ids[1])
        db.commands.retry(run_ids[0], deadline=None)
        assert db.status(run_ids[0]) == "running"


class TestRetry:
    def test_steps_that_succeeded_are_not_repeated(self, db):
        run_id, first = begin(db, ask("a"), ask("b"), ask("c"))
        [second] = succeed(db, first).claims
        db.transitions.fail(second.ref, second.attempt, InvalidInput("no"))
        assert db.status(run_id) == "failed"
        [again] = db.commands.retry(run_id, deadline=None).claims
        assert again.ref.step_id == "b"
        [last] = succeed(db, again).claims
        succeed(db, last)
        assert db.status(run_id) == "succeeded"
        db.assert_recorded_once(run_id)

    def test_a_run_that_failed_by_its_output_fails_by_it_again(self, db):
        run_id, claim = begin(db, ask("a"), output="${{ steps.a.output.json.missing }}")
        succeed(db, claim, {"text": "t", "json": {}})
        assert db.status(run_id) == "failed"
        effects = db.commands.retry(run_id, deadline=None)
        assert (db.status(run_id), effects.claims) == ("failed", [])

    def test_failed_items_of_a_tolerant_step_are_not_repeated(self, db):
        each = ask("a", for_each={"items": [1, 2]}, on_error="continue")
        run_id, claim = begin(db, each, ask("b"))
        items = db.transitions.expand(claim.ref, claim.attempt, [1, 2], max_parallel=2).claims
        succeed(db, items[0])
        [after] = db.transitions.fail(items[1].ref, items[1].attempt, InvalidInput()).claims
        db.transitions.fail(after.ref, after.attempt, InvalidInput())
        db.commands.retry(run_id, deadline=None)
        assert db.items(run_id, "a") == ["succeeded", "failed"]
        assert db.steps(run_id) == {"a": "succeeded", "b": "running"}

    def test_items_that_succeeded_are_not_repeated(self, db):
        run_id, claim = begin(db, ask("a", for_each={"items": [1, 2, 3], "max_parallel": 2}))
        items = db.transitions.expand(claim.ref, claim.attempt, [1, 2, 3], max_parallel=2).claims
        [third] = succeed(db, items[0]).claims
        db.transitions.fail(items[1].ref, items[1].attempt, InvalidInput())
        assert db.items(run_id, "a") == ["succeeded", "failed", "cancelled"]
        assert not succeed(db, third).applied
        again = db.commands.retry(run_id, deadline=None).claims
        assert [claim.ref.item for claim in again] == [1, 2]

    def test_a_run_that_succeeded_is_not_retried(self, db):
        run_id, claim = begin(db, ask("a"))
        succeed(db, claim)
        with pytest.raises(Conflict):
            db.commands.retry(run_id, deadline=None)


class TestDeadlines:
    def over(self, db):
        return db.find(lost_work.late_runs)

    def test_a_run_past_its_deadline_ends(self, db):
        run_id, claim = begin(db, ask("a"), deadline="1h")
        assert self.over(db) == []
        db.rows("UPDATE runs SET deadline_at = now() - interval '1 second'")
        assert self.over(db) == [run_id]
        db.commands.time_out(run_id)
        assert db.status(run_id) == "timed_out"
        assert not succeed(db, claim).applied

    def test_a_run_that_was_retried_meanwhile_does_not_time_out(self, db):
        run_id, _ = begin(db, ask("a"), deadline="1h")
        db.rows("UPDATE runs SET deadline_at = now() - interval '1 second'")
        db.commands.time_out(run_id)
        db.commands.retry(run_id, deadline=60.0)
        assert not db.commands.time_out(run_id).applied
        assert db.status(run_id) == "running"


def test_a_step_that_kills_every_worker_fails(db):
    run_id, claim = begin(db, ask("a"))
    for _ in range(4):
        db.rows("UPDATE steps SET lease_until = now() - interval '1 second'")
        [claim] = db.recovery.take_over(claim.ref, claim.attempt).claims
    db.rows("UPDATE steps SET lease_until = now() - interval '1 second'")
    assert db.recovery.take_over(claim.ref, claim.attempt).claims == []
    assert db.status(run_id) == "failed"
    assert db.error(run_id)["code"] == "worker_lost"


def test_a_step_that_is_handed_back_often_does_not_fail(db):
    run_id, claim = begin(db, ask("a"))
    for _ in range(20):
        db.transitions.hand_back(claim.ref, claim.attempt)
        [claim] = db.transitions.start(claim.ref).claims
    succeed(db, claim)
    assert db.status(run_id) == "succeeded"


def test_a_large_output_fails_its_step(db):
    run_id, claim = begin(db, ask("a"))
    succeed(db, claim, {"text": "x" * 2**21})
    assert db.status(run_id) == "failed"
    assert db.error(run_id)["code"] == "payload_too_large"


def test_a_step_fails_after_its_last_attempt(db):
    retry = {"max_attempts": 3, "delay": 0}
    run_id, claim = begin(db, ask("a", retry=retry))
    for attempt in range(3):
        assert db.status(run_id) == "running"
        db.transitions.fail(claim.ref, claim.attempt, LlmUnavailable())
        if attempt < 2:
            [(current,)] = db.rows("SELECT attempt FROM steps")
            [claim] = db.recovery.wake(claim.ref, current).claims
    assert db.status(run_id) == "failed"
    assert [event[0] for event in db.events(run_id)].count("step_retrying") == 2


def test_a_for_each_over_an_empty_list_succeeds_at_once(db):
    run_id, claim = begin(db, ask("a", for_each={"items": "${{ context.none }}"}), context={"none": []})
    db.transitions.expand(claim.ref, claim.attempt, [], max_parallel=4)
    assert db.status(run_id) == "succeeded"
    assert db.rows("SELECT output FROM runs")[0][0] == b"[]"


def test_ten_thousand_items_begin_a_few_at_a_time(db):
    run_id, claim = begin(db, ask("a", for_each={"items": "${{ context.items }}"}), context={"items": []})
    items = db.transitions.expand(claim.ref, claim.attempt, list(range(10_000)), max_parallel=3).claims
    assert [item.ref.item for item in items] == [0, 1, 2]
    assert [item.ref.item for item in succeed(db, items[1]).claims] == [3]
    assert db.items(run_id, "a").count("running") == 3
    db.commands.cancel(run_id)
    assert db.items(run_id, "a").count("cancelled") == 9_999


def test_cancelled_steps_never_start(db):
    steps = [ask(f"s{number}", depends_on=[]) for number in range(1000)]
    run_id = db.submit({"steps": steps})
    db.commands.cancel(run_id)
    assert set(db.steps(run_id).values()) == {"cancelled"}
    assert not any(db.transitions.start(StepRef(run_id=run_id, step_id=f"s{n}")).claims for n in range(0, 1000, 50))
    assert db.find(lost_work.unstarted_steps) == []


def test_the_same_submission_is_recorded_once_and_another_one_is_refused(db):
    definition = {"idempotency_key": "k", "steps": [ask("a")]}
    assert db.submit(definition) == db.submit(definition)
    with pytest.raises(Conflict):
        db.submit(definition | {"context": {"more": 1}})
