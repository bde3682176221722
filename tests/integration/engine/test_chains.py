"""A chain's transition in one round trip does what the general one does, and leaves to it what it cannot do."""

import pytest

from citadel_common.errors import LlmUnavailable
from citadel_orchestration.db.models import StepRef


def ask(step_id, **others):
    return {"step_id": step_id, "type": "llm_query", "parameters": {"query": "q"}} | others


@pytest.fixture(params=["chain", "general"])
def way(request, record):
    """Whether the definition is known, without which each transition goes the general way."""

    def begin(*steps):
        run_id = record.submit({"steps": list(steps)})
        [claim] = record.transitions.start(StepRef(run_id=run_id, step_id=steps[0]["step_id"])).claims
        if request.param == "chain":
            with record.database.cursor() as cursor:
                record.definitions.get(run_id, cursor)
        return run_id, claim

    return begin


def succeed(record, claim):
    return record.transitions.succeed(claim.ref, claim.attempt, {"text": "t"})


def test_the_next_step_is_claimed(record, way):
    run_id, claim = way(ask("a"), ask("b"), ask("c"))
    [following] = succeed(record, claim).claims
    assert (following.ref.step_id, following.attempt, following.tries) == ("b", 1, 0)
    assert (following.workflow_id, following.kind, following.lane) == (claim.workflow_id, claim.kind, claim.lane)
    assert record.steps(run_id) == {"a": "succeeded", "b": "running", "c": "pending"}
    assert record.events(run_id) == [
        ("run_submitted", None, None),
        ("step_started", "a", None),
        ("step_succeeded", "a", None),
        ("step_started", "b", None),
    ]
    assert record.rows("SELECT lease_owner, lease_until > now() FROM steps WHERE step_id = 'b'") == [("the test", True)]
    assert record.rows("SELECT step_id, body FROM payloads WHERE kind = 'output'") == [("a", b'{"text":"t"}')]


def test_all_that_follow_are_claimed(record, way):
    run_id, claim = way(ask("a"), ask("b", depends_on=["a"]), ask("c", depends_on=["a"]))
    assert [following.ref.step_id for following in succeed(record, claim).claims] == ["b", "c"]
    assert [event[1] for event in record.events(run_id)] == [None, "a", "a", "b", "c"]


def test_a_run_ends_after_its_last_step(record, way):
    run_id, claim = way(ask("a"), ask("b"))
    [last] = succeed(record, claim).claims
    assert succeed(record, last).ended.status == "succeeded"
    record.assert_recorded_once(run_id)


def test_a_late_attempt_changes_nothing(record, way):
    run_id, claim = way(ask("a", retry={"max_attempts": 2, "delay": "1h"}), ask("b"))
    record.transitions.fail(claim.ref, claim.attempt, LlmUnavailable("away"))
    before = record.events(run_id)
    assert not succeed(record, claim).applied
    assert record.steps(run_id) == {"a": "waiting", "b": "pending"}
    assert record.events(run_id) == before


def test_a_duplicate_changes_nothing(record, way):
    run_id, claim = way(ask("a"), ask("b"))
    succeed(record, claim)
    before = record.events(run_id)
    assert not succeed(record, claim).applied
    assert record.events(run_id) == before


def test_in_a_paused_run_nothing_starts(record, way):
    run_id, claim = way(ask("a"), ask("b"))
    record.commands.pause(run_id)
    effects = succeed(record, claim)
    assert effects.applied
    assert not effects.claims
    assert record.steps(run_id) == {"a": "succeeded", "b": "pending"}


def test_a_cancelled_run_stays_so(record, way):
    run_id, claim = way(ask("a"), ask("b"))
    record.commands.cancel(run_id)
    assert not succeed(record, claim).applied
    assert record.status(run_id) == "cancelled"


def test_a_step_that_waits_for_others_too(record, way):
    run_id, claim = way(ask("a"), ask("b", depends_on=[]), ask("c", depends_on=["a", "b"]))
    assert not succeed(record, claim).claims
    assert record.steps(run_id)["c"] == "pending"
