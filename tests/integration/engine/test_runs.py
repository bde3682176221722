"""Runs through real workers: fan-out, cancelling, time limits, sub-runs, retries, independence of other runs."""

import pytest

from tests.support.polling import eventually


def ask(step_id, query, **others):
    return {"step_id": step_id, "type": "llm_query", "parameters": {"query": query}} | others


def once(**others):
    return {"retry": {"max_attempts": 1}} | others


def fan_out(items, *, query="${{ item }}", max_parallel=8, **others):
    each = {"for_each": {"items": items, "max_parallel": max_parallel}}
    return {"steps": [ask("f", query, **once(**each, **others))]}


def prompts(workers):
    return workers.doubles.llm.stats()["prompt_counts"]


def in_flight(workers):
    return workers.doubles.llm.stats()["in_flight"]


class TestForEach:
    def test_outputs_are_in_order(self, workers):
        result = workers.execute(
            fan_out(list(range(40)), query="[[say n${{ item }}]]") | {"output": "${{ steps.f.output }}"}
        )
        assert [output["text"] for output in result["output"]] == [f"n{number}" for number in range(40)]

    def test_a_for_each_without_items_succeeds(self, workers):
        result = workers.execute(fan_out("${{ context.none }}") | {"context": {"none": []}})
        assert (result["success"], result["output"]) == (True, [])

    def test_failed_items_are_null(self, workers):
        items = ["good", "bad [[bad400]]", "fine"]
        result = workers.execute(fan_out(items, on_error="continue"))
        assert result["success"], result
        assert [output is None for output in result["output"]] == [False, True, False]

    def test_no_more_than_max_parallel_items_run_at_once(self, workers):
        workers.doubles.llm.behaviour("slow", delay_ms=20)
        result = workers.execute(fan_out([f"item {number}" for number in range(30)], max_parallel=3))
        assert result["success"]
        assert workers.doubles.llm.stats()["max_in_flight"] <= 3
        assert set(prompts(workers).values()) == {1}

    def test_a_thousand_items_succeed(self, workers):
        texts = {"type": "embedding", "parameters": {"text": "t${{ item }}", "model": "all-minilm"}}
        each = {"items": "${{ context.items }}", "max_parallel": 100}
        run_id = workers.begin(
            {
                "context": {"items": list(range(1_000))},
                "steps": [{"step_id": "f", "for_each": each} | texts],
                "output": "${{ size(steps.f.output) }}",
            }
        )
        assert workers.db.ended(run_id) == "succeeded"
        assert workers.db.rows("SELECT output FROM runs WHERE run_id = %s", run_id)[0][0] == b"1000"


class TestCancel:
    def test_queued_steps_never_start_and_running_calls_end(self, workers):
        workers.doubles.llm.behaviour("hang")
        steps = [ask(f"s{number}", f"q{number}", depends_on=["first"]) for number in range(999)]
        run_id = workers.begin({"steps": [ask("first", "q"), *steps]})
        eventually(lambda: in_flight(workers) == 1)
        workers.db.commands.cancel(run_id)
        eventually(lambda: in_flight(workers) == 0)
        workers.doubles.llm.behaviour("ok")
        assert workers.execute({"steps": [ask("a", "another")]})["success"]
        assert prompts(workers) == {"q": 1, "another": 1}
        assert workers.db.status(run_id) == "cancelled"

    def test_a_sub_run_is_cancelled_with_its_parent(self, workers):
        workers.doubles.llm.behaviour("hang")
        inner = {"steps": [ask("a", "inside")]}
        run_id = workers.begin({"steps": [{"step_id": "s", "type": "workflow", "parameters": {"definition": inner}}]})
        eventually(lambda: in_flight(workers) == 1)
        workers.db.commands.cancel(run_id)
        [(child,)] = workers.db.rows("SELECT run_id FROM runs WHERE parent_run_id = %s", run_id)
        assert workers.db.ended(child) == "cancelled"
        eventually(lambda: in_flight(workers) == 0)


class TestTimeLimits:
    def test_a_call_past_the_steps_timeout_fails_the_step(self, workers):
        workers.doubles.llm.behaviour("hang")
        result = workers.execute({"steps": [ask("a", "q", **once(timeout="200ms"))]})
        assert "did not end within 0.2 s" in result["error"]
        assert workers.db.error(result["run_id"])["code"] == "step_timed_out"

    def test_vectors_that_do_not_come_in_time_fail_the_step(self, workers):
        workers.doubles.ollama.behaviour("hang")
        step = {"step_id": "e", "type": "embedding", "parameters": {"text": "never", "model": "all-minilm"}}
        result = workers.execute({"steps": [step | once(timeout="300ms")]})
        assert not result["success"]
        assert workers.db.error(result["run_id"])["code"] == "step_timed_out"

    def test_a_run_past_its_deadline_times_out(self, workers):
        workers.doubles.llm.behaviour("hang")
        result = workers.execute({"deadline": "1s", "steps": [ask("a", "q")]})
        assert (result["success"], result["status"]) == (False, "timed_out")
        eventually(lambda: in_flight(workers) == 0)

    def test_a_signal_that_does_not_come_in_time_fails_the_step(self, workers):
        wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go", "timeout": "100ms"}}
        assert "'go'" in workers.execute({"steps": [wait]})["error"]

    def test_a_wait_for_a_duration_succeeds(self, workers):
        wait = {"step_id": "w", "type": "wait", "parameters": {"duration": "100ms"}}
        assert workers.execute({"steps": [wait]})["success"]


class TestSubRuns:
    def sub(self, inner, **others):
        return {"step_id": "s", "type": "workflow", "parameters": {"definition": inner}} | others

    def test_the_step_gets_output_and_context_of_the_sub_run(self, workers):
        inner = {"context": {"n": 1}, "steps": [ask("a", "[[say done]]")], "output": "${{ steps.a.output.text }}"}
        result = workers.execute({"steps": [self.sub(inner)]})
        assert result["output"]["output"] == "done"
        assert result["output"]["final_context"]["n"] == 1

    def test_the_failure_of_a_sub_run_fails_the_run(self, workers):
        result = workers.execute({"steps": [self.sub({"steps": [ask("a", "no [[bad400]]")]})]})
        assert not result["success"]
        assert "max_tokens" in result["error"]

    def test_a_tolerated_failure_of_a_sub_run_lets_the_run_go_on(self, workers):
        inner = {"steps": [ask("a", "no [[bad400]]")]}
        result = workers.execute({"steps": [self.sub(inner, on_error="continue"), ask("b", "[[say on]]")]})
        assert result["output"]["text"] == "on"

    def test_idempotency_keys_inside_do_not_join_runs(self, workers):
        inner = {"idempotency_key": "inside", "steps": [ask("a", "[[say done]]")]}
        each = {"for_each": {"items": [1, 2]}}
        result = workers.execute({"steps": [self.sub(inner, **each)]})
        assert result["success"], result
        assert len({output["run_id"] for output in result["output"]}) == 2


def test_calls_that_hang_hold_up_no_other_run(workers):
    hanging = [workers.begin({"steps": [ask("a", f"[[hang]] {number}")]}) for number in range(100)]
    eventually(lambda: in_flight(workers) == 100)
    steps = [
        {"step_id": "e", "type": "embedding", "parameters": {"text": "meanwhile", "model": "all-minilm"}},
        ask("a", "[[say quick]]"),
    ]
    assert workers.execute({"steps": steps})["success"]
    assert {workers.db.status(run_id) for run_id in hanging} == {"running"}
    for run_id in hanging:
        workers.db.commands.cancel(run_id)
    eventually(lambda: in_flight(workers) == 0)


def test_a_thousand_steps_are_skipped(workers):
    steps = [ask(f"s{number}", "q", when="false") for number in range(999)]
    result = workers.execute({"steps": [*steps, ask("last", "[[say end]]")]})
    assert result["success"], result
    assert (result["steps_executed"], result["output"]["text"]) == (1, "end")


def test_runs_of_one_key_wait_for_one_another(workers):
    workers.doubles.llm.behaviour("slow", delay_ms=50)
    key = {"concurrency": {"key": "tenant", "limit": 2}}
    runs = [workers.begin({"steps": [ask("a", f"q{number}")]} | key) for number in range(8)]
    assert {workers.db.ended(run_id) for run_id in runs} == {"succeeded"}
    assert workers.doubles.llm.stats()["max_in_flight"] <= 2


@pytest.mark.parametrize("limit", [1, 3])
def test_runs_of_one_key_begin_in_the_order_of_their_submission(workers, limit):
    key = {"concurrency": {"key": f"at most {limit}", "limit": limit}}
    wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go"}}
    first = [workers.begin({"steps": [wait]} | key) for _ in range(limit)]
    runs = [workers.begin({"steps": [ask("a", f"q{number}")]} | key) for number in range(50)]
    for run_id in first:
        workers.db.commands.signal(run_id, "go", {})
    assert {workers.db.ended(run_id) for run_id in runs} == {"succeeded"}
    begun = "SELECT run_id FROM events WHERE type = 'step_started' AND run_id = ANY(%s) ORDER BY at"
    assert [run_id for (run_id,) in workers.db.rows(begun, runs)] == runs
    assert workers.doubles.llm.stats()["max_in_flight"] <= limit


def test_a_retry_repeats_only_failed_steps(workers):
    workers.doubles.llm.behaviour("bad400", after_requests=1, for_requests=1)
    run_id = workers.begin({"steps": [ask("a", "first"), ask("b", "second"), ask("c", "third")]})
    assert workers.db.ended(run_id) == "failed"
    workers.db.commands.retry(run_id, deadline=None)
    assert workers.db.ended(run_id) == "succeeded"
    assert prompts(workers) == {"first": 1, "second": 2, "third": 1}


def test_transient_errors_are_retried(workers):
    workers.doubles.llm.behaviour("error500", for_requests=2)
    retry = {"retry": {"max_attempts": 20, "delay": "50ms", "max_delay": "200ms"}}
    assert workers.execute({"steps": [ask("a", "q", **retry)]})["success"]


def test_no_step_starts_in_a_paused_run(workers):
    wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go"}}
    run_id = workers.begin({"steps": [wait, ask("a", "after")]})
    eventually(lambda: workers.db.steps(run_id)["w"] == "waiting")
    workers.db.commands.pause(run_id)
    workers.db.commands.signal(run_id, "go", {})
    assert workers.execute({"steps": [ask("a", "another")]})["success"]
    assert workers.db.steps(run_id) == {"w": "succeeded", "a": "pending"}
    workers.db.commands.resume(run_id)
    assert workers.db.ended(run_id) == "succeeded"
