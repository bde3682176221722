"""A run that fans out wide takes no more than its share of the workers."""

import pytest

from tests.support.polling import eventually

ITEMS = 1_000
PARALLEL = 128


@pytest.fixture(scope="module")
def workers(platform):
    """One worker of each kind, so that all stand in the same line."""
    platform.orchestration()
    platform.embeddings()
    return platform


def text(step_id, value, **others):
    return {"step_id": step_id, "type": "embedding", "parameters": {"text": value, "model": "all-minilm"}} | others


def fan_out(name):
    each = {"items": "${{ context.items }}", "max_parallel": PARALLEL}
    items = [f"{name} {number}" for number in range(ITEMS)]
    return {"context": {"items": items}, "steps": [text("f", "${{ item }}", for_each=each)]}


def done(workers, run_id):
    return int(workers.db.rows("SELECT items_done FROM steps WHERE run_id = %s AND item = -1", run_id)[0][0])


def test_a_small_run_is_not_held_up_by_a_wide_one(workers):
    """Behind all items in one queue, each of the five steps of the small run would let a hundred items pass."""
    wide = workers.begin(fan_out("wide"))
    eventually(lambda: done(workers, wide) >= PARALLEL)
    before = done(workers, wide)
    small = workers.begin({"steps": [text(f"s{number}", f"small {number}") for number in range(5)]})
    assert workers.db.ended(small) == "succeeded"
    assert done(workers, wide) - before < ITEMS / 4
    assert workers.db.ended(wide) == "succeeded"


def test_a_for_each_over_too_many_items_fails(workers):
    items = {"context": {"items": list(range(10_001))}}
    result = workers.execute(fan_out("long") | items)
    assert "10001, the limit (workflows.max_items) is 10000" in result["error"]
