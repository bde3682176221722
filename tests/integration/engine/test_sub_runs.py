"""Sub-runs through real workers: their timeout, and what a retry of their parent repeats."""

import pytest

from tests.support.polling import eventually


@pytest.fixture(scope="module")
def fleet_of_two(platform):
    """Two orchestration workers: nothing here embeds."""
    platform.orchestration()
    platform.orchestration()
    return platform


def ask(step_id, query, **others):
    return {"step_id": step_id, "type": "llm_query", "parameters": {"query": query}} | others


def once(**others):
    return {"retry": {"max_attempts": 1}} | others


def sub(*steps, step_id="s", **others):
    return {"step_id": step_id, "type": "workflow", "parameters": {"definition": {"steps": list(steps)}}} | others


def prompts(workers):
    return workers.doubles.llm.stats()["prompt_counts"]


def in_flight(workers):
    return workers.doubles.llm.stats()["in_flight"]


def children(workers, run_id):
    query = "SELECT run_id FROM runs WHERE parent_run_id = %s ORDER BY created_at"
    return [child for (child,) in workers.db.rows(query, run_id)]


def retry_to_the_end(workers, run_id):
    workers.db.commands.retry(run_id, deadline=None)
    return workers.db.ended(run_id)


class TestTimeout:
    def test_a_step_past_its_timeout_cancels_its_sub_run_and_nested_sub_runs(self, workers):
        workers.doubles.llm.behaviour("hang")
        inner = sub(sub(ask("a", "deep inside")), ask("b", "beside", depends_on=[]))
        run_id = workers.begin({"steps": [inner | once(timeout="300ms"), ask("after", "never")]})
        assert workers.db.ended(run_id) == "failed"
        error = workers.db.error(run_id)
        assert (error["code"], error["step_id"]) == ("step_timed_out", "s")
        eventually(lambda: in_flight(workers) == 0)
        [child] = children(workers, run_id)
        [nested] = children(workers, child)
        assert {workers.db.ended(run) for run in (child, nested)} == {"cancelled"}
        assert workers.db.steps(child) == {"s": "cancelled", "b": "cancelled"}
        assert "never" not in prompts(workers)

    def test_a_sub_run_past_its_timeout_is_retried_by_the_steps_policy(self, workers):
        workers.doubles.llm.behaviour("hang", for_requests=1, only_prompts="in time")
        retry = {"timeout": "500ms", "retry": {"max_attempts": 50, "delay": "10ms", "max_delay": "10ms"}}
        result = workers.execute({"steps": [sub(ask("a", "[[say in time]]"), **retry)]})
        assert result["success"], result
        run_id = workers.db.rows("SELECT run_id FROM runs WHERE workflow_id = %s", result["workflow_id"])[0][0]
        first, *_, last = children(workers, run_id)
        assert workers.db.ended(first) == "cancelled"
        assert workers.db.status(last) == "succeeded"

    def test_a_tolerated_timeout_lets_the_run_go_on(self, workers):
        workers.doubles.llm.behaviour("hang", for_requests=1, only_prompts="hangs")
        step = sub(ask("a", "hangs")) | once(timeout="300ms", on_error="continue")
        run_id = workers.begin({"steps": [step, ask("b", "[[say on]]")]})
        assert workers.db.ended(run_id) == "succeeded"
        [child] = children(workers, run_id)
        assert workers.db.ended(child) == "cancelled"
        eventually(lambda: in_flight(workers) == 0)

    def test_each_item_has_a_timeout_of_its_own(self, workers):
        steps = [ask("a", "${{ context.query }}")]
        parameters = {"definition": {"steps": steps}, "context": {"query": "${{ item }}"}}
        step = {"step_id": "s", "type": "workflow", "parameters": parameters, "on_error": "continue"}
        each = {"for_each": {"items": ["[[hang]]", "[[say well]]"]}}
        run_id = workers.begin({"steps": [step | each | once(timeout="2s")]})
        assert workers.db.ended(run_id) == "succeeded"
        assert workers.db.items(run_id, "s") == ["failed", "succeeded"]
        eventually(lambda: in_flight(workers) == 0)

    def test_a_sub_run_without_timeout_waits_for_ever(self, workers):
        run_id = workers.begin({"steps": [sub({"step_id": "w", "type": "wait", "parameters": {"signal": "go"}})]})
        eventually(lambda: children(workers, run_id))
        due = "SELECT due_at FROM steps WHERE run_id = %s"
        eventually(lambda: workers.db.steps(run_id)["s"] == "waiting")
        assert workers.db.rows(due, run_id) == [(None,)]
        workers.db.commands.cancel(run_id)


class TestRetryOfTheParent:
    def test_steps_that_succeeded_in_the_sub_run_are_not_repeated(self, workers):
        workers.doubles.llm.behaviour("bad400", after_requests=2, for_requests=1)
        run_id = workers.begin({"steps": [ask("p", "p"), sub(ask("a", "a"), ask("b", "b"), ask("c", "c"))]})
        assert workers.db.ended(run_id) == "failed"
        [child] = children(workers, run_id)
        assert retry_to_the_end(workers, run_id) == "succeeded"
        assert prompts(workers) == {"p": 1, "a": 1, "b": 2, "c": 1}
        assert children(workers, run_id) == [child]
        assert workers.db.status(child) == "succeeded"
        workers.db.assert_recorded_once(child)

    def test_steps_that_succeeded_in_a_nested_sub_run_are_not_repeated(self, workers):
        workers.doubles.llm.behaviour("bad400", after_requests=2, for_requests=2)
        run_id = workers.begin({"steps": [sub(ask("a", "a"), sub(ask("b", "b"), ask("c", "c")), ask("d", "d"))]})
        assert workers.db.ended(run_id) == "failed"
        assert retry_to_the_end(workers, run_id) == "failed"
        assert retry_to_the_end(workers, run_id) == "succeeded"
        assert prompts(workers) == {"a": 1, "b": 1, "c": 3, "d": 1}

    def test_steps_that_succeeded_in_the_sub_runs_of_items_are_not_repeated(self, workers):
        parameters = {"definition": {"steps": [ask("a", "a${{ context.n }}"), ask("b", "b${{ context.n }}")]}}
        step = {"step_id": "s", "type": "workflow", "parameters": parameters | {"context": {"n": "${{ item }}"}}}
        workers.doubles.llm.behaviour("bad400", after_requests=3, for_requests=1)
        run_id = workers.begin({"steps": [step | {"for_each": {"items": [1, 2], "max_parallel": 1}}]})
        assert workers.db.ended(run_id) == "failed"
        assert retry_to_the_end(workers, run_id) == "succeeded"
        assert prompts(workers) == {"a1": 1, "b1": 1, "a2": 1, "b2": 2}

    def test_a_sub_run_cancelled_with_its_parent_goes_on(self, workers):
        workers.doubles.llm.behaviour("hang", after_requests=1, for_requests=1)
        run_id = workers.begin({"steps": [sub(ask("a", "a"), ask("b", "b"))]})
        eventually(lambda: in_flight(workers) == 1 and prompts(workers).get("b"))
        workers.db.commands.cancel(run_id)
        assert retry_to_the_end(workers, run_id) == "succeeded"
        assert prompts(workers) == {"a": 1, "b": 2}

    def test_a_sub_run_that_succeeded_meanwhile_is_not_repeated(self, workers):
        run_id = workers.begin({"steps": [sub(ask("a", "a"))], "output": "${{ steps.s.output.output.text }}"})
        [child] = eventually(lambda: children(workers, run_id))
        assert workers.db.ended(run_id) == "succeeded"
        workers.db.rows("UPDATE runs SET status = 'failed', output = NULL WHERE run_id = %s", run_id)
        workers.db.rows("UPDATE steps SET status = 'cancelled' WHERE run_id = %s", run_id)
        assert retry_to_the_end(workers, run_id) == "succeeded"
        assert prompts(workers) == {"a": 1}
        assert children(workers, run_id) == [child]


class TestRetryAndTolerance:
    def test_a_tolerated_failure_is_not_repeated(self, workers):
        steps = [
            ask("a", "no [[bad400]]", on_error="continue"),
            ask("b", "b"),
            ask("c", "c [[bad400]]", on_error="continue", depends_on=["b"]),
        ]
        workers.doubles.llm.behaviour("bad400", for_requests=1)
        run_id = workers.begin({"steps": steps})
        assert workers.db.ended(run_id) == "failed"
        assert retry_to_the_end(workers, run_id) == "succeeded"
        assert prompts(workers) == {"no [[bad400]]": 1, "b": 2, "c [[bad400]]": 1}
        assert workers.db.steps(run_id) == {"a": "failed", "b": "succeeded", "c": "failed"}

    def test_a_tolerated_failure_is_not_repeated_in_a_cancelled_run(self, workers):
        wait = {"step_id": "w", "type": "wait", "parameters": {"signal": "go"}}
        run_id = workers.begin({"steps": [ask("a", "no [[bad400]]", on_error="continue"), wait]})
        eventually(lambda: workers.db.steps(run_id)["w"] == "waiting")
        workers.db.commands.cancel(run_id)
        workers.db.commands.retry(run_id, deadline=None)
        workers.db.commands.signal(run_id, "go", {})
        assert workers.db.ended(run_id) == "succeeded"
        assert prompts(workers) == {"no [[bad400]]": 1}

    @pytest.mark.parametrize("by", ["output", "step"])
    def test_a_tolerated_failure_whose_output_the_run_needed_is_repeated(self, workers, by):
        workers.doubles.llm.behaviour("bad400", for_requests=1)
        text = "${{ steps.a.output.text }}"
        needs = ask("b", text) if by == "step" else ask("b", "b")
        steps = [ask("a", "[[say found]]", on_error="continue"), needs]
        run_id = workers.begin({"steps": steps, "output": text})
        assert workers.db.ended(run_id) == "failed"
        assert retry_to_the_end(workers, run_id) == "succeeded"
        assert prompts(workers)["[[say found]]"] == 2
        assert workers.db.rows("SELECT output FROM runs WHERE run_id = %s", run_id) == [(b'"found"',)]


class TestConcurrencyKeys:
    @pytest.mark.parametrize("levels", [1, 2])
    def test_a_sub_run_with_the_key_of_an_ancestor_fails_its_step_at_once(self, workers, levels):
        inner = {"steps": [ask("a", "never")], "concurrency": {"key": "mine", "limit": 9}}
        for _ in range(levels):
            step = {"step_id": "s", "type": "workflow", "parameters": {"definition": "${{ context.inner }}"}}
            inner = {"steps": [step | once()], "context": {"inner": inner}}
        run_id = workers.begin(inner | {"concurrency": {"key": "mine", "limit": 9}})
        assert workers.db.ended(run_id) == "failed"
        failed = workers.db.rows("SELECT error ->> 'code' FROM steps WHERE status = 'failed' ORDER BY finished_at")
        assert failed[-levels] == ("key_of_ancestor",)
        assert "never" not in prompts(workers)

    def test_runs_that_hold_each_others_keys_end_by_their_steps_timeouts(self, workers):
        runs = []
        for own, other in (("k1", "k2"), ("k2", "k1")):
            hang = {"step_id": "w", "type": "wait", "parameters": {"signal": "both"}}
            child = sub(ask("a", "never")) | once(timeout="1s")
            child["parameters"]["definition"]["concurrency"] = {"key": other}
            runs.append(workers.begin({"steps": [hang, child], "concurrency": {"key": own}}))
        for run_id in runs:
            eventually(lambda run_id=run_id: workers.db.steps(run_id)["w"] == "waiting")
        for run_id in runs:
            workers.db.commands.signal(run_id, "both", {})
        assert "failed" in {workers.db.ended(run_id) for run_id in runs}
        [error] = [workers.db.error(run_id) for run_id in runs if workers.db.status(run_id) == "failed"][:1]
        assert error["code"] == "step_timed_out"
        assert "it was held by the concurrency key 'k" in error["message"]
