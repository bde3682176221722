"""Runs that PostgreSQL fails at, and those that are well."""

import pytest

from tests.support.refusals import Refusals


def wait(number):
    return {"workflow_id": f"w{number}", "steps": [{"step_id": "a", "type": "wait", "parameters": {"duration": "1ms"}}]}


@pytest.fixture(scope="module")
def db(platform):
    """The record, with one worker: of two, one would skip what the other has locked."""
    platform.orchestration()
    return platform.db


@pytest.mark.parametrize("code", ["XX000", "XX001", "55P03"])
def test_a_run_whose_rows_are_broken_keeps_the_sweep_from_no_other(platform, db, code):
    refusals = Refusals(platform.dsn)
    broken = db.submit(wait(0))
    refusals.of_steps(broken, code)
    others = [db.submit(wait(number)) for number in range(1, 4)]
    assert {db.ended(run_id) for run_id in others} == {"succeeded"}
    assert db.steps(broken) == {"a": "ready"}
    refusals.end()
    assert db.ended(broken) == "succeeded"
